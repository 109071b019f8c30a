"""The workflow as one call: sample, fit, compress, close, fine-tune, measure again.

Every step is the library call that the script of the rule makes, with the same seeds: where an
experiment has one budget and one seed, both give the same network.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ecc import data as datasets, energy, platforms, runs
from ecc.budgets import Budget, Range, lower_bounds
from ecc.card import Facts, Images
from ecc.channels import Channels, trace, widths_of
from ecc.closing import close_all, narrow
from ecc.data import Dataset
from ecc.energy import EnergyModel
from ecc.errors import UserError
from ecc.export import export, plain
from ecc.finetuning import finetune
from ecc.measuring.interface import Buildable
from ecc.methods import Compressed, Problem, compress as compress_by
from ecc.networks import Network
from ecc.platforms import Platform
from ecc.structure import Structure
from ecc.training import TrainingSettings, evaluate
from ecc.verification import verify

Size = tuple[int, int]  # height, width
PHASE = {"loss": "distillation", "iterations": 100, "schedule": "cosine"}


@dataclass(frozen=True)
class Settings:
    """How to go about it; the defaults are those of config.yaml's first experiment.

    `samples` random widths are measured, `test_samples` of them kept from the fit of the
    `energy_model`; `repeats` measurements are averaged for the dense and the slim network.
    `smallest_width` is a lower bound, a fraction of full widths. `closing_rounds`: how often a
    network that measures over budget is narrowed. A phase of `finetuning` has its `loss`
    ("distillation" or "task"), and takes what it does not name from `compression`.
    """

    samples: int = 10_000
    test_samples: int = 2_000
    repeats: int = 400
    energy_model: Mapping[str, Any] = field(
        default_factory=lambda: {"model": "bilinear_graph", "fit": "nnls"}
    )
    smallest_width: float = 0.2
    closing_rounds: int = 3
    compression: TrainingSettings = field(
        default_factory=partial(TrainingSettings, 250, batch_size=64, learning_rate=2e-3)
    )
    finetuning: Sequence[Mapping[str, Any]] = (PHASE,)

    def __post_init__(self) -> None:
        if not self.finetuning:
            raise UserError("finetuning: give at least one phase")

    @property
    def phases(self) -> list[dict[str, Any]]:
        """The phases of fine-tuning with all their settings."""
        return [{**asdict(self.compression), **phase} for phase in self.finetuning]

    @property
    def told(self) -> dict[str, Any]:
        """All settings as plain values."""
        return {**asdict(self), "finetuning": self.phases}


DEFAULTS = Settings()


@dataclass(frozen=True)
class Result:
    """A compressed network; energies in joules, or in seconds where the platform measures latency.

    `model` is slim and fine-tuned, on the CPU, in evaluation mode; `widths` (groups,). `history`
    has a row for every iteration of the `stage` "compression", then "fine-tuning". What `facts`
    hold besides goes into the model card.
    """

    model: nn.Module
    widths: NDArray[np.int64]
    history: pd.DataFrame
    energy_model: EnergyModel
    facts: Facts
    network: Network | None

    @property
    def accuracy(self) -> float:
        """The task's score over the validation images, a fraction."""
        return self.facts.accuracy

    @property
    def dense_accuracy(self) -> float:
        return self.facts.dense_accuracy

    @property
    def budget_j(self) -> float:
        return self.facts.budget_j

    @property
    def dense_energy_j(self) -> float:
        """Measured, as the budget is meant."""
        return self.facts.dense_energy_j

    @property
    def modelled_energy_j(self) -> float:
        return self.facts.modelled_energy_j

    @property
    def measured_energy_j(self) -> float | None:
        """None where a recorded platform has not measured these widths."""
        return self.facts.measured_energy_j

    def save(self, folder: str | Path) -> None:
        """Writes model.safetensors, model.pt2, model.onnx and a model card: see `ecc.export`.

        Raises UserError where only the size of deployment was given, not the architecture.
        """
        if self.network is None:
            raise UserError(
                "a network whose architecture is not known cannot be built again: give "
                "ecc.compress(..., deployed=ecc.networks.Network(...)) in place of a size"
            )
        export(folder, self.model, self.network, self.facts)


