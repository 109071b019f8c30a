"""What tests share: the order of the tests, one thread, and a problem small enough to compress."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ecc.channels import trace
from ecc.energy import BilinearGraph
from ecc.methods import Problem
from ecc.tasks import CLASSIFICATION, Task
from ecc.training import TrainingSettings

torch.set_num_threads(1)

CLASSES = 4
SIZE = (8, 8)


def pytest_collection_modifyitems(items):
    """Tests that run the workflow come last: what they find, a smaller test may find sooner."""
    items.sort(key=lambda item: "workflow" in item.keywords)


@pytest.fixture
def files_open(tmp_path):
    """A function that counts the open files below `tmp_path`."""

    def count() -> int:
        found = 0
        for number in os.listdir("/proc/self/fd"):
            with suppress(FileNotFoundError):  # closed meanwhile, as that of the list itself
                found += os.readlink(f"/proc/self/fd/{number}").startswith(str(tmp_path))
        return found

    return count


@dataclass
class MemorySplit:
    """Noisy images of a few patterns; counts what is asked of it. Dies at batch `fatal`."""

    count: int = 96
    seed: int = 0
    fatal: int | None = None
    classes: int = CLASSES
    task: Task = CLASSIFICATION
    asked: Counter = field(default_factory=Counter)

    def __post_init__(self) -> None:
        patterns = torch.randn(self.classes, 3, *SIZE, generator=_generator(12345))
        self.labels = torch.arange(self.count) % self.classes
        noise = torch.randn(self.count, 3, *SIZE, generator=_generator(self.seed))
        self.images = patterns[self.labels] + noise

    def __len__(self) -> int:
        return self.count

    def batches(
        self, batch_size: int, seed: int, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            if start == self.fatal:
                raise KeyboardInterrupt
            self.asked["batches"] += 1
            chosen = torch.randint(
                self.count, (batch_size,), generator=_generator(seed * 100_003 + start)
            )
            yield self.images[chosen], self.labels[chosen]
            start += 1

    def ordered(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        self.asked["ordered"] += 1
        yield from zip(self.images.split(batch_size), self.labels.split(batch_size), strict=True)


class TinyNetwork(nn.Module):
    """Convolutions, a depthwise one, dropout, a fully connected layer: groups of 8, 12, 10."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 12, 1),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 10, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(10 * 4, CLASSES),
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits


@pytest.fixture
def memory_split():
    return MemorySplit


@pytest.fixture
def tiny_network():
    """A function that makes the tiny network; the same weights for the same seed."""

    def make(seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        return TinyNetwork()

    return make


@pytest.fixture
def training_settings():
    """A function that makes settings of a short training; keywords replace the defaults."""

    def make(**changes) -> TrainingSettings:
        defaults = {"iterations": 12, "batch_size": 8, "learning_rate": 5e-3, "device": "cpu"}
        return TrainingSettings(**{**defaults, **changes})

    return make


@pytest.fixture
def tiny_problem(tiny_network, training_settings):
    """A function that makes a problem; its budget is `fraction` of what the dense network costs."""

    def make(fraction: float = 0.5, *, iterations: int = 60, **changes) -> Problem:
        dense = tiny_network()
        channels = trace(dense, SIZE)
        energy = BilinearGraph(channels.structure, np.array([0.1, 1.0, 2.0, 3.0, 0.5]) * 1e-3)
        given = {
            "dense": dense,
            "channels": channels,
            "energy": energy,
            "budget_j": fraction * float(energy.energy(channels.structure.full_widths)),
            "train": MemorySplit(),
            "holdout": MemorySplit(count=32, seed=1),
            "training": training_settings(iterations=iterations),
        }
        return Problem(**{**given, **changes})

    return make


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
