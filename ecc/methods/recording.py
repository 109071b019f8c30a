"""What layers of networks read and write, at positions sampled from some images."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ecc.errors import UserError

Recordable = nn.Conv2d | nn.Linear


class Recorder:
    """The same images and the same random positions of every layer, whatever network is asked.

    `batches` are images (b, c, h, w); of each `positions` are taken, fewer where a layer's output
    has not as many.
    """

    def __init__(self, batches: Sequence[Tensor], positions: int, *, seed: int):
        self.batches, self.positions, self.seed = batches, positions, seed

    @torch.no_grad()
    def inputs(self, model: nn.Module, name: str) -> NDArray[np.float32]:
        """X of a layer, unfolded: (groups, n, k), k weights of a filter."""
        layer = layer_of(model, name)
        found = [unfolded(layer, entering) for entering, _ in self._seen(model, name)]
        picked = torch.cat(list(self._picked(found)))
        groups = getattr(layer, "groups", 1)
        by_group = picked.reshape(len(picked), groups, -1).transpose(0, 1)
        return by_group.contiguous().cpu().numpy()

    @torch.no_grad()
    def outputs(self, model: nn.Module, name: str) -> NDArray[np.float32]:
        """Y of a layer without its bias: (n, filters)."""
        layer = layer_of(model, name)
        found = [leaving.flatten(2) for _, leaving in self._seen(model, name)]
        picked = torch.cat(list(self._picked(found)))
        return (picked if layer.bias is None else picked - layer.bias).cpu().numpy()

    def _picked(self, found: Sequence[Tensor]) -> Iterator[Tensor]:
        """Of values (images, channels, places) those at the chosen places: (n, channels)."""
        stream = torch.Generator().manual_seed(self.seed)
        for values in found:
            images, channels, places = values.shape
            chosen = torch.rand(images, places, generator=stream).argsort(1)[:, : self.positions]
            index = chosen[:, None].expand(-1, channels, -1).to(values.device)
            yield values.gather(2, index).transpose(1, 2).reshape(-1, channels)

    def _seen(self, model: nn.Module, name: str) -> Iterator[tuple[Tensor, Tensor]]:
        """What a layer reads and writes: (images, channels, height, width) each."""
        model.eval()
        device = next(model.parameters()).device
        for images in self.batches:
            seen: list[Tensor] = []

            def stop(
                layer: nn.Module, given: tuple[Tensor, ...], output: Any, seen: list[Tensor] = seen
            ) -> None:
                seen += [given[0], output]
                raise _SeenError

            handle = layer_of(model, name).register_forward_hook(stop)
            try:
                model(images.to(device))
            except _SeenError:
                pass
            finally:
                handle.remove()
            entering, leaving = (t if t.dim() == 4 else t[:, :, None, None] for t in seen)
            yield entering, leaving


class _SeenError(Exception):
    """Ends a pass through a network where its later layers are not needed."""


def layer_of(model: nn.Module, name: str) -> Recordable:
    """A convolution or fully connected layer; raises UserError where it is another one."""
    layer = model.get_submodule(name)
    if not isinstance(layer, nn.Conv2d | nn.Linear):
        raise UserError(
            f"layer {name} is a {type(layer).__name__}: only convolutions and "
            "fully connected layers can be recorded"
        )
    return layer


def unfolded(layer: Recordable, entering: Tensor) -> Tensor:
    """Inputs (images, c, h, w) as each position's weights read them: (images, c * area, places).

    The layer itself does it, with kernels that pass one input on: whatever its padding is.
    """
    if isinstance(layer, nn.Linear):
        return entering.flatten(2)
    height, width = layer.kernel_size
    area, channels = height * width, entering.shape[1]
    probe = copy.deepcopy(layer)
    one = torch.eye(area, device=entering.device).view(area, 1, height, width)
    probe.weight = nn.Parameter(one.repeat(channels, 1, 1, 1))
    probe.bias, probe.groups = None, channels
    read: Tensor = probe(entering.contiguous())
    return read.flatten(2)