def compress(
    network: nn.Module,
    data: Dataset | Mapping[str, Any] | str | Path,
    *,
    deployed: Network | Size = (224, 224),
    platform: Platform | Mapping[str, Any] | str = "jetson_tx2",
    budget_j: float | None = None,
    budget: float | Mapping[str, float] | None = None,
    method: str = "ecc",
    method_settings: Mapping[str, Any] | None = None,
    settings: Settings = DEFAULTS,
    name: str = "network",
    seed: int = 0,
    folder: str | Path | None = None,
) -> Result:
    """Compresses a trained `network` to an energy budget on a platform; it stays as it is.

    `data`: a dataset, the settings of one (as in the configuration), or a folder that
    `ecc.data.prepare` or the workflow has filled. `deployed`: the architecture as it is deployed,
    whose weights `network` has, or a size alone. `platform`: the kind of one, the settings of one
    (as in the configuration), or one itself. The budget: `budget_j` joules, `budget` a fraction of
    dense energy, or an entry of the configuration ({"reducible": 0.2}, {"seconds": 0.005}).
    `name` and `seed` decide all draws. In `folder` a sensor's measurements and checkpoints are kept
    until the end, so that the same call goes on where a killed one was.

    Raises UserError, one line: for a budget that cannot be reached or is above dense energy, and
    for whatever else does not fit.
    """
    started = runs.start()
    device, wanted = _platform(platform), _budget(budget_j, budget)
    wanted.check(device.metric)
    given = _given(network, deployed)
    with _opened(data) as (images, about), _scratch(folder) as scratch:
        if given.channels.structure.classes != images.classes:
            raise UserError(
                f"the network has {given.channels.structure.classes} outputs, "
                f"{images.name} has {images.classes} classes: give the network as many"
            )
        run = _Run(given, images, device, settings, f"{name}/{device.name}/{method}", seed, scratch)
        model, found = run.energy_model()
        problem = run.problem(model, wanted.resolve(found))
        own = dict(method_settings or {})
        compressed = compress_by(method, problem, own)
        finished = run.finished(problem, model, compressed)
    told = {"budget": wanted.label, "method": {"method": method, **own}, **settings.told}
    facts = Facts(
        **finished.facts,
        **_told(device),
        method=method,
        budget_j=problem.budget_j,
        dense_energy_j=found.dense,
        images=about,
        settings={**told, "closing": finished.closing, **runs.record(seed, started)},
    )
    network_given = deployed if isinstance(deployed, Network) else None
    return Result(finished.model, finished.widths, finished.history, model, facts, network_given)


@dataclass(frozen=True)
class _Given:
    """The dense network, its channels, and how to build it where it must run."""

    dense: nn.Module
    channels: Channels
    buildable: Buildable


@dataclass(frozen=True)
class _Slimmed:
    """A network that is known by one module: it is had at any widths by slimming that."""

    dense: nn.Module
    channels: Channels

    @property
    def structure(self) -> Structure:
        return self.channels.structure

    @property
    def size(self) -> Size:
        return self.channels.size

    def build(self, widths: NDArray[np.int64]) -> nn.Module:
        return self.channels.slim(self.dense, self.channels.first(widths))


@dataclass(frozen=True)
class _Finished:
    model: nn.Module
    widths: NDArray[np.int64]
    history: pd.DataFrame
    facts: dict[str, Any]
    closing: dict[str, Any] | None  # as in closing.json


