"""Cityscapes (Cordts et al., CVPR 2016), from where the user has put it."""

from pathlib import Path

from ecc.data.layout import Kind, Settings, Tree
from ecc.data.scenes import VOID, scenes, task

ADVICE = (
    "datasets.<name>.path must name Cityscapes (leftImg8bit_trainvaltest and gtFine_trainvaltest, "
    "from https://www.cityscapes-dataset.com after registration) unpacked as "
    "leftImg8bit/{train,val}/<city>/*_leftImg8bit.png and gtFine/{train,val}/<city>/"
    "*_gtFine_labelIds.png"
)


def _find(settings: Settings, folder: Path) -> Tree:
    return scenes(Path(settings["path"] or ""), settings, ADVICE)


KIND = Kind(
    defaults={
        "path": None,
        "size": [512, 1024],
        "holdout": 0.05,
        "seed": 0,
        "normalisation": "unit",
        "shift": 2,
        "flip": True,
        "in_memory": False,
        "workers": 4,
        "skip_unreadable": False,
    },
    source="Cityscapes, https://www.cityscapes-dataset.com: for non-commercial research, under its "
    "own terms",
    find=_find,
    task=task,
    border=VOID,
)
