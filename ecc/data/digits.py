"""The real handwritten digits that scikit-learn carries: 1797 images of 8x8 pixels, 10 classes."""

from pathlib import Path

import numpy as np

from ecc.data.layout import Kind, Settings, Tree, divide, train_and_val, write_images


def _write(settings: Settings, folder: Path) -> None:
    from sklearn.datasets import load_digits  # here: the import costs a second

    found = load_digits()
    images = np.round(found.images * (255 / 16)).astype(np.uint8)
    numbered = [(f"{index:04}", int(label)) for index, label in enumerate(found.target)]
    train, val = divide(numbered, settings["validation"], settings["seed"], "validation")
    for name, part in (("train", train), ("val", val)):
        for digit in range(10):
            own = [int(index) for index, label in part if label == digit]
            write_images(folder / name / str(digit), images[own])


def _find(settings: Settings, folder: Path) -> Tree:
    return train_and_val(folder, {**settings, "classes": 10}, "prepare the digits again")


KIND = Kind(
    defaults={
        "size": 64,
        "holdout": 0.1,
        "validation": 0.2,
        "seed": 0,
        "normalisation": "symmetric",
        "shift": 4,
        "flip": False,  # a mirrored digit is no digit
        "in_memory": True,
        "workers": 0,
    },
    source="Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, UCI, 1998, CC BY 4.0), "
    "as scikit-learn carries it",
    find=_find,
    write=_write,
    embedded=True,
)