@dataclass(frozen=True)
class _Run:
    """The steps of one compression; each does what the script of the rule does."""

    given: _Given
    images: Dataset
    platform: Platform
    settings: Settings
    name: str
    seed: int
    scratch: Path | None

    @property
    def structure(self) -> Structure:
        return self.given.channels.structure

    @property
    def smallest(self) -> NDArray[np.int64]:
        return lower_bounds(self.structure.full_widths, self.settings.smallest_width)

    def energy_model(self) -> tuple[EnergyModel, Range]:
        """sample_energy, fit_energy_models and resolve_budgets."""
        chosen, structure = self.settings, self.structure
        taken = energy.sample(
            self.platform,
            self.given.buildable,
            chosen.samples,
            seed=self.seed,
            repeats=chosen.repeats,
            journal=self._left("samples"),
        )
        widths = taken.samples.filter(like="width_").to_numpy(dtype=np.int64)
        energy_j = taken.samples["energy_j"].to_numpy()
        train, test = energy.split(len(widths), chosen.test_samples, self.seed)
        own = dict(chosen.energy_model)
        kind, fit = own.pop("model"), own.pop("fit")
        known, held = (widths[train], energy_j[train]), (widths[test], energy_j[test])
        model, _ = energy.fit(kind, fit, structure, *known, own, test=held)
        smallest_j = float(model.energy(self.smallest))
        return model, Range(taken.dense_energy_j, smallest_j, self.platform.metric)

    def problem(self, model: EnergyModel, budget_j: float) -> Problem:
        return Problem(
            dense=self.given.dense,
            channels=self.given.channels,
            energy=model,
            budget_j=budget_j,
            lower_bounds=self.smallest,
            train=self.images.train,
            holdout=self.images.holdout,
            training=self.settings.compression,
            seed=self.seed,
            checkpoint=self._left("compression.safetensors"),
        )

    def finished(self, problem: Problem, model: EnergyModel, compressed: Compressed) -> _Finished:
        """close_budgets, finetune and verify_energy."""
        channels, validation = self.given.channels, self.images.validation
        device = self.settings.phases[0]["device"]
        masked = plain(compressed.model)
        closing = None
        if self.settings.closing_rounds:
            closing = self._close(problem, model, masked, device)
        widths = channels.count(masked)
        before = evaluate(masked, validation, device=device)
        slim = channels.slim(masked, channels.kept(masked))
        course = self._finetuned(slim, problem.training.iterations - compressed.iterations)
        facts = {
            "groups": [
                {"name": group.name, "width": int(width), "full_width": group.width}
                for group, width in zip(self.structure.groups, widths, strict=True)
            ],
            "accuracy": evaluate(slim, validation, device=device),
            "accuracy_before_finetuning": before,
            "dense_accuracy": evaluate(self.given.dense, validation, device=device),
            **self._verified(problem, model, widths),
        }
        stages = {"compression": compressed.history, "fine-tuning": course}
        history = pd.concat([frame.assign(stage=stage) for stage, frame in stages.items()])
        return _Finished(plain(slim), widths, history.reset_index(drop=True), facts, closing)

    def _close(
        self, problem: Problem, model: EnergyModel, masked: nn.Module, device: str
    ) -> dict[str, Any]:
        """Narrows the network where it measures more than its budget; returns how that went."""

        def accuracy(keep: list[Tensor]) -> float:
            narrow(masked, channels, keep, self.images.train, seed=self.seed, device=device)
            return evaluate(masked, self.images.holdout, device=device)

        channels, platform = problem.channels, self.platform
        kept = channels.kept(masked)
        before = after = accuracy(kept)
        [found] = close_all(
            {platform.name: (platform, model)},
            self.given.buildable,
            channels,
            [(masked, {platform.name: problem.budget_j})],
            smallest=problem.lower_bounds,
            rounds=self.settings.closing_rounds,
            repeats=self.settings.repeats,
            seed=runs.named_seed(self.seed, f"{self.name}/closing"),
            journal=self._left("closing"),
        )
        if not all(map(torch.equal, kept, found.keep)):
            after = accuracy(found.keep)
        return found.record(widths_of(kept), before, after)

    def _finetuned(self, slim: nn.Module, unspent: int) -> pd.DataFrame:
        return finetune(
            slim,
            self.given.dense,
            self.images.train,
            self.settings.phases,
            seed=self.seed,
            extra_iterations=unspent,
            checkpoint=self._left("finetuning.safetensors"),
        )

    def _verified(
        self, problem: Problem, model: EnergyModel, widths: NDArray[np.int64]
    ) -> dict[str, Any]:
        [row] = verify(
            self.platform,
            self.given.buildable,
            model,
            widths,
            [problem.budget_j],
            repeats=self.settings.repeats,
            seed=runs.named_seed(self.seed, self.name),
            journal=self._left("verified"),
        )
        return {name: row[name] for name in ("modelled_energy_j", "measured_energy_j")}

    def _left(self, name: str) -> Path | None:
        """Where a killed call leaves what it has, if it is to leave anything."""
        return self.scratch and self.scratch / name


