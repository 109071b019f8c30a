"""Checkpoints of trainings and searches: whole, of this very run, or not used.

A fingerprint tells whose state a file holds: of all that decides a run, its code included. A
SHA-256 of the content tells whether it is what was written.
"""

import hashlib
import json
import logging
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ecc import runs, sources
from ecc.errors import UserError

logger = logging.getLogger(__name__)

Rows = list[dict[str, float]]
INSTALLED = [Path(sysconfig.get_path(name)) for name in ("purelib", "platlib", "stdlib")]
# Read with the modules themselves: of an edit that comes later this process knows nothing.
LIBRARY = sources.library()


def write(path: Path, fingerprint: str, history: Rows, tensors: Mapping[str, Tensor]) -> None:
    """Writes the state of a run; all rows of `history` have the same keys."""
    # The history is a tensor too: the header of a safetensors file may not grow without end.
    columns = list(history[0]) if history else []
    rows = [[row[column] for column in columns] for row in history]
    given = {**tensors, "history": torch.tensor(rows, dtype=torch.float64)}
    # Copies: safetensors takes neither shared storage nor channels that lie last.
    whole = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in given.items()
    }
    metadata = {"columns": json.dumps(columns), "fingerprint": fingerprint}
    metadata["sha256"] = digest(sorted(metadata.items()), whole)
    with runs.temporary(path) as draft:
        save_file(whole, draft, metadata)


def read(path: Path, fingerprint: str, what: str) -> tuple[Rows, dict[str, Tensor]] | None:
    """History and tensors of a run; None where there are none, or only those of another one.

    Raises UserError, one line that names the file, where it is not what was written. `what` begins
    anew without it.
    """
    if not path.exists():
        return None
    tensors, metadata = read_tensors(path)
    if metadata.get("fingerprint") != fingerprint:
        logger.warning("%s belongs to other settings or code: %s starts anew", path, what)
        return None
    checksum = metadata.pop("sha256", "")
    if checksum != digest(sorted(metadata.items()), tensors):
        raise UserError(f"{path} is damaged: delete it, and {what} starts anew")
    rows = tensors.pop("history").tolist()
    columns = json.loads(metadata["columns"])
    logger.info("resumed from %s after %d steps", path, len(rows))
    return [dict(zip(columns, row, strict=True)) for row in rows], tensors


def digest(told: object, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the `repr` of something, and of tensors by their names."""
    whole = hashlib.sha256(repr(told).encode())
    for name, tensor in sorted(tensors.items()):
        whole.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
        content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        whole.update(content.numpy().data)
    return whole.hexdigest()


def identity(model: nn.Module) -> str:
    """Digest of what a network computes: its weights, its modules' settings, and their code.

    Settings are attributes of plain values, such as the momentum of a batch norm. The code is that
    of the user's own classes, with what it imports; `LIBRARY` stands for this library's.
    """
    modules = [
        (name, f"{type(module).__module__}.{type(module).__qualname__}", _settings(module))
        for name, module in model.named_modules()
    ]
    classes = {type(module).__module__ for module in model.modules()}
    own = sorted({file for name in classes for file in _own_files(name)})
    return digest((modules, sources.digest(own)), model.state_dict())


def _settings(module: nn.Module) -> dict[str, Any]:
    return {
        name: value
        for name, value in sorted(vars(module).items())
        if name != "training" and _is_plain(value)
    }


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _own_files(module: str) -> Sequence[str]:
    """Files that a module is made of, by its imports; none where it is installed, or of ecc."""
    file = getattr(sys.modules.get(module), "__file__", None)  # none: typed in, as in a notebook
    if file is None or module == "__main__" or module.split(".")[0] == __name__.split(".")[0]:
        return []
    path = Path(file)
    if any(path.is_relative_to(folder) for folder in INSTALLED):
        return []
    above = len(module.split(".")) - (path.stem != "__init__")
    return sources.own_network(f"{module}{sources.MARK}", path.parents[above])


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; raises UserError where it is none."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except Exception as error:  # what damaged files raise is without end
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path} is truncated or not a safetensors file ({reason}): delete it and run again"
        ) from error
