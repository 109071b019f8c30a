"""Networks of the user's own: `package.module:function`, traced and slimmed as they are.

The function is called with `num_classes` and the options of the configuration, as torchvision's
are, and returns a network at full widths. Channel groups and operations come from its trace. The
channels of residual streams are one group, pruned like any other: a method that finds them worth
their energy leaves them wide, and squeeze-and-excitation couples channels in the same way.
"""

import copy
import difflib
import importlib
import logging
import sys
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ecc.channels import LAYERS, Channels, trace, widths_of
from ecc.errors import UserError
from ecc.sources import MARK

LARGER = (32, 64, 96, 128, 224, 299, 384, 512)  # sizes tried where the given one is too small
TOLERANCE = 1e-3  # between masked and slim, of the largest output; single precision errs by 1e-6

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Own:
    """A network of the user's: outputs `classes`, deployed at `size` (height, width).

    The working directory is searched for the module before installed packages. Raises UserError,
    one line that names the architecture, where the module or function is missing or fails, and
    where its network is not an nn.Module of images (n, 3, height, width) to one tensor (n,
    classes), or (n, classes, height, width) of segmentation, cannot be traced, or has nothing to
    prune.
    """

    architecture: str
    classes: int
    size: tuple[int, int]
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self, widths: NDArray[np.int64] | None = None) -> nn.Module:
        """The network as the function returns it, or with the first `widths` (groups,) channels.

        Narrower ones are cut from one network that is made once: their weights are parts of its.
        """
        if widths is None:
            return self._full()
        try:
            keep = self.channels.first(widths)
        except UserError as error:
            raise self._error(str(error)) from error
        # Where shapes are asked for alone (torch.device("meta")), the cut takes no arithmetic.
        device = torch.get_default_device()
        with torch.device("cpu"):
            whole = self._whole if device.type == "cpu" else copy.deepcopy(self._whole).to(device)
            return self.channels.slim(whole, keep)

    @cached_property
    def channels(self) -> Channels:
        """Channel groups and operations of the trace, proven on one random choice of channels."""
        network = self._whole
        self._check_output(network)
        try:
            with torch.device("cpu"):
                channels = trace(network, self.size)
                _check_channels(copy.deepcopy(network), channels)
        except UserError as error:
            raise self._error(str(error)) from error
        for name in _uncounted(network):
            logger.warning(
                "%s: %s is neither a convolution nor a fully connected layer: what it takes is no "
                "part of emulated energies",
                self.architecture,
                name,
            )
        return channels

    @cached_property
    def _whole(self) -> nn.Module:
        # Its random numbers are its own, and it has values whatever the device of a caller.
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            return self._full()

    def _full(self) -> nn.Module:
        function = self._function()
        with self._told(f"{self._name}(num_classes={self.classes}{self._given}) raised"):
            network = function(num_classes=self.classes, **self.options)
        if not isinstance(network, nn.Module):
            raise self._error(
                f"{self._name} returns {_kind(network)}, not a torch.nn.Module: return the network"
            )
        return network

    def _function(self) -> Callable[..., Any]:
        path, folder = self.architecture.partition(MARK)[0], str(Path.cwd())
        if folder not in sys.path:
            sys.path.insert(0, folder)
        importlib.invalidate_caches()
        with self._told(f"importing {path} raised", ModuleNotFoundError):
            try:
                module = importlib.import_module(path)
            except ModuleNotFoundError as error:
                if error.name is None or not f"{path}.".startswith(f"{error.name}."):
                    raise self._error(
                        f"{path} imports '{error.name}', which is not installed"
                    ) from error
                raise self._error(
                    f"there is no module '{error.name}' in {folder} or among the installed "
                    f"packages: put {path.replace('.', '/')}.py there, or correct the name"
                ) from error
        function = getattr(module, self._name, None)
        if not callable(function):
            raise self._error(_missing(module, self._name))
        found: Callable[..., Any] = function
        return found

    def _check_output(self, network: nn.Module) -> None:
        """Runs the network without arithmetic, in training and outside of it."""
        with self._told("the network cannot be copied:"):
            blank = copy.deepcopy(network).to("meta")
        for training in (True, False):
            try:
                output = _run(blank.train(training), self.size)
            except Exception as error:
                raise self._error(self._unfit(blank, _reason(error))) from error
            when = "while it is trained" if training else "outside training"
            if not isinstance(output, Tensor):
                raise self._error(
                    f"the network returns {_kind(output)} {when}, not one tensor (images, "
                    f"classes): give the option of {self._name} that leaves other outputs out"
                )
            if output.shape not in ((2, self.classes), (2, self.classes, *self.size)):
                raise self._error(
                    f"the network's output for 2 images is {tuple(output.shape)} {when}, not "
                    f"(2, {self.classes}), or that for every pixel: let num_classes be the number "
                    "of its outputs"
                )

    def _unfit(self, blank: nn.Module, reason: str) -> str:
        """Why a network does not run, and at which size it does."""
        told = f"the network does not run at {self.size[0]}x{self.size[1]} ({reason})"
        for side in (side for side in LARGER if side > min(self.size)):
            try:
                _run(blank, (side, side))
            except Exception:
                continue
            return f"{told}, but at {side}x{side}: set another deployment_size"
        return f"the network cannot be traced: {told.removeprefix('the network ')}"

    @property
    def _name(self) -> str:
        return self.architecture.partition(MARK)[2]

    @property
    def _given(self) -> str:
        return "".join(f", {name}={value!r}" for name, value in self.options.items())

    @contextmanager
    def _told(self, what: str, *others: type[Exception]) -> Any:
        """An error of the user's code as one line after `what`; `others` are told of elsewhere."""
        try:
            yield
        except Exception as error:
            if isinstance(error, (UserError, *others)):
                raise
            raise self._error(f"{what} {type(error).__name__}: {_reason(error)}") from error

    def _error(self, what: str) -> UserError:
        return UserError(f"architecture {self.architecture}: {what}")


