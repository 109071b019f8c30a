"""ImageNet (Russakovsky et al., IJCV 2015), from where the user has put it."""

from pathlib import Path

from ecc.data.layout import Kind, Settings, Tree, train_and_val

ADVICE = (
    "datasets.<name>.path must name ImageNet (ILSVRC 2012, from https://image-net.org after "
    "registration) unpacked as train/<synset>/*.JPEG and val/<synset>/*.JPEG"
)


def _find(settings: Settings, folder: Path) -> Tree:
    return train_and_val(Path(settings["path"] or ""), settings, ADVICE)


KIND = Kind(
    defaults={
        "path": None,
        "classes": 1000,
        "size": 224,
        "holdout": 10,
        "seed": 0,
        "normalisation": "imagenet",
        "label_offset": 0,
        "shift": 4,
        "flip": True,
        "in_memory": False,
        "workers": 4,
        "skip_unreadable": False,
    },
    source="ImageNet, https://image-net.org: for non-commercial research, under its own terms",
    find=_find,
)
