"""Batches of images: from memory where a dataset is small, from files where it is not."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset as TorchDataset
from torchvision.transforms import v2

from ecc.data.layout import Sample, read_image
from ecc.errors import UserError

Batch = tuple[Tensor, Tensor]
Key = tuple[int, int | None]  # index of an image, seed of its augmentation (None: none)

# Mean and standard deviation of the channels, for pixels in [0, 1].
NORMALISATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "symmetric": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # to [-1, 1], as MobileNet's authors
}


class Split(Protocol):
    """Images of one split: float (batch, 3, height, width), with labels int64 (batch,)."""

    classes: int

    def __len__(self) -> int: ...

    def batches(self, batch_size: int, seed: int, start: int = 0) -> Iterator[Batch]:
        """Endless training batches from number `start` on, shuffled anew each epoch, augmented.

        Batch i depends on (seed, i) alone, so a resumed training sees what it would have seen.
        """
        ...

    def ordered(self, batch_size: int) -> Iterator[Batch]:
        """Every image once, in fixed order, not augmented; the last batch may be smaller."""
        ...


@dataclass(frozen=True)
class Dataset:
    """No method may see `validation`: it takes `train` and `holdout`."""

    name: str
    classes: int
    train: Split
    holdout: Split
    validation: Split


def pixels_to_input(normalisation: str) -> v2.Transform:
    """uint8 pixels to normalised float channels."""
    mean, deviation = NORMALISATIONS[normalisation]
    return v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, deviation)])


def fitted(resized: int, size: int) -> v2.Transform:
    """PIL image to uint8 (3, size, size): shorter side to `resized`, then the middle."""
    return v2.Compose([v2.Resize(resized), v2.CenterCrop(size), v2.PILToTensor()])


def _shuffled(
    count: int, batch_size: int, seed: int, start: int
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Numbers of batches and indices (batch_size,) of their images; epochs join without a gap."""

    @lru_cache(maxsize=2)
    def epoch(number: int) -> NDArray[np.int64]:
        return np.random.default_rng([0, seed, number]).permutation(count)

    for number in itertools.count(start):
        places = range(number * batch_size, (number + 1) * batch_size)
        yield number, np.array([epoch(place // count)[place % count] for place in places])


class InMemory:
    """A split held as one tensor of pixels, uint8 (images, 3, size, size).

    Augmentation: a shift by up to `shift` pixels and, with `flip`, mirroring. It is indexed for the
    whole batch, because transforms.v2 draws once for a batch, not for each image.
    """

    def __init__(
        self,
        pixels: Tensor,
        labels: Tensor,
        classes: int,
        normalisation: str,
        shift: int,
        flip: bool,
    ) -> None:
        self.pixels, self.labels, self.classes = pixels, labels, classes
        self.shift, self.flip = shift, flip
        self.to_input = pixels_to_input(normalisation)

    def __len__(self) -> int:
        return len(self.pixels)

    def batches(self, batch_size: int, seed: int, start: int = 0) -> Iterator[Batch]:
        size, margin = self.pixels.shape[-1], self.shift
        every = torch.arange(batch_size)
        for number, indices in _shuffled(len(self), batch_size, seed, start):
            draw = np.random.default_rng([1, seed, number])
            images = self.pixels[indices]
            if margin:
                rows, columns = torch.from_numpy(draw.integers(0, 2 * margin + 1, (2, batch_size)))
                padded = v2.functional.pad(images, [margin])
                windows = padded.unfold(2, size, 1).unfold(3, size, 1)
                images = windows[every, :, rows, columns]
            if self.flip:
                mirrored = torch.from_numpy(draw.random(batch_size) < 0.5)
                images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
            yield self.to_input(images), self.labels[indices]

    def ordered(self, batch_size: int) -> Iterator[Batch]:
        for first in range(0, len(self), batch_size):
            part = slice(first, first + batch_size)
            yield self.to_input(self.pixels[part]), self.labels[part]


class OnDisk:
    """A split read from its files as it is needed, by `workers` processes.

    The standard preprocessing of ImageNet: a random resized crop and mirroring in training; else
    the shorter side to 256/224 of `size` (256 for 224), then the middle.
    """

    def __init__(
        self,
        samples: list[Sample],
        classes: int,
        size: int,
        normalisation: str,
        flip: bool,
        workers: int,
    ) -> None:
        self.samples, self.classes, self.workers = samples, classes, workers
        tail = [v2.PILToTensor(), pixels_to_input(normalisation)]
        mirror = [v2.RandomHorizontalFlip()] if flip else []
        self.augment = v2.Compose([v2.RandomResizedCrop(size), *mirror, *tail])
        self.prepare = v2.Compose([fitted(round(size * 256 / 224), size), tail[-1]])

    def __len__(self) -> int:
        return len(self.samples)

    def batches(self, batch_size: int, seed: int, start: int = 0) -> Iterator[Batch]:
        return self._read(_Order(len(self), batch_size, seed, start), self.augment)

    def ordered(self, batch_size: int) -> Iterator[Batch]:
        order: list[list[Key]] = [
            [(index, None) for index in range(first, min(first + batch_size, len(self)))]
            for first in range(0, len(self), batch_size)
        ]
        return self._read(order, self.prepare)

    def _read(self, order: Iterable[list[Key]], transform: v2.Transform) -> Iterator[Batch]:
        """Batches of the files in `order`. A worker's UserError loses its traceback again."""
        files = _Files(self.samples, transform)
        own_draws = torch.Generator()  # so that the loader leaves the training's draws alone
        try:
            yield from DataLoader(
                files, batch_sampler=order, num_workers=self.workers, generator=own_draws
            )
        except UserError as error:
            message = str(error).strip().splitlines()[-1].split("UserError: ")[-1]
            raise UserError(message) from error.with_traceback(None)  # it would hold the workers


class _Order:
    """Keys of endless batches, so that what a worker draws does not depend on the worker."""

    def __init__(self, count: int, batch_size: int, seed: int, start: int) -> None:
        self.arguments = count, batch_size, seed, start

    def __iter__(self) -> Iterator[list[Key]]:
        seed = self.arguments[2]
        for number, indices in _shuffled(*self.arguments):
            seeds = np.random.SeedSequence([1, seed, number]).generate_state(len(indices))
            yield list(zip(indices.tolist(), seeds.tolist(), strict=True))


class _Files(TorchDataset[tuple[Tensor, int]]):
    def __init__(self, samples: list[Sample], transform: v2.Transform) -> None:
        self.samples, self.transform = samples, transform

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        index, seed = key
        path, label = self.samples[index]
        image = read_image(path)
        with torch.random.fork_rng(devices=[]):  # the training's own draws stay as they are
            if seed is not None:
                torch.default_generator.manual_seed(seed)
            return self.transform(image), label
