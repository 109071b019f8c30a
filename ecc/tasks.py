"""What the labels of images mean: how logits are to be fitted to them, and how well they do.

A dataset names its task; training, methods and evaluation ask the task and know no other.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

Predictions = Iterable[tuple[Tensor, Tensor]]  # classes found, and the labels, batch by batch


class Task(Protocol):
    """`score` is a fraction, higher is better; `name` is its printed name."""

    @property
    def name(self) -> str: ...

    def loss(self, logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        """The task's own loss: a scalar; `reduction` as torch's ("mean", "sum")."""

    def score(self, predictions: Predictions) -> float: ...


@dataclass(frozen=True)
class Classification:
    """A class for every image: logits (batch, classes), labels int64 (batch,)."""

    name: str = "accuracy"

    def loss(self, logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        return functional.cross_entropy(logits, labels, reduction=reduction)

    def score(self, predictions: Predictions) -> float:
        """Top-1 accuracy."""
        correct = total = 0
        for found, labels in predictions:
            correct += int((found == labels).sum())
            total += len(labels)
        return correct / total


@dataclass(frozen=True)
class Segmentation:
    """A class for every pixel: logits (batch, classes, h, w), labels int64 (batch, h, w).

    `weights` (classes - 1,) are of the classes but the last, which is void: its pixels count
    neither in the loss nor in the score. Logits may have the void class or not.
    """

    weights: tuple[float, ...]
    name: str = "mean IoU"

    @property
    def void(self) -> int:
        return len(self.weights)

    def loss(self, logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        """Weighted cross-entropy, as ERFNet's authors train (Romera et al., 2018, Section IV)."""
        # Of float32 at least: under autocast logits come in bfloat16, and the loss in float32.
        precise = torch.promote_types(logits.dtype, torch.float32)
        weights = self._padded.to(logits.device, precise)
        total = functional.cross_entropy(
            logits,
            labels,
            weight=weights[: logits.shape[1]],
            ignore_index=self.void,
            reduction="sum",
        )
        if reduction == "sum":
            return total
        # Scenes that are nothing but void teach nothing; torch's own mean would be 0 / 0.
        return total / weights[labels].sum().clamp(min=torch.finfo(precise).tiny)

    def score(self, predictions: Predictions) -> float:
        """Mean over classes of intersection over union, classes that nowhere occur left out.

        Cityscapes' measure: counted over all pixels of all images. A pixel that is found void
        counts as missed.
        """
        # Imported here, because it takes a second and classification does without.
        from torchmetrics.classification import MulticlassJaccardIndex

        metric = MulticlassJaccardIndex(self.void + 1, ignore_index=self.void, validate_args=False)
        for found, labels in predictions:
            metric.update(found, labels)
        return float(metric.compute())

    @cached_property
    def _padded(self) -> Tensor:
        return torch.tensor([*self.weights, 0.0])


CLASSIFICATION = Classification()


def class_weights(pixels: Sequence[int], void: int) -> tuple[float, ...]:
    """Weights 1 / ln(1.1 + p), p a class's share of all pixels, those of `void` among them.

    ENet's formula (Paszke et al., 2016, Section 5.2) with the constant of ERFNet's published
    weights. `pixels` are counts by class without void.
    """
    total = sum(pixels) + void
    return tuple(1 / math.log(1.1 + count / total) for count in pixels)
