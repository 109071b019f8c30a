"""The same network and images with fewer target classes (EAP, CVPR 2017, section 5.3)."""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ecc.errors import UserError
from ecc.training import Split


class FewerClasses:
    """The images of a split that belong to its first `classes` classes.

    Raises UserError where the split has not as many.
    """

    def __init__(self, split: Split, classes: int):
        if not 1 < classes <= split.classes:
            raise UserError(f"{classes} target classes: give 2 to {split.classes}")
        self.split, self.classes, self.task = split, classes, split.task
        self.fingerprint = f"{getattr(split, 'fingerprint', '')} {classes}"
        self.count = sum(len(labels) for _, labels in self.ordered(256))

    def __len__(self) -> int:
        return self.count

    def batches(
        self, batch_size: int, seed: int, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of what the split's batches hold of these classes, put together anew."""
        source = self._chosen(self.split.batches(batch_size, seed))
        images, labels = next(source)
        for number in itertools.count():
            while len(labels) < batch_size:
                more = next(source)
                images, labels = torch.cat([images, more[0]]), torch.cat([labels, more[1]])
            if number >= start:
                yield images[:batch_size], labels[:batch_size]
            images, labels = images[batch_size:], labels[batch_size:]

    def ordered(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield from self._chosen(self.split.ordered(batch_size))

    def _chosen(self, batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in batches:
            chosen = labels < self.classes
            if chosen.any():
                yield images[chosen], labels[chosen]


def load_fewer(small: nn.Module, full: nn.Module) -> nn.Module:
    """Fills `small`, the same network with fewer classes, from `full`: its first outputs.

    Raises UserError where anything but a first dimension differs.
    """
    given = full.state_dict()
    filled = {}
    for name, tensor in small.state_dict().items():
        rows = given[name][: len(tensor)] if tensor.dim() else given[name]
        if rows.shape != tensor.shape:
            raise UserError(f"{name} is of {tuple(given[name].shape)}, not {tuple(tensor.shape)}")
        filled[name] = rows
    small.load_state_dict(filled)
    return small
