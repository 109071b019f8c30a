"""Street scenes in Cityscapes' folder layout: images, and masks with a label for every pixel.

Cityscapes (Cordts et al., CVPR 2016) labels 34 kinds of things, of which 19 classes are trained on;
all else is void and counts neither in the loss nor in the score.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ecc.data.layout import Settings, read_image
from ecc.data.splits import Reading, pixels_to_input
from ecc.errors import UserError
from ecc.tasks import Segmentation, Task, class_weights

if TYPE_CHECKING:  # it takes a second or two
    from torchvision import tv_tensors
    from torchvision.transforms import v2

Scene = tuple[str, str]  # paths of an image and of its mask
# Those trained on, in that order, and their ids in masks, by the authors (cityscapesScripts,
# labels.py); all other ids, to the largest, are void.
IDS_OF = {"road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17}
IDS_OF |= {"traffic light": 19, "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23}
IDS_OF |= {"person": 24, "rider": 25, "car": 26, "truck": 27, "bus": 28, "train": 31}
IDS_OF |= {"motorcycle": 32, "bicycle": 33}
CLASSES, IDS = list(IDS_OF), list(IDS_OF.values())
VOID = len(CLASSES)
LARGEST_ID = 33
UNKNOWN = 255
IMAGE, MASK = "_leftImg8bit.png", "_gtFine_labelIds.png"


def _table() -> NDArray[np.uint8]:
    """Label of every value that a pixel of a mask may have, (256,)."""
    table = np.full(256, UNKNOWN, np.uint8)
    table[: LARGEST_ID + 1] = VOID
    table[IDS] = np.arange(VOID)
    return table


TABLE = _table()


@dataclass(frozen=True)
class Scenes:
    """Pairs of image and mask; `classes` are those trained on, and void."""

    root: Path
    splits: dict[str, list[Scene]]
    classes: list[str]

    def holding(self, splits: dict[str, list[Scene]]) -> "Scenes":
        return replace(self, splits=splits)

    def listed(self, split: str) -> Settings:
        return {"images": len(self.splits[split])}

    def counted(self, split: str) -> Settings:
        """Pixels of every class. Raises UserError where training images have none of a class."""
        counts = np.zeros(len(self.classes), np.int64)
        for _, mask in map(read_scene, self.splits[split]):
            counts += np.bincount(mask.flatten(), minlength=len(counts))
        if split == "train" and not counts[:VOID].all():
            absent = self.classes[int(np.flatnonzero(counts[:VOID] == 0)[0])]
            raise UserError(
                f"no training image in {self.root} has a pixel of class '{absent}', which then "
                "cannot be learned: add images that have"
            )
        return {"pixels_by_class": dict(zip(self.classes, counts.tolist(), strict=True))}

    def files(self, split: str) -> Iterable[Path]:
        return (Path(path) for scene in self.splits[split] for path in scene)

    def pixels(self, split: str, settings: Settings) -> tuple[Tensor, Tensor]:
        from torchvision.transforms import v2

        resized = v2.Compose([_resize(settings), v2.PILToTensor()])
        found = [resized(image, mask) for image, mask in map(_opened, self.splits[split])]
        images, masks = (torch.stack(part) for part in zip(*found, strict=True))
        return images, masks.as_subclass(torch.Tensor)

    def reading(self, settings: Settings) -> Reading:
        """As ERFNet's authors: resized, shifted by up to `shift` pixels, and mirrored."""
        from torchvision import tv_tensors
        from torchvision.transforms import v2

        tail = [v2.PILToTensor(), pixels_to_input(settings["normalisation"])]
        augment: list[v2.Transform] = [_resize(settings)]
        if settings["shift"]:
            border: dict[Any, int] = {tv_tensors.Mask: VOID, "others": 0}
            size, margin = settings["size"], settings["shift"]
            augment.append(v2.RandomCrop(size, padding=margin, fill=border))
        if settings["flip"]:
            augment.append(v2.RandomHorizontalFlip())
        prepare = v2.Compose([_resize(settings), *tail])
        return Reading(settings["size"], _opened, v2.Compose([*augment, *tail]), prepare)


