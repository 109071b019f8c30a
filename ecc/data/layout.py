"""What a dataset says of itself; folders of images in ImageNet's layout, divided into splits."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ecc.data.splits import Reading, pixels_to_input
from ecc.errors import UserError
from ecc.tasks import CLASSIFICATION, Task

if TYPE_CHECKING:  # it takes a second or two
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

Settings = dict[str, Any]
Sample = tuple[str, int]  # path of an image, index of its class


class Tree(Protocol):
    """Where a dataset's images are: `splits` lists the samples of each, in a fixed order."""

    @property
    def root(self) -> Path: ...

    @property
    def classes(self) -> list[str]: ...

    @property
    def splits(self) -> dict[str, Any]: ...

    def holding(self, splits: dict[str, Any]) -> "Tree":
        """The same with other samples. Raises UserError where a class has none."""

    def listed(self, split: str) -> Settings:
        """What the manifest holds of a split that is seen from the names of its files alone."""

    def counted(self, split: str) -> Settings:
        """What takes reading them: nothing, or the pixels of every class."""

    def files(self, split: str) -> Iterable[Path]:
        """All files of a split, in order."""

    def pixels(self, split: str, settings: Settings) -> tuple[Tensor, Tensor]:
        """All images, uint8 (images, 3, h, w), and their labels, to be kept in memory."""

    def reading(self, settings: Settings) -> Reading:
        """How one sample is read from its files."""


@dataclass(frozen=True)
class ByClass:
    """A tree of class folders; samples are in order of their classes, then of their names."""

    root: Path
    classes: list[str]
    splits: dict[str, list[Sample]]

    def holding(self, splits: dict[str, list[Sample]]) -> "ByClass":
        for name, samples in splits.items():
            there = {label for _, label in samples}
            if empty := [label for label in range(len(self.classes)) if label not in there]:
                raise UserError(
                    f"class {self.classes[empty[0]]} has no readable image in the {name} split of "
                    f"{self.root}: add some or delete its folder"
                )
        return replace(self, splits=splits)

    def listed(self, split: str) -> Settings:
        labels = [label for _, label in self.splits[split]]
        counts = np.bincount(labels, minlength=len(self.classes)).tolist()
        by_class = dict(zip(self.classes, counts, strict=True))
        return {"images": len(labels), "images_by_class": by_class}

    def counted(self, split: str) -> Settings:
        return {}

    def files(self, split: str) -> Iterable[Path]:
        return (Path(path) for path, _ in self.splits[split])

    def pixels(self, split: str, settings: Settings) -> tuple[Tensor, Tensor]:
        fit = fitted(settings["size"], settings["size"])
        samples = self.splits[split]
        labels = torch.tensor([label for _, label in samples])
        return torch.stack([fit(read_image(path)) for path, _ in samples]), labels

    def reading(self, settings: Settings) -> Reading:
        """The standard preprocessing of ImageNet: a random resized crop and mirroring in training;

        else the shorter side to 256/224 of the size (256 for 224), then the middle.
        """
        from torchvision.transforms import v2

        size = settings["size"]
        to_input = pixels_to_input(settings["normalisation"])
        mirror = [v2.RandomHorizontalFlip()] if settings["flip"] else []
        augment = [v2.RandomResizedCrop(size), *mirror, v2.PILToTensor(), to_input]
        offset = settings.get("label_offset", 0)
        return Reading(
            (size, size),
            partial(_read_sample, offset=offset),
            v2.Compose(augment),
            v2.Compose([fitted(round(size * 256 / 224), size), to_input]),
        )


def checksum(tree: Tree, split: str, content: bool) -> str:
    """sha256 over names and content of a split's files, or (huge data) over names and sizes."""
    digest = hashlib.sha256()
    for path in tree.files(split):
        digest.update(f"{path.relative_to(tree.root).as_posix()}\n".encode())
        digest.update(path.read_bytes() if content else f"{path.stat().st_size}\n".encode())
    return digest.hexdigest()


def _classification(manifest: Settings) -> Task:
    return CLASSIFICATION


