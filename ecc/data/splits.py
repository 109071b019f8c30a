"""Batches of images: from memory where a dataset is small, from files where it is not."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset as TorchDataset

from ecc.errors import UserError
from ecc.memory import at_once
from ecc.tasks import CLASSIFICATION, Task

# torchvision takes a second or two to import: where images are in memory nothing needs it.
if TYPE_CHECKING:
    from torchvision.transforms import v2

Batch = tuple[Tensor, Tensor]
Key = tuple[int, int | None]  # index of an image, seed of its augmentation (None: none)

# Mean and standard deviation of the channels, for pixels in [0, 1].
NORMALISATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "symmetric": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # to [-1, 1], as MobileNet's authors
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),  # to [0, 1], as ERFNet's authors
}


class Split(Protocol):
    """Images of one split: float (batch, 3, height, width), with labels as their task has them."""

    classes: int
    task: Task

    def __len__(self) -> int: ...

    def batches(self, batch_size: int, seed: int, start: int = 0) -> Iterator[Batch]:
        """Endless training batches from number `start` on, shuffled anew each epoch, augmented.

        Batch i depends on (seed, i) alone, so a resumed training sees what it would have seen.
        """
        ...

    def ordered(self, batch_size: int) -> Iterator[Batch]:
        """Every image once, in fixed order, not augmented, at most `batch_size` at once.

        Large images come fewer at once: see `ecc.memory`.
        """
        ...


@dataclass(frozen=True)
class Dataset:
    """No method may see `validation`: it takes `train` and `holdout`."""

    name: str
    classes: int
    train: Split
    holdout: Split
    validation: Split


def normalised(pixels: Tensor, normalisation: str) -> Tensor:
    """uint8 pixels (..., 3, h, w) to float channels: to the bit as `pixels_to_input` has them."""
    mean, deviation = (torch.tensor(part).view(3, 1, 1) for part in NORMALISATIONS[normalisation])
    return pixels.float().mul_(1 / 255).sub_(mean).div_(deviation)


def pixels_to_input(normalisation: str) -> "v2.Transform":
    """The same as a transform of images, which leaves masks alone."""
    from torchvision.transforms import v2

    mean, deviation = NORMALISATIONS[normalisation]
    return v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, deviation)])


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
    """A split held as one tensor of pixels, uint8 (images, 3, height, width).

    `labels` are of images (images,), or of pixels (images, height, width), uint8.
    Augmentation: a shift by up to `shift` pixels and, with `flip`, mirroring. It is indexed for the
    whole batch, because transforms.v2 draws once for a batch, not for each image. Labels of pixels
    move with the image; `border` is what comes in at the edges.
    """

    def __init__(
        self,
        pixels: Tensor,
        labels: Tensor,
        classes: int,
        normalisation: str,
        shift: int,
        flip: bool,
        *,
        task: Task = CLASSIFICATION,
        border: int = 0,
        fingerprint: str = "",
    ) -> None:
        self.fingerprint = fingerprint
        self.pixels, self.labels, self.classes = pixels, labels, classes
        self.shift, self.flip, self.task, self.border = shift, flip, task, border
        self.normalisation = normalisation

    def __len__(self) -> int:
        return len(self.pixels)

    def batches(self, batch_size: int, seed: int, start: int = 0) -> Iterator[Batch]:
        dense = self.labels.dim() > 1
        for number, indices in _shuffled(len(self), batch_size, seed, start):
            draw = np.random.default_rng([1, seed, number])
            images, labels = self.pixels[indices], self.labels[indices]
            if self.shift:
                places = draw.integers(0, 2 * self.shift + 1, (2, batch_size))
                images = _shifted(images, places, self.shift, 0)
                if dense:
                    labels = _shifted(labels[:, None], places, self.shift, self.border)[:, 0]
            if self.flip:
                mirrored = torch.from_numpy(draw.random(batch_size) < 0.5)
                images = _mirrored(images, mirrored)
                labels = _mirrored(labels, mirrored) if dense else labels
            yield normalised(images, self.normalisation), labels.long()

    def ordered(self, batch_size: int) -> Iterator[Batch]:
        count = min(batch_size, at_once(self.pixels.shape[-2:]))
        for first in range(0, len(self), count):
            part = slice(first, first + count)
            pixels, labels = self.pixels[part], self.labels[part]
            yield normalised(pixels, self.normalisation), labels.long()


def _shifted(images: Tensor, places: NDArray[np.int64], margin: int, border: int) -> Tensor:
    """Images (batch, c, h, w) moved to `places` (2, batch) of a margin filled with `border`."""
    height, width = images.shape[-2:]
    rows, columns = torch.from_numpy(places)
    padded = functional.pad(images, [margin] * 4, value=border)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    moved: Tensor = windows[torch.arange(len(images)), :, rows, columns]
    return moved


def _mirrored(images: Tensor, chosen: Tensor) -> Tensor:
    """Images (batch, ..., w), those `chosen` (batch,) with left and right exchanged."""
    shape = (-1, *[1] * (images.dim() - 1))
    return torch.where(chosen.view(shape), images.flip(-1), images)


@dataclass(frozen=True)
class Reading:
    """How samples become tensors: `read` gives an image and its label, transforms take both.

    `size` (height, width) is that of the images that come out.
    """

    size: Sequence[int]
    read: Callable[[Any], tuple[Any, Any]]
    augment: Callable[[Any, Any], tuple[Tensor, Any]]
    prepare: Callable[[Any, Any], tuple[Tensor, Any]]


class OnDisk:
    """A split read from its files as it is needed, by `workers` processes.

    `samples` are what the `reading` reads, one for each image.
    """

    def __init__(
        self,
        samples: Sequence[Any],
        classes: int,
        reading: Reading,
        workers: int,
        *,
        task: Task = CLASSIFICATION,
        fingerprint: str = "",
    ) -> None:
        self.fingerprint = fingerprint
        self.samples, self.classes, self.workers = samples, classes, workers
        self.reading, self.task = reading, task

    def __len__(self) -> int:
        return len(self.samples)

    def batches(self, batch_size: int, seed: int, start: int = 0) -> Iterator[Batch]:
        return self._read(_Order(len(self), batch_size, seed, start), self.reading.augment)

    def ordered(self, batch_size: int) -> Iterator[Batch]:
        count = min(batch_size, at_once(self.reading.size))
        order: list[list[Key]] = [
            [(index, None) for index in range(first, min(first + count, len(self)))]
            for first in range(0, len(self), count)
        ]
        return self._read(order, self.reading.prepare)

    def _read(
        self, order: Iterable[list[Key]], transform: Callable[[Any, Any], tuple[Tensor, Any]]
    ) -> Iterator[Batch]:
        """Batches of the files in `order`. A worker's UserError loses its traceback again."""
        files = _Files(self.samples, self.reading.read, transform)
        own_draws = torch.Generator()  # so that the loader leaves the training's draws alone
        try:
            yield from DataLoader(
                files,
                batch_sampler=order,
                num_workers=self.workers,
                generator=own_draws,
                pin_memory=torch.cuda.is_available(),  # so that copies run beside the training
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


class _Files(TorchDataset[tuple[Tensor, Tensor]]):
    def __init__(
        self,
        samples: Sequence[Any],
        read: Callable[[Any], tuple[Any, Any]],
        transform: Callable[[Any, Any], tuple[Tensor, Any]],
    ) -> None:
        self.samples, self.read, self.transform = samples, read, transform

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor]:
        index, seed = key
        image, label = self.read(self.samples[index])
        with torch.random.fork_rng(devices=[]):  # the training's own draws stay as they are
            if seed is not None:
                torch.default_generator.manual_seed(seed)
            image, label = self.transform(image, label)
        # A plain tensor: a mask would keep its type, and slow every operation on it.
        return image, torch.as_tensor(label, dtype=torch.int64).as_subclass(torch.Tensor)
