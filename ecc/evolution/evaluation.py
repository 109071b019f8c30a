"""What an architecture costs, and how accurate it gets by a short training."""

import hashlib
import json
import logging
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from ecc.channels import trace
from ecc.data import Dataset
from ecc.errors import UserError
from ecc.evolution.genome import Genes, Space
from ecc.evolution.network import build
from ecc.platforms.emulated import EmulatedDevice
from ecc.platforms.eyeriss import Eyeriss
from ecc.platforms.interface import Platform
from ecc.structure import Structure
from ecc.training import Split, TrainingSettings, cross_entropy, evaluate, train

logger = logging.getLogger(__name__)
TIMED = 5  # inferences whose median is a measured latency


@dataclass(frozen=True)
class Cost:
    """Of one inference at the deployment size; joules, parameters, seconds and MACs."""

    energy_j: float
    parameters: int
    latency_s: float
    macs: float


@dataclass(frozen=True)
class Evaluator:
    """Networks of a space, trained on `train`, as they cost on an emulated platform.

    `size`: height and width at deployment.
    """

    space: Space
    platform: EmulatedDevice | Eyeriss
    size: tuple[int, int]
    train: Split
    holdout: Split
    validation: Split
    training: TrainingSettings
    seed: int

    def cost(self, genes: Genes) -> Cost:
        """What the network of a genome (genes,) costs; it is not trained."""
        network = self._network(genes)
        structure = self._structure(genes)
        widths = structure.full_widths[None]
        return Cost(
            energy_j=float(self.platform.energy(structure, widths)[0]),
            parameters=int(structure.parameters()),
            latency_s=self._latency(structure, network),
            macs=float(structure.macs().sum()),
        )

    def macs(self, genes: Genes) -> float:
        """MACs of one inference at the deployment size."""
        return float(self._structure(genes).macs().sum())

    @property
    def fingerprint(self) -> str:
        """Of all that decides what is found of a genome: what was found with another is void."""
        told = [
            asdict(self.space),
            repr(self.platform),
            self.size,
            asdict(self.training),
            self.seed,
        ]
        images = [
            hashlib.sha256(next(iter(split.ordered(16)))[0].numpy().tobytes()).hexdigest()
            for split in (self.train, self.holdout, self.validation)
        ]
        counts = [len(split) for split in (self.train, self.holdout, self.validation)]
        whole = json.dumps([*told, images, counts], default=str)
        return hashlib.sha256(whole.encode()).hexdigest()

    def row(self, genes: Genes) -> dict[str, Any]:
        """Trains the network of a genome: its accuracies (fractions) and its cost.

        A training that diverges counts as one that gets nothing right.
        """
        network, device = self._network(genes), self.training.device
        try:
            train(
                network,
                self.train,
                cross_entropy,
                self.training,
                seed=self.seed,
                description="evolved network",
            )
            found = {
                "accuracy": evaluate(network, self.holdout, device=device),
                "validation_accuracy": evaluate(network, self.validation, device=device),
            }
        except UserError as error:
            logger.warning("%s: %s", self.space.decode(genes), error)
            found = {"accuracy": 0.0, "validation_accuracy": 0.0}
        return {**found, **asdict(self.cost(genes))}

    def _structure(self, genes: Genes) -> Structure:
        return trace(self._network(genes), self.size).structure

    def _network(self, genes: Genes) -> nn.Module:
        return build(self.space.decode(genes), self.train.classes, seed=self.seed)

    def _latency(self, structure: Structure, network: nn.Module) -> float:
        """Seconds of one inference: of an emulated device where it has them, else measured here."""
        if isinstance(self.platform, EmulatedDevice):
            return float(self.platform.latency(structure, structure.full_widths[None])[0])
        return measured_latency(network, self.size)


@torch.no_grad()
def measured_latency(network: nn.Module, size: tuple[int, int]) -> float:
    """Seconds of one inference on this machine's processor: the median of a few, after one more."""
    network.cpu().eval()
    image, seconds = torch.zeros(1, 3, *size), []
    for _ in range(TIMED + 1):
        started = time.perf_counter()
        network(image)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def evaluator(
    dataset: Dataset,
    platform: Platform,
    settings: Mapping[str, Any],
    training: Mapping[str, Any],
    seed: int,
) -> Evaluator:
    """The evaluator of a study of the configuration on a loaded dataset.

    Raises UserError for a platform that cannot tell what any network costs.
    """
    if not isinstance(platform, EmulatedDevice | Eyeriss):
        raise UserError(
            f"platform '{settings['platform']}' knows no new network: use an emulated one"
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
    )