def _told(platform: Platform) -> dict[str, Any]:
    """What a card says of a platform."""
    return {
        "platform": platform.name,
        "description": platform.description,
        "emulated": platform.emulated,
        "metric": platform.metric,
    }


def _platform(platform: Platform | Mapping[str, Any] | str) -> Platform:
    if isinstance(platform, str):
        return platforms.make(platform, {"kind": platform})
    if isinstance(platform, Mapping):
        return platforms.make(str(platform.get("kind")), {"kind": None, **platform})
    return platform


def _budget(budget_j: float | None, budget: float | Mapping[str, float] | None) -> Budget:
    if (budget_j is None) == (budget is None):
        raise UserError("give either budget_j, in joules, or budget, a fraction of dense energy")
    if budget_j is not None:
        return Budget("joules", float(budget_j))
    entry = budget if isinstance(budget, Mapping) else {"dense": budget}
    found = Budget.from_settings(entry)
    if found.limits:
        raise UserError("limits beside the budget are for the workflow: give the budget alone")
    return found


def _given(network: nn.Module, deployed: Network | Size) -> _Given:
    """The dense network as a copy; raises UserError where it has other weights than `deployed`."""
    dense = plain(network)
    if not isinstance(deployed, Network):
        channels = trace(dense, deployed)
        return _Given(dense, channels, _Slimmed(dense, channels))
    with torch.random.fork_rng(devices=[]):  # the caller's draws stay as they are
        expected = deployed.build()
    try:
        expected.load_state_dict(dense.state_dict())
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"the network is not a dense {deployed.architecture}: {reason}") from error
    return _Given(expected, deployed.channels, deployed)


@contextmanager
def _opened(data: Dataset | Mapping[str, Any] | str | Path) -> Iterator[tuple[Dataset, Images]]:
    """The dataset, and what is known of it."""
    if isinstance(data, Dataset):
        yield data, Images(data.name)
    elif isinstance(data, Mapping):
        with TemporaryDirectory() as folder:
            datasets.prepare(dict(data), folder)
            yield _prepared(Path(folder), dict(data))
    else:
        if not (Path(data) / datasets.MANIFEST).is_file():
            raise UserError(
                f"{data} has no {datasets.MANIFEST}: give the settings of a dataset, or a folder "
                "that ecc.data.prepare has filled"
            )
        yield _prepared(Path(data))


def _prepared(folder: Path, settings: dict[str, Any] | None = None) -> tuple[Dataset, Images]:
    manifest = runs.read_json(folder / datasets.MANIFEST)
    about = Images.from_manifest(manifest)
    return datasets.load(settings or manifest["settings"], folder), about


@contextmanager
def _scratch(folder: str | Path | None) -> Iterator[Path | None]:
    """The folder for what a killed call leaves; without its checkpoints when all went well."""
    path = None if folder is None else Path(folder)
    if path is None:
        yield None
        return
    path.mkdir(parents=True, exist_ok=True)
    yield path
    for name in ("compression", "finetuning"):
        runs.finished(path / f"{name}.safetensors")