def task(manifest: Settings) -> Task:
    """Segmentation, its classes weighted by their share of the training pixels."""
    pixels = manifest["splits"]["train"]["pixels_by_class"]
    return Segmentation(class_weights([pixels[name] for name in CLASSES], pixels["void"]))


def scenes(root: Path, settings: Settings, advice: str) -> Scenes:
    """The splits of a folder in Cityscapes' layout; hold-out is a part of the training images.

    Raises UserError where folders or masks are missing, or a split would be empty.
    """
    train, validation = (_pairs(root, part, advice) for part in ("train", "val"))
    count = round(settings["holdout"] * len(train))
    if not 0 < count < len(train):
        raise UserError(
            f"holdout: {settings['holdout']} takes {count} of the {len(train)} images in "
            f"{root}/leftImg8bit/train: both sides need at least one"
        )
    drawn = np.random.default_rng(settings["seed"]).permutation(len(train))[:count]
    aside = set(drawn.tolist())
    splits = {
        "train": [scene for index, scene in enumerate(train) if index not in aside],
        "holdout": [scene for index, scene in enumerate(train) if index in aside],
        "validation": validation,
    }
    return Scenes(root, splits, [*CLASSES, "void"])


def read_scene(scene: Scene) -> tuple[Image.Image, NDArray[np.uint8]]:
    """An image and its mask (height, width) of labels, void among them.

    Raises UserError where one is missing or cannot be read, their sizes differ, or a label is
    unknown.
    """
    image = read_image(scene[0])
    if not Path(scene[1]).is_file():
        raise UserError(f"{scene[0]} has no mask {scene[1]}: add it or delete the image")
    try:
        with Image.open(scene[1]) as opened:
            ids = np.asarray(opened)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{scene[1]} cannot be read as a mask: replace or delete it") from error
    if ids.ndim != 2 or ids.dtype != np.uint8:
        raise UserError(f"{scene[1]} is not a mask of one 8-bit label a pixel: replace it")
    if ids.shape != image.size[::-1]:
        raise UserError(
            f"{scene[1]} is a mask of {ids.shape[0]}x{ids.shape[1]} pixels, its image has "
            f"{image.size[1]}x{image.size[0]}: replace one of them"
        )
    labels = TABLE[ids]
    if (labels == UNKNOWN).any():
        raise UserError(
            f"{scene[1]} has label {int(ids[labels == UNKNOWN].min())}, out of range: Cityscapes' "
            f"go from 0 to {LARGEST_ID}"
        )
    return image, labels


def write_scene(
    root: Path, split: str, number: int, image: NDArray[np.uint8], ids: NDArray[np.uint8], city: str
) -> None:
    """Writes an image (h, w, 3) and a mask (h, w) of ids, under Cityscapes' names."""
    name = f"{city}_{number // 100:06}_{number % 100:06}"
    for folder, tail, pixels in (("leftImg8bit", IMAGE, image), ("gtFine", MASK, ids)):
        path = root / folder / split / city / f"{name}{tail}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, compress_level=1)


def _pairs(root: Path, part: str, advice: str) -> list[Scene]:
    folder = root / "leftImg8bit" / part
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: {advice}")
    if not (root / "gtFine" / part).is_dir():
        raise UserError(f"there is no folder {root / 'gtFine' / part}: {advice}")
    images = sorted(folder.glob(f"*/*{IMAGE}"))  # what else lies there is none of ours
    if not images:
        raise UserError(f"{folder} has no images: {advice}")
    masks = root / "gtFine" / part
    return [
        (str(image), str(masks / image.parent.name / f"{image.name.removesuffix(IMAGE)}{MASK}"))
        for image in images
    ]


def _opened(scene: Scene) -> "tuple[Image.Image, tv_tensors.Mask]":
    from torchvision import tv_tensors

    image, labels = read_scene(scene)
    return image, tv_tensors.Mask(labels)


def _resize(settings: Settings) -> "v2.Transform":
    """Of images and masks; those of masks take the nearest label."""
    from torchvision.transforms import v2

    return v2.Resize(settings["size"])
