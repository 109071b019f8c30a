"""The interface of an energy model, and its file: whole, without pickle, for one network only."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import ArrayLike, NDArray

from ecc.errors import UserError
from ecc.runs import temporary, write_json
from ecc.structure import Structure

if TYPE_CHECKING:
    import torch

Array = NDArray[np.float64]
FORMAT = "ecc energy model"
VERSION = 1


class EnergyModel(ABC):
    """Energy of one inference, in joules, as a function of the widths s of a network's groups."""

    kind: str
    structure: Structure

    @abstractmethod
    def _joules(self, s: Any, xp: Any, array: Callable[[Array], Any]) -> Any:
        """The formula, once for both libraries: `xp` is NumPy or torch, `array` converts to it."""

    def energy(self, widths: ArrayLike) -> Array:
        """Joules (...,) at widths (..., groups)."""
        joules = self._joules(np.asarray(widths, dtype=np.float64), np, np.asarray)
        return np.asarray(joules, dtype=np.float64)

    def __call__(self, s: "torch.Tensor") -> "torch.Tensor":
        """Joules (...,) at real widths s (..., groups), differentiable in s."""
        import torch

        def array(values: Array) -> torch.Tensor:
            return torch.as_tensor(values, dtype=s.dtype, device=s.device)

        joules: torch.Tensor = self._joules(s, torch, array)
        return joules

    def gradient(self, s: ArrayLike) -> Array:
        """Joules per channel (..., groups) at real widths s (..., groups)."""
        import torch

        widths = torch.tensor(np.asarray(s, dtype=np.float64), requires_grad=True)
        (slope,) = torch.autograd.grad(self(widths).sum(), widths)
        return np.asarray(slope.numpy())

    @abstractmethod
    def save(self, path: str | Path) -> None:
        """Write the model; `ecc.energy.load` reads it."""

    @classmethod
    @abstractmethod
    def restore(
        cls, structure: Structure, content: dict[str, Any], tensors: dict[str, Array]
    ) -> Self:
        """The model that was saved as these values. Raises LookupError, TypeError, ValueError."""


def mean_error(modelled_j: Array, measured_j: Array) -> float:
    """Mean of |modelled - measured| / measured, both (n,)."""
    return float(np.mean(np.abs(modelled_j - measured_j) / measured_j))


def relative_error(model: EnergyModel, widths: ArrayLike, energy_j: ArrayLike) -> float:
    """The model's mean relative error over samples: widths (n, groups), joules (n,)."""
    return mean_error(model.energy(widths), np.asarray(energy_j, dtype=np.float64))


def describe(structure: Structure) -> str:
    """A network in a few words, for error messages."""
    widths = ",".join(str(width) for width in structure.full_widths[:4])
    return (
        f"{len(structure.groups)} groups ({widths},..), {len(structure.operations)} operations, "
        f"{structure.classes} classes [{structure.fingerprint[:8]}]"
    )


def write(
    model: EnergyModel,
    path: str | Path,
    values: dict[str, Any],
    tensors: dict[str, NDArray[Any]] | None = None,
) -> None:
    """Values as JSON; with `tensors`, safetensors that carry the values as metadata.

    Python writes the shortest decimal that reads back as the same float64.
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "kind": model.kind,
        "fingerprint": model.structure.fingerprint,
        "network": describe(model.structure),
        **values,
    }
    if tensors is None:
        write_json(path, content)
    else:
        data = safetensors.numpy.save(tensors, {"model": json.dumps(content, sort_keys=True)})
        with temporary(path) as draft:
            draft.write_bytes(data)


def load(
    path: str | Path, structure: Structure, kinds: Mapping[str, type[EnergyModel]]
) -> EnergyModel:
    """The model in a file, of one of the `kinds`.

    Raises UserError where it is absent, damaged, of a later format or of another network.
    """
    try:
        data = Path(path).read_bytes()
        tensors: dict[str, Array] = {}
        if 0 in data[:8]:  # the length of a safetensors header; text has no zero bytes
            tensors = safetensors.numpy.load(data)
            size = int.from_bytes(data[:8], "little")
            content = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["model"])
        else:
            content = json.loads(data)
        if content["format"] != FORMAT:
            raise ValueError("another format")
        if content["version"] != VERSION:
            raise UserError(
                f"{path}: energy model format {content['version']}, this version of ecc reads "
                f"{VERSION}: update ecc or fit the model again"
            )
        if content["fingerprint"] != structure.fingerprint:
            raise UserError(
                f"{path}: fitted for another network, {content['network']}, not for "
                f"{describe(structure)}: fit a model for this network"
            )
        if content["kind"] not in kinds:
            raise UserError(
                f"{path}: kind '{content['kind']}' is unknown: known are {', '.join(kinds)}"
            )
        model = kinds[content["kind"]].restore(structure, content, tensors)
        dense_j = float(model.energy(structure.full_widths))
        if not 0 < dense_j < np.inf:
            raise ValueError("dense energy is not positive and finite")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): fit the model") from error
    except UserError:
        raise
    except Exception as error:  # what damaged files raise is without end
        raise UserError(
            f"{path}: not an energy model, or truncated: delete it and fit it again"
        ) from error
    return model
