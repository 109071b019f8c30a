"""Folders of images in ImageNet's layout: found, divided into splits, described by a manifest."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torchvision.datasets import ImageFolder

from ecc.errors import UserError

Settings = dict[str, Any]
Sample = tuple[str, int]  # path of an image, index of its class


@dataclass(frozen=True)
class Tree:
    """Where a dataset's images are: `splits` lists them by class, then by name."""

    root: Path
    classes: list[str]
    splits: dict[str, list[Sample]]

    def counts(self, split: str) -> list[int]:
        """Images of every class, (classes,)."""
        labels = [label for _, label in self.splits[split]]
        return [int(n) for n in np.bincount(labels, minlength=len(self.classes))]

    def checksum(self, split: str, content: bool) -> str:
        """sha256 over names and content of the files, or (huge data) over names and sizes."""
        digest = hashlib.sha256()
        for path in (Path(path) for path, _ in self.splits[split]):
            digest.update(f"{path.relative_to(self.root).as_posix()}\n".encode())
            digest.update(path.read_bytes() if content else f"{path.stat().st_size}\n".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Kind:
    """What one dataset's file says of it: a new dataset is one of these and a registry line.

    `defaults` lists every setting (None: none given); `find` locates the images of all splits;
    `write` makes them first, where the data is embedded.
    """

    defaults: Settings
    source: str
    find: Callable[[Settings, Path], Tree]
    write: Callable[[Settings, Path], None] | None = None


def read_image(path: str) -> Image.Image:
    """One image as RGB. Raises UserError where the file is not an image or is truncated."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} cannot be read as an image: replace or delete it") from error


def write_images(folder: Path, images: Iterable[NDArray[np.uint8]]) -> None:
    """Images (height, width[, 3]) as `folder`/0000.png, 0001.png, …"""
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:04}.png", compress_level=1)


def scan(folder: Path, advice: str) -> ImageFolder:
    """The class folders of `folder`.

    Raises UserError where it is missing, has fewer than two classes, or one of them is empty.
    """
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


def choose_classes(found: ImageFolder, classes: int | None) -> tuple[list[str], list[Sample]]:
    """The first `classes` classes by name (None: all) and their images."""
    if classes is not None and len(found.classes) < classes:
        raise UserError(
            f"classes: {classes} are wanted, but {found.root} has {len(found.classes)}: "
            "lower `classes` or add class folders"
        )
    names = found.classes[:classes]
    return names, [sample for sample in found.samples if sample[1] < len(names)]


def train_and_val(root: Path, settings: Settings, advice: str) -> Tree:
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
    return Tree(root, classes, {"train": rest, "holdout": holdout, "validation": validation})
