"""CIFAR-10 (Krizhevsky, 2009): 60,000 photographs of 32x32 pixels in 10 classes, downloaded."""

from pathlib import Path

import numpy as np

from ecc.data.layout import Kind, Settings, Tree, train_and_val, write_images
from ecc.errors import UserError

ARCHIVE = "cifar-10-python.tar.gz"


def _write(settings: Settings, folder: Path) -> None:
    """Downloads the archive, unless it is at `path`, and writes its images by class."""
    from torchvision.datasets import CIFAR10  # here: it takes a second or two

    root = Path(settings["path"] or folder)
    for part, train in (("train", True), ("val", False)):
        try:
            found = CIFAR10(str(root), train=train, download=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f"CIFAR-10 is not in {root} and cannot be downloaded ({error}): put {ARCHIVE} "
                "there from https://www.cs.toronto.edu/~kriz/cifar.html"
            ) from error
        labels = np.array(found.targets)
        for label, name in enumerate(found.classes):
            write_images(folder / part / name, found.data[labels == label])


def _find(settings: Settings, folder: Path) -> Tree:
    return train_and_val(folder, {**settings, "classes": 10}, "prepare CIFAR-10 again")


KIND = Kind(
    defaults={
        "path": None,
        "size": 32,
        "holdout": 500,
        "seed": 0,
        "normalisation": "symmetric",
        "shift": 4,
        "flip": True,
        "in_memory": True,
        "workers": 0,
    },
    source="CIFAR-10, https://www.cs.toronto.edu/~kriz/cifar.html (Krizhevsky, 2009)",
    find=_find,
    write=_write,
)