@dataclass(frozen=True)
class Kind:
    """What one dataset's file says of it: a new dataset is one of these and a registry line.

    `defaults` lists every setting (None: none given); `find` locates the images of all splits;
    `write` makes them first, where the data is embedded; `task` follows from the manifest.
    `border` is the label of pixels that a shift brings in; `embedded`: made or carried along.
    """

    defaults: Settings
    source: str
    find: Callable[[Settings, Path], Tree]
    write: Callable[[Settings, Path], None] | None = None
    task: Callable[[Settings], Task] = _classification
    border: int = 0
    embedded: bool = False


def fitted(resized: int, size: int) -> "v2.Transform":
    """PIL image to uint8 (3, size, size): shorter side to `resized`, then the middle."""
    from torchvision.transforms import v2

    return v2.Compose([v2.Resize(resized), v2.CenterCrop(size), v2.PILToTensor()])


def _read_sample(sample: Sample, offset: int) -> tuple[Image.Image, int]:
    path, label = sample
    return read_image(path), label + offset


def read_image(path: str) -> Image.Image:
    """One image as RGB. Raises UserError where the file is not an image or is truncated."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as an image: replace or delete it") from error


def write_images(folder: Path, images: Iterable[NDArray[np.uint8]]) -> None:
    """Images (height, width[, 3]) as `folder`/0000.png, 0001.png, …"""
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:04}.png", compress_level=1)


def scan(folder: Path, advice: str) -> "ImageFolder":
    """The class folders of `folder`.

    Raises UserError where it is missing, has fewer than two classes, or one of them is empty.
    """
    from torchvision.datasets import ImageFolder

    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: {advice}")
    if sum(entry.is_dir() for entry in folder.iterdir()) < 2:
        raise UserError(f"{folder} has fewer than two class folders: {advice}")
    found = ImageFolder(str(folder), allow_empty=True)
    if empty := sorted(set(range(len(found.classes))) - set(found.targets)):
        raise UserError(
            f"class folder {folder / found.classes[empty[0]]} has no images: fill or delete it"
        )
    return found


def divide(
    samples: list[Sample], part: int | float, seed: int, what: str
) -> tuple[list[Sample], list[Sample]]:
    """Sets aside `part` of every class, by seeded choice over sorted names: (rest, set aside).

    `part` is a count for each class, or a fraction below 1 of each class. Raises UserError, naming
    the setting `what`, where a class would have no image on one side.
    """
    names: dict[int, list[Sample]] = {}
    for sample in sorted(samples, key=lambda sample: (sample[1], sample[0])):
        names.setdefault(sample[1], []).append(sample)
    rest: list[Sample] = []
    aside: list[Sample] = []
    for label, own in names.items():
        count = round(part * len(own)) if part < 1 else int(part)
        if not 0 < count < len(own):
            raise UserError(
                f"{what}: {part} takes {count} of the {len(own)} images in "
                f"{Path(own[0][0]).parent}: both sides need at least one"
            )
        chosen = set(np.random.default_rng([seed, label]).permutation(len(own))[:count].tolist())
        for index, sample in enumerate(own):
            (aside if index in chosen else rest).append(sample)
    return rest, aside


def choose_classes(found: "ImageFolder", classes: int | None) -> tuple[list[str], list[Sample]]:
    """The first `classes` classes by name (None: all) and their images."""
    if classes is not None and len(found.classes) < classes:
        raise UserError(
            f"classes: {classes} are wanted, but {found.root} has {len(found.classes)}: "
            "lower `classes` or add class folders"
        )
    names = found.classes[:classes]
    return names, [sample for sample in found.samples if sample[1] < len(names)]


def train_and_val(root: Path, settings: Settings, advice: str) -> ByClass:
    """Splits of a folder with `train/<class>/` and `val/<class>/`; hold-out is a part of train/."""
    train, val = scan(root / "train", advice), scan(root / "val", advice)
    if differing := sorted(set(train.classes) ^ set(val.classes)):
        raise UserError(
            f"class folder {differing[0]} is in only one of {root}/train and {root}/val: "
            "both need the same class folders"
        )
    classes, samples = choose_classes(train, settings["classes"])
    rest, holdout = divide(samples, settings["holdout"], settings["seed"], "holdout")
    validation = choose_classes(val, settings["classes"])[1]
    return ByClass(root, classes, {"train": rest, "holdout": holdout, "validation": validation})
