"""Datasets, embedded and real, behind one interface: `prepare` once, then `load` anywhere.

Every dataset is one file of this folder and one line of DATASETS. They are read in ImageNet's
folder layout, or in that of Cityscapes where every pixel has a label; the hold-out split is a part
of the training images, chosen by seed.
"""

import hashlib
import itertools
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ecc import files, records, runs
from ecc.data import cifar10, cityscapes, digits, folder as own_folder, fractals, imagenet, streets
from ecc.data.layout import Kind, Settings, Tree, checksum
from ecc.data.splits import Dataset, InMemory, OnDisk, Split
from ecc.errors import UserError

__all__ = ["DATASETS", "Dataset", "Split", "load", "prepare"]

logger = logging.getLogger(__name__)
DATASETS: dict[str, Kind] = {
    "fractals": fractals.KIND,
    "digits": digits.KIND,
    "imagenet": imagenet.KIND,
    "folder": own_folder.KIND,
    "cifar10": cifar10.KIND,
    "streets": streets.KIND,
    "cityscapes": cityscapes.KIND,
}
MANIFEST, PIXELS = "manifest.json", "pixels.safetensors"


def prepare(settings: Settings, folder: str | Path) -> None:
    """Makes the embedded data in `folder`, or checks the user's, and writes manifest.json there.

    With `in_memory` the decoded pixels are kept beside it, so that loading takes milliseconds.
    With `skip_unreadable` every image is read, and the manifest names those left out.
    Raises UserError where images are missing, unreadable, or not laid out as they should be.
    """
    kind, settings = _resolved(settings)
    folder = Path(folder)
    (folder / MANIFEST).unlink(missing_ok=True)  # written last: its presence means all is there
    if kind.write:
        for part in ("train", "val"):
            shutil.rmtree(folder / part, ignore_errors=True)
        kind.write(settings, folder)
    tree = kind.find(settings, folder)
    skipped = _unreadable(tree, settings) if settings.get("skip_unreadable") else []
    tree = _without(tree, skipped)
    content = kind.write is not None or settings["in_memory"]
    splits = {
        name: {
            **tree.listed(name),
            **tree.counted(name),
            "sha256": checksum(tree, name, content),
        }
        for name in tree.splits
    }
    manifest = {
        "name": settings["kind"],
        "settings": _lasting(settings),
        "source": kind.source,
        "classes": tree.classes,
        "splits": splits,
        "skipped": skipped,
        "sha256_of": "names and content" if content else "names and sizes",
    }
    if settings["in_memory"]:
        _keep_pixels(tree, settings, manifest, folder / PIXELS)
    runs.write_json(folder / MANIFEST, manifest)


def load(settings: Settings, folder: str | Path) -> Dataset:
    """The dataset that `prepare` left in `folder`.

    Raises UserError where it is absent, damaged, or was prepared with other settings.
    """
    kind, settings = _resolved(settings)
    folder = Path(folder)
    manifest = _manifest(folder / MANIFEST, settings)
    offset = settings.get("label_offset", 0)
    classes, task = len(manifest["classes"]) + offset, kind.task(manifest)
    look = settings["normalisation"], settings["shift"], settings["flip"]
    splits: dict[str, Split] = {}
    if settings["in_memory"]:
        for name, (pixels, labels) in _kept_pixels(folder / PIXELS, manifest).items():
            splits[name] = InMemory(
                pixels,
                labels + offset,
                classes,
                *look,
                task=task,
                border=kind.border,
                fingerprint=f"{name} {_key(manifest)}",
            )
    else:
        tree = _without(kind.find(settings, folder), manifest["skipped"])
        reading = tree.reading(settings)
        for name, samples in tree.splits.items():
            there = manifest["splits"][name]
            if any(there[key] != found for key, found in tree.listed(name).items()):
                raise UserError(
                    f"images in {tree.root} have changed: delete {folder / MANIFEST} and run again"
                )
            splits[name] = OnDisk(
                samples,
                classes,
                reading,
                settings["workers"],
                task=task,
                fingerprint=f"{name} {_key(manifest)}",
            )
    return Dataset(settings["kind"], classes, **splits)


def _unreadable(tree: Tree, settings: Settings) -> list[str]:
    """Images of all splits that cannot be read, or whose masks cannot: paths below the root."""
    read, found = tree.reading(settings).read, []
    for sample in itertools.chain.from_iterable(tree.splits.values()):
        try:
            read(sample)
        except UserError as error:
            logger.warning("left out: %s", error)
            found.append(_below(tree, sample))
    if found:
        total = sum(map(len, tree.splits.values()))
        logger.warning("%d of %d images are left out", len(found), total)
    return sorted(found)


def _without(tree: Tree, skipped: Sequence[str]) -> Tree:
    """Raises UserError where a split would be empty."""
    if not skipped:
        return tree
    left_out = set(skipped)
    splits = {
        name: [sample for sample in samples if _below(tree, sample) not in left_out]
        for name, samples in tree.splits.items()
    }
    for name, samples in splits.items():
        if not samples:
            raise UserError(
                f"no image of the {name} split in {tree.root} can be read: replace them"
            )
    return tree.holding(splits)


def _below(tree: Tree, sample: tuple[str, Any]) -> str:
    return Path(sample[0]).relative_to(tree.root).as_posix()


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
    if not path.exists():
        raise UserError(f"there is no {path}: prepare this dataset first")
    try:
        manifest: Settings = records.read(path, "manifest")
    except UserError as error:
        raise UserError(f"{path} is damaged: delete it and run again") from error
    prepared = manifest["settings"]
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


def _keep_pixels(tree: Tree, settings: Settings, manifest: Settings, path: Path) -> None:
    tensors = {}
    for name in tree.splits:
        tensors[f"{name}_pixels"], tensors[f"{name}_labels"] = tree.pixels(name, settings)
    files.unseal(path)
    with runs.temporary(path) as draft:
        save_file(tensors, draft, {"manifest": _key(manifest)})
    files.seal(path)


def _kept_pixels(path: Path, manifest: Settings) -> dict[str, tuple[Tensor, Tensor]]:
    files.verify(path, f"{path.with_name(MANIFEST)}, and run the same command")
    try:
        with safe_open(path, "pt") as kept:
            if kept.metadata() != {"manifest": _key(manifest)}:
                raise UserError(f"{path} belongs to another manifest: {_renew(path)}")
            found = {
                name: (kept.get_tensor(f"{name}_pixels"), kept.get_tensor(f"{name}_labels"))
                for name in manifest["splits"]
            }
        for pixels, labels in found.values():
            if pixels.dtype != torch.uint8 or pixels.dim() != 4 or len(pixels) != len(labels):
                raise ValueError("no images")
        return found
    except UserError:
        raise
    except Exception as error:  # what damaged files raise is without end
        raise UserError(f"{path} is missing or truncated: {_renew(path)}") from error
