"""One arm of a study: evolution for accuracy alone, or NSGA-II for accuracy and energy.

A study that was killed goes on from the networks that it had evaluated: evolution follows from the
seed, so it repeats its generations with what is known, and ends as one that was never interrupted.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.algorithms.soo.nonconvex.ga import GA
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.problem import Problem
from pymoo.indicators.hv import HV
from pymoo.operators.crossover.ux import UX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair

from ecc import runs
from ecc.errors import UserError
from ecc.evolution.genome import Genes, Space
from ecc.metrics import pareto

logger = logging.getLogger(__name__)
ARMS = {"accuracy": ("error",), "energy": ("error", "energy_j")}  # objectives of each
TRIES = 200  # random genomes in a row without a new network that is small enough, at most

# (genomes) -> their rows: accuracy, validation_accuracy, energy_j, parameters, latency_s, macs
Evaluate = Callable[[Sequence[Genes]], Iterable[dict[str, Any]]]


@dataclass(frozen=True)
class Settings:
    """`population` new networks in the first generation and in each of the `generations` after
    it, fewer where the space has no more; none of more than `largest_macs` at deployment.
    """

    population: int
    generations: int
    largest_macs: float


class Study:
    """An arm (`accuracy` or `energy`) of a study, with a seed of its own.

    `evaluate` gives the rows of genomes, in their order, one by one as they are known; `macs` the
    MACs of one. `checkpoint` is the file of what was evaluated.
    """

    def __init__(
        self,
        space: Space,
        arm: str,
        settings: Settings,
        evaluate: Evaluate,
        macs: Callable[[Genes], float],
        *,
        seed: int,
        checkpoint: Path | None = None,
        fingerprint: str = "",
    ):
        if arm not in ARMS:
            raise UserError(f"arm '{arm}' is unknown: known are {', '.join(ARMS)}")
        self.space, self.arm, self.settings, self.seed = space, arm, settings, seed
        self.evaluate, self.macs = evaluate, macs
        self.known = Known(checkpoint, fingerprint)
        self.found: dict[str, dict[str, Any]] = {}  # by architecture, in the order of evaluation
        self.sizes: dict[str, float] = {}  # MACs by architecture
        self.reference_j = float("nan")

    def run(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Returns the networks, one a row, and the history, one generation a row."""
        algorithm = self._algorithm()
        rows: list[dict[str, Any]] = []
        while algorithm.has_next():
            self.generation, known = len(rows), len(self.found)
            algorithm.next()
            if len(self.found) == known:
                logger.info("generation %d has no new network: the evolution ends", len(rows))
                break
            rows.append(self._generation())
        return self._networks(), pd.DataFrame(rows)

    def _algorithm(self) -> Any:
        kind = NSGA2 if len(ARMS[self.arm]) > 1 else GA
        algorithm = kind(
            pop_size=self.settings.population,
            sampling=self._first(),
            crossover=UX(prob=0.9),
            mutation=PM(eta=3, vtype=float, repair=RoundingRepair()),
            repair=RoundingRepair(),
            eliminate_duplicates=_New(self),
        )
        generations = ("n_gen", self.settings.generations + 1)
        return algorithm.setup(_Objectives(self), termination=generations, seed=self.seed)

    def _first(self) -> Genes:
        """Random genomes (population, genes) of small networks that differ; the same for all arms.

        Fewer where no more are found.
        """
        stream = np.random.default_rng([self.seed, 6])
        found: dict[str, Genes] = {}
        vain = 0
        while len(found) < self.settings.population and vain < TRIES:
            genes, vain = self.space.draw(stream), vain + 1
            if (name := self.name(genes)) not in found and self.small(genes):
                found[name], vain = genes, 0
        if not found:
            raise UserError(
                f"largest_macs {self.settings.largest_macs:g}: none of {TRIES} random networks of "
                "the space is that small: raise it or narrow the space"
            )
        if vain:
            logger.warning("the space has hardly more than %d small networks", len(found))
        return np.array(list(found.values()))

    def name(self, genes: Genes) -> str:
        """What two genomes of one architecture share, whatever their silent genes are."""
        return str(self.space.decode(genes))

    def small(self, genes: Genes) -> bool:
        """Whether a network may be trained."""
        if (name := self.name(genes)) not in self.sizes:
            self.sizes[name] = self.macs(genes)
        return self.sizes[name] <= self.settings.largest_macs

    def objectives(self, genomes: Genes) -> Any:
        """Objectives (n, objectives) of networks that were not evaluated before."""
        new = {self.name(genes): genes for genes in genomes}
        self._ask(new)
        rows = [self.found[self.name(genes)] for genes in genomes]
        return np.array([[row[key] for key in ARMS[self.arm]] for row in rows])

    def _ask(self, new: dict[str, Genes]) -> None:
        unknown = {name: genes for name, genes in new.items() if name not in self.known.rows}
        results = self.evaluate(list(unknown.values()))
        for (name, _), row in zip(unknown.items(), results, strict=True):
            self.known.add(name, row)
        for name, genes in new.items():
            row = self.known.rows[name]
            self.found[name] = {
                "generation": self.generation,
                "genome": " ".join(map(str, genes)),
                "architecture": name,
                **row,
                "error": 1 - row["accuracy"],
            }

    def _generation(self) -> dict[str, Any]:
        networks = self._networks()
        if len(networks) and np.isnan(self.reference_j):
            self.reference_j = float(networks["energy_j"].max())  # the first generation's
        best = networks.loc[networks["accuracy"].idxmax()]
        return {
            "generation": self.generation,
            "evaluations": len(networks),
            "accuracy": best["accuracy"],
            "energy_j": best["energy_j"],
            "hypervolume": hypervolume(networks, self.reference_j),
        }

    def _networks(self) -> pd.DataFrame:
        frame = pd.DataFrame(list(self.found.values()))
        front = pareto(frame)
        return frame.drop(columns="error").assign(arm=self.arm, seed=self.seed, front=front)


