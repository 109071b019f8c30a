"""Datasets, embedded and real, behind one interface: `prepare` once, then `load` anywhere.

Every dataset is one file of this folder and one line of DATASETS. All are read in ImageNet's
folder layout; the hold-out split is a part of the training images, chosen by seed.
"""

import hashlib
import json
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ecc import runs
from ecc.data import digits, folder as own_folder, fractals, imagenet
from ecc.data.layout import Kind, Settings, Tree, read_image
from ecc.data.splits import Dataset, InMemory, OnDisk, Split, fitted
from ecc.errors import UserError

__all__ = ["DATASETS", "Dataset", "Split", "load", "prepare"]

DATASETS: dict[str, Kind] = {
    "fractals": fractals.KIND,
    "digits": digits.KIND,
    "imagenet": imagenet.KIND,
    "folder": own_folder.KIND,
}
MANIFEST, PIXELS = "manifest.json", "pixels.safetensors"


def prepare(settings: Settings, folder: str | Path) -> None:
    """Makes the embedded data in `folder`, or checks the user's, and writes manifest.json there.

    With `in_memory` the decoded pixels are kept beside it, so that loading takes milliseconds.
    Raises UserError where images are missing, unreadable, or not laid out by class.
    """
    kind, settings = _resolved(settings)
    folder = Path(folder)
    (folder / MANIFEST).unlink(missing_ok=True)  # written last: its presence means all is there
    if kind.write:
        for part in ("train", "val"):
            shutil.rmtree(folder / part, ignore_errors=True)
        kind.write(settings, folder)
    tree = kind.find(settings, folder)
    content = kind.write is not None or settings["in_memory"]
    splits = {
        name: {
            "images": len(samples),
            "images_by_class": dict(zip(tree.classes, tree.counts(name), strict=True)),
            "sha256": tree.checksum(name, content),
        }
        for name, samples in tree.splits.items()
    }
    manifest = {
        "name": settings["kind"],
        "settings": _lasting(settings),
        "source": kind.source,
        "classes": tree.classes,
        "splits": splits,
        "sha256_of": "names and content" if content else "names and sizes",
    }
    if settings["in_memory"]:
        _keep_pixels(tree, settings["size"], manifest, folder / PIXELS)
    runs.write_json(folder / MANIFEST, manifest)


def load(settings: Settings, folder: str | Path) -> Dataset:
    """The dataset that `prepare` left in `folder`.

    Raises UserError where it is absent, damaged, or was prepared with other settings.
    """
    kind, settings = _resolved(settings)
    folder = Path(folder)
    manifest = _manifest(folder / MANIFEST, settings)
    offset = settings.get("label_offset", 0)
    classes = len(manifest["classes"]) + offset
    normalisation, shift, flip = (settings[key] for key in ("normalisation", "shift", "flip"))
    splits: dict[str, Split] = {}
    if settings["in_memory"]:
        for name, (pixels, labels) in _kept_pixels(folder / PIXELS, manifest).items():
            splits[name] = InMemory(pixels, labels + offset, classes, normalisation, shift, flip)
    else:
        tree = kind.find(settings, folder)
        for name, samples in tree.splits.items():
            counts = dict(zip(tree.classes, tree.counts(name), strict=True))
            if counts != manifest["splits"][name]["images_by_class"]:
                raise UserError(
                    f"images in {tree.root} have changed: delete {folder / MANIFEST} and run again"
                )
            shifted = [(path, label + offset) for path, label in samples]
            splits[name] = OnDisk(
                shifted, classes, settings["size"], normalisation, flip, settings["workers"]
            )
    return Dataset(settings["kind"], classes, **splits)


def _resolved(settings: Settings) -> tuple[Kind, Settings]:
    name = settings.get("kind")
    kind = DATASETS.get(str(name))
    if kind is None:
        raise UserError(f"datasets.<name>.kind: {name!r} is unknown: use {', '.join(DATASETS)}")
    if unknown := sorted(set(settings) - {"kind", *kind.defaults}):
        raise UserError(
            f"datasets.<name>.{unknown[0]}: {name} has no such setting: use one of "
            f"{', '.join(kind.defaults)}"
        )
    return kind, {**kind.defaults, **settings}


def _lasting(settings: Settings) -> Settings:
    """The settings that decide what is loaded: not how many processes do it."""
    return {key: value for key, value in settings.items() if key != "workers"}


def _manifest(path: Path, settings: Settings) -> Settings:
    try:
        manifest: Settings = json.loads(path.read_text())
        prepared = manifest["settings"]
    except FileNotFoundError as error:
        raise UserError(f"there is no {path}: prepare this dataset first") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: delete it and run again") from error
    wanted = _lasting(settings)
    for key in sorted(prepared.keys() | wanted.keys()):
        if prepared.get(key) != wanted.get(key):
            raise UserError(
                f"{path} was prepared with {key}: {prepared.get(key)}, not {wanted.get(key)}: "
                "prepare this dataset again"
            )
    return manifest


def _key(manifest: Settings) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _renew(path: Path) -> str:
    return f"delete {path.with_name(MANIFEST)} and run again"


def _keep_pixels(tree: Tree, size: int, manifest: Settings, path: Path) -> None:
    fit = fitted(size, size)
    tensors = {}
    for name, samples in tree.splits.items():
        tensors[f"{name}_pixels"] = torch.stack([fit(read_image(path)) for path, _ in samples])
        tensors[f"{name}_labels"] = torch.tensor([label for _, label in samples])
    with runs.temporary(path) as draft:
        save_file(tensors, draft, {"manifest": _key(manifest)})


def _kept_pixels(path: Path, manifest: Settings) -> dict[str, tuple[Tensor, Tensor]]:
    try:
        with safe_open(path, "pt") as kept:
            if kept.metadata() != {"manifest": _key(manifest)}:
                raise UserError(f"{path} belongs to another manifest: {_renew(path)}")
            return {
                name: (kept.get_tensor(f"{name}_pixels"), kept.get_tensor(f"{name}_labels"))
                for name in manifest["splits"]
            }
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is missing or truncated: {_renew(path)}") from error
