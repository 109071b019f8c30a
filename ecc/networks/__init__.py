"""Networks at any vector of widths: one architecture a file, one line in `ARCHITECTURES`.

An architecture's module has `FULL_WIDTHS`, `build(widths, classes, **options)` and `RESIDUAL`
("prune" or "keep": whether the coupled channels of residual streams may be pruned). Besides, an
architecture may be a function of the user's: `package.module:function` (`ecc.networks.own`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from inspect import signature
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ecc.channels import Channels, trace
from ecc.errors import UserError
from ecc.networks import (
    alexnet,
    alexnet_grouped,
    erfnet,
    googlenet,
    mobilenet,
    own,
    resnet,
    squeezenet,
    vgg,
)
from ecc.sources import MARK
from ecc.structure import Structure

ARCHITECTURES: dict[str, ModuleType] = {
    "alexnet": alexnet,
    "alexnet_grouped": alexnet_grouped,
    "erfnet": erfnet,
    "googlenet": googlenet,
    "mobilenet": mobilenet,
    "resnet50": resnet,
    "squeezenet": squeezenet,
    "vgg16": vgg,
}


@dataclass(frozen=True)
class Network:
    """An architecture as it is deployed: classes, width multiplier, and size (height, width).

    `options` are the architecture's own settings (dropout, batch-norm momentum), or keywords of
    the user's function. Raises UserError for an unknown architecture or option, for impossible
    widths, and for a network of the user's that cannot be used (`ecc.networks.own.Own`).
    """

    architecture: str
    classes: int
    multiplier: float = 1.0
    size: tuple[int, int] = (224, 224)
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self._own is not None:
            if self.multiplier != 1.0:
                raise UserError(
                    f"multiplier {self.multiplier:g}: {self.architecture} has full widths alone: "
                    "leave multiplier out, and give the function an option for narrower ones"
                )
        elif self.architecture not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise UserError(
                f"unknown architecture '{self.architecture}': known are {known}, and functions of "
                "your own as package.module:function"
            )

    @cached_property
    def _own(self) -> own.Own | None:
        """The network where it is the user's, not one of `ARCHITECTURES`."""
        if MARK not in self.architecture:
            return None
        return own.Own(self.architecture, self.classes, self.size, self.options)

    @property
    def _module(self) -> ModuleType:
        return ARCHITECTURES[self.architecture]

    @property
    def full_widths(self) -> NDArray[np.int64]:
        """Full widths S (groups,): the published ones times the multiplier, or those traced."""
        if self._own is not None:
            return self.structure.full_widths
        minimum = getattr(self._module, "MINIMUM_WIDTH", 1)
        widths = [max(int(width * self.multiplier), minimum) for width in self._module.FULL_WIDTHS]
        return np.array(widths, dtype=np.int64)

    def build(self, widths: Sequence[int] | NDArray[np.int64] | None = None) -> nn.Module:
        """The network at `widths` (groups,), freshly initialised; at full widths by default."""
        if self._own is not None and widths is None:
            return self._own.build()
        full = self.full_widths
        chosen = [int(width) for width in (full if widths is None else widths)]
        if len(chosen) != len(full) or min(chosen) < 1:
            raise UserError(f"{self.architecture} needs {len(full)} widths of at least 1: {chosen}")
        if self._own is not None:
            return self._own.build(np.array(chosen, dtype=np.int64))
        known = [p.name for p in signature(self._module.build).parameters.values()][2:]
        if unknown := sorted(set(self.options) - set(known)):
            raise UserError(
                f"options: {self.architecture} has no '{unknown[0]}': known are "
                f"{', '.join(known) or 'none'}"
            )
        try:
            network: nn.Module = self._module.build(chosen, self.classes, **self.options)
        except ValueError as error:
            raise UserError(f"options of {self.architecture}: {error}") from error
        return network

    @cached_property
    def channels(self) -> Channels:
        if self._own is not None:
            return self._own.channels
        return trace(self.build(), self.size, residual=self._module.RESIDUAL)

    @property
    def structure(self) -> Structure:
        """Channel groups and operations at the deployment size."""
        return self.channels.structure