class _Objectives(Problem):  # type: ignore[misc]
    def __init__(self, study: Study):
        lower, upper = study.space.bounds
        count = len(ARMS[study.arm])
        super().__init__(n_var=len(lower), n_obj=count, xl=lower, xu=upper)
        self.study = study

    def _evaluate(self, X: Genes, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        out["F"] = self.study.objectives(X)


class _New(DuplicateElimination):  # type: ignore[misc]
    """Leaves genomes of small networks that were not evaluated, one of each architecture."""

    def __init__(self, study: Study):
        super().__init__()
        self.study = study

    def _do(self, pop: Any, other: Any, is_duplicate: Any) -> Any:
        rest = [] if other is None else other
        seen = {*self.study.found, *(self.study.name(one.X) for one in rest)}
        for index, one in enumerate(pop):
            name = self.study.name(one.X)
            is_duplicate[index] = name in seen or not self.study.small(one.X)
            seen.add(name)
        return is_duplicate


class Known:
    """Rows of networks by architecture, kept in a file as soon as they are known.

    A line begins with the SHA-256 of the rest. A file of another study (`fingerprint`) is begun
    anew; of what a killed one left half, and of a damaged one, the lines before are known.
    """

    def __init__(self, path: Path | None, fingerprint: str):
        self.path, self.rows = path, dict[str, dict[str, Any]]()
        if path is None:
            return
        try:
            lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        except OSError as error:
            raise UserError(
                f"{path} cannot be read ({error.strerror}): delete or move it"
            ) from error
        if lines[:1] == [fingerprint]:
            for line in lines[1:]:
                told = line.partition(" ")[2]
                if line != _sealed(told):
                    break
                entry = json.loads(told)
                self.rows[entry["architecture"]] = entry["row"]
        entries = [self._line(name, row) for name, row in self.rows.items()]
        runs.write_text(path, "".join([f"{fingerprint}\n", *entries]))

    def add(self, name: str, row: dict[str, Any]) -> None:
        self.rows[name] = row
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(self._line(name, row))

    @staticmethod
    def _line(name: str, row: dict[str, Any]) -> str:
        return _sealed(json.dumps({"architecture": name, "row": row})) + "\n"


def _sealed(line: str) -> str:
    return f"{hashlib.sha256(line.encode()).hexdigest()} {line}"


def hypervolume(networks: pd.DataFrame, reference_j: float) -> float:
    """Of (error, energy / reference_j), with the reference point (1, 1): a fraction of 1."""
    points = np.column_stack([1 - networks["accuracy"], networks["energy_j"] / reference_j])
    return float(HV(ref_point=np.ones(2))(points))
