"""One arm of a study: evolution for accuracy alone, or NSGA-II for accuracy and energy.

A study that was killed goes on from the networks that it had evaluated: evolution follows from the
seed, so it repeats its generations with what is known, and ends as one that was never interrupted.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.algorithms.soo.nonconvex.ga import GA
from pymoo.core.problem import Problem
from pymoo.indicators.hv import HV
from pymoo.operators.crossover.ux import UX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair

from ecc.errors import UserError
from ecc.evolution.genome import Genes, Space

ARMS = {"accuracy": ("error",), "energy": ("error", "energy_j")}  # objectives of each
TRIES = 1000  # random genomes a member of the first population, at most

# (genomes) -> their rows: accuracy, validation_accuracy, energy_j, parameters, latency_s, macs
Evaluate = Callable[[Sequence[Genes]], Iterable[dict[str, Any]]]


@dataclass(frozen=True)
class Settings:
    """`population` networks in the first generation and in each of the `generations` after it;
    networks of more than `largest_macs` at deployment are not trained.
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
        self.reference_j = float("nan")

    def run(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Returns the networks, one a row, and the history, one generation a row."""
        algorithm = self._algorithm()
        rows: list[dict[str, Any]] = []
        while algorithm.has_next():
            self.generation = len(rows)
            algorithm.next()
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
            eliminate_duplicates=True,
        )
        generations = ("n_gen", self.settings.generations + 1)
        return algorithm.setup(_Objectives(self), termination=generations, seed=self.seed)

    def _first(self) -> Genes:
        """Random genomes (population, genes) that are small enough; the same for all arms."""
        stream, found = np.random.default_rng([self.seed, 6]), []
        for _ in range(TRIES * self.settings.population):
            genes = self.space.draw(stream)
            if self.macs(genes) <= self.settings.largest_macs:
                found.append(genes)
            if len(found) == self.settings.population:
                return np.array(found)
        raise UserError(
            f"largest_macs {self.settings.largest_macs:g}: hardly any network of the space is "
            "that small: raise it or narrow the space"
        )

    def objectives(self, genomes: Genes) -> tuple[Any, Any]:
        """Objectives (n, objectives) and, as a constraint, MACs over the largest (n,)."""
        over = np.array([self.macs(genes) / self.settings.largest_macs - 1 for genes in genomes])
        small = [genes for genes, excess in zip(genomes, over, strict=True) if excess <= 0]
        self._ask(small)
        rows = [self.found.get(str(self.space.decode(genes))) for genes in genomes]
        # What is too large is not trained: the constraint decides before these objectives do.
        worst = {"error": 1.0, "energy_j": 1e30}
        values = [[(row or worst)[name] for name in ARMS[self.arm]] for row in rows]
        return np.minimum(np.array(values), 1e30), over

    def _ask(self, genomes: Sequence[Genes]) -> None:
        """Evaluates what no genome of the same architecture was evaluated for."""
        names = {str(self.space.decode(genes)): genes for genes in genomes}
        new = {name: genes for name, genes in names.items() if name not in self.found}
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
        super().__init__(n_var=len(lower), n_obj=count, n_ieq_constr=1, xl=lower, xu=upper)
        self.study = study

    def _evaluate(self, X: Genes, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        out["F"], out["G"] = self.study.objectives(X)


class Known:
    """Rows of networks by architecture, kept in a file as soon as they are known.

    A file of another study (`fingerprint`) is begun anew, and so is what a killed one left half.
    """

    def __init__(self, path: Path | None, fingerprint: str):
        self.path, self.rows = path, dict[str, dict[str, Any]]()
        if path is None:
            return
        lines = path.read_text().splitlines() if path.exists() else []
        if lines[:1] == [fingerprint]:
            for line in lines[1:]:
                try:
                    entry = json.loads(line)
                except ValueError:
                    break
                self.rows[entry["architecture"]] = entry["row"]
        path.parent.mkdir(parents=True, exist_ok=True)
        entries = [self._line(name, row) for name, row in self.rows.items()]
        path.write_text("".join([f"{fingerprint}\n", *entries]))

    def add(self, name: str, row: dict[str, Any]) -> None:
        self.rows[name] = row
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(self._line(name, row))

    @staticmethod
    def _line(name: str, row: dict[str, Any]) -> str:
        return json.dumps({"architecture": name, "row": row}) + "\n"


def pareto(networks: pd.DataFrame) -> "pd.Series[bool]":
    """Which networks no other one beats in accuracy and energy_j: bool, one a row."""
    ordered = networks.sort_values(["energy_j", "accuracy"], ascending=[True, False])
    before = ordered["accuracy"].cummax().shift(fill_value=-1.0)
    return (ordered["accuracy"] > before).reindex(networks.index)


def hypervolume(networks: pd.DataFrame, reference_j: float) -> float:
    """Of (error, energy / reference_j), with the reference point (1, 1): a fraction of 1."""
    points = np.column_stack([1 - networks["accuracy"], networks["energy_j"] / reference_j])
    return float(HV(ref_point=np.ones(2))(points))
