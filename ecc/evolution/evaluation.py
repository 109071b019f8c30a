"""What an architecture costs, and how accurate it gets by a short training."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from ecc import checkpoints
from ecc.channels import trace
from ecc.data import Dataset
from ecc.errors import DivergedError, UserError
from ecc.evolution.genome import Genes, Space
from ecc.evolution.network import build
from ecc.platforms import Estimator, Platform, estimates
from ecc.platforms.emulated import EmulatedDevice
from ecc.structure import Structure
from ecc.training import Split, TaskLoss, TrainingSettings, evaluate, train

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cost:
    """Of one inference at the deployment size; joules, parameters, seconds and MACs.

    `latency_s` is NaN where the platform tells no times.
    """

    energy_j: float
    parameters: int
    latency_s: float
    macs: float


@dataclass(frozen=True)
class Evaluator:
    """Networks of a space, trained on `train`, as they cost on an emulated platform.

    `size`: height and width at deployment; `data`: what tells the images from others, such as the
    manifest of the dataset.
    """

    space: Space
    platform: Estimator
    size: tuple[int, int]
    train: Split
    holdout: Split
    validation: Split
    training: TrainingSettings
    seed: int
    data: str = ""

    def cost(self, genes: Genes) -> Cost:
        """What the network of a genome (genes,) costs; it is not trained."""
        structure = self._structure(genes)
        widths = structure.full_widths[None]
        return Cost(
            energy_j=float(self.platform.energy(structure, widths)[0]),
            parameters=int(structure.parameters()),
            latency_s=self._latency(structure),
            macs=float(structure.macs().sum()),
        )

    def macs(self, genes: Genes) -> float:
        """MACs of one inference at the deployment size."""
        return float(self._structure(genes).macs().sum())

    @property
    def fingerprint(self) -> str:
        """Of all that decides what is found of a genome: what was found with another is void."""
        training, space = self.training.deciding, asdict(self.space)
        own = [space, repr(self.platform), self.size, training, self.seed, self.data]
        told = [*own, checkpoints.LIBRARY]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def row(self, genes: Genes) -> dict[str, Any]:
        """Trains the network of a genome: its accuracies (fractions) and its cost.

        A training that diverges counts as one that gets nothing right.
        """
        cost = asdict(self.cost(genes))  # before the training: what cannot be costed ends here
        network, device = self._network(genes), self.training.device
        try:
            train(
                network,
                self.train,
                TaskLoss(self.train.task),
                self.training,
                seed=self.seed,
                description="evolved network",
            )
            found = {
                "accuracy": evaluate(network, self.holdout, device=device),
                "validation_accuracy": evaluate(network, self.validation, device=device),
            }
        except DivergedError as error:
            logger.warning("%s: %s", self.space.decode(genes), error)
            found = {"accuracy": 0.0, "validation_accuracy": 0.0}
        return {**found, **cost}

    def _structure(self, genes: Genes) -> Structure:
        return trace(self._network(genes), self.size).structure

    def _network(self, genes: Genes) -> nn.Module:
        return build(self.space.decode(genes), self.train.classes, seed=self.seed)

    def _latency(self, structure: Structure) -> float:
        if not isinstance(self.platform, EmulatedDevice):
            return float("nan")
        return float(self.platform.latency(structure, structure.full_widths[None])[0])


def evaluator(
    dataset: Dataset,
    platform: Platform,
    settings: Mapping[str, Any],
    training: Mapping[str, Any],
    seed: int,
    data: str,
) -> Evaluator:
    """The evaluator of a study of the configuration on a loaded dataset, whose manifest is `data`.

    Raises UserError for a platform that cannot tell what any network costs.
    """
    if not estimates(platform):
        raise UserError(
            f"platform '{settings['platform']}' cannot tell the energy of a new network: "
            "use an emulated one"
        )
    return Evaluator(
        space=Space(**settings["space"]),
        platform=platform,
        size=tuple(settings["deployment_size"]),
        train=dataset.train,
        holdout=dataset.holdout,
        validation=dataset.validation,
        training=TrainingSettings(**training),
        seed=seed,
        data=data,
    )
