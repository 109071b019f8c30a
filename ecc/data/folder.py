"""Any folder of images: `train/` and `val/` by class, or class folders alone."""

from pathlib import Path

from ecc.data.layout import (
    ByClass,
    Kind,
    Settings,
    Tree,
    choose_classes,
    divide,
    scan,
    train_and_val,
)

ADVICE = (
    "datasets.<name>.path must name a folder of images by class: train/<class>/ and val/<class>/, "
    "or only <class>/"
)


def _find(settings: Settings, folder: Path) -> Tree:
    root = Path(settings["path"] or "")
    if (root / "train").is_dir() and (root / "val").is_dir():
        return train_and_val(root, settings, ADVICE)
    classes, samples = choose_classes(scan(root, ADVICE), settings["classes"])
    rest, validation = divide(samples, settings["validation"], settings["seed"], "validation")
    train, holdout = divide(rest, settings["holdout"], settings["seed"], "holdout")
    return ByClass(root, classes, {"train": train, "holdout": holdout, "validation": validation})


KIND = Kind(
    defaults={
        "path": None,
        "classes": None,
        "size": 224,
        "holdout": 0.1,
        "validation": 0.2,
        "seed": 0,
        "normalisation": "imagenet",
        "shift": 4,
        "flip": True,
        "in_memory": False,
        "workers": 4,
        "skip_unreadable": False,
    },
    source="images of the user",
    find=_find,
)