@torch.no_grad()
def _check_channels(network: nn.Module, channels: Channels) -> None:
    """Proves, on random channels, that the network without them computes what the masked one does.

    Changes `network`. Raises UserError where it does not, or where widths are miscounted: an
    operation mixes channels in a way that the trace does not follow.
    """
    random = torch.Generator().manual_seed(0)
    weights = {id(layer.weight) for layer in network.modules() if isinstance(layer, LAYERS)}
    for parameter in network.parameters():
        if id(parameter) not in weights:  # what begins at zero or one would hide a mistake
            parameter.add_(torch.randn(parameter.shape, generator=random), alpha=0.2)
    keep = [torch.rand(group.width, generator=random) < 0.5 for group in channels.structure.groups]
    for kept in keep:
        kept[0] = True
    channels.mask(network.eval(), keep)
    images = torch.randn(1, channels.structure.image_channels, *channels.size, generator=random)
    try:
        slim = channels.slim(network, keep)
        expected, output = network(images), slim(images)
    except Exception as error:
        raise UserError(f"channels cannot be removed ({_reason(error)}): {ALLOWED}") from error
    if (output - expected).abs().max() > TOLERANCE * expected.abs().max():
        raise UserError(f"channels cannot be removed, the output is another one then: {ALLOWED}")
    left = sum(parameter.numel() for parameter in slim.parameters())
    if left != int(channels.structure.parameters(widths_of(keep))):
        raise UserError(f"parameters cannot be counted once channels are removed: {ALLOWED}")


ALLOWED = (
    "let channels meet in convolutions, fully connected and normalisation layers, sums, products "
    "and concatenations alone, and nothing be random outside training"
)


def _uncounted(network: nn.Module) -> list[str]:
    """Modules with weights of their own that are no operation of a structure."""
    return [
        f"{name or 'the network'} ({type(module).__name__})"
        for name, module in network.named_modules()
        if not isinstance(module, LAYERS)
        and any(sum(n > 1 for n in p.shape) > 1 for p in module.parameters(recurse=False))
    ]


def _run(blank: nn.Module, size: tuple[int, int]) -> Any:
    with torch.no_grad():
        return blank(torch.empty(2, 3, *size, device="meta"))


def _missing(module: ModuleType, name: str) -> str:
    known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
    close = difflib.get_close_matches(name, known, n=1)
    where = getattr(module, "__file__", None) or module.__name__
    return f"{where} has no function '{name}'" + (f": did you mean {close[0]}?" if close else "")


def _kind(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _reason(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")
