"""What layers of networks read and write, at positions sampled from some images."""

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ecc.errors import UserError

Recordable = nn.Conv2d | nn.Linear
# Of a layer, what enters and what leaves it: (images, channels, places).
_Read = Callable[[Recordable, Tensor, Tensor], Tensor]


class Recorder:
    """The same images and the same random positions of every layer, whatever network is asked.

    `batches` are images (b, c, h, w); of each `positions` are taken, fewer where a layer's output
    has not as many.
    """

    def __init__(self, batches: Sequence[Tensor], positions: int, *, seed: int):
        self.batches, self.positions, self.seed = batches, positions, seed

    def inputs(self, model: nn.Module, name: str) -> NDArray[np.float32]:
        """X of a layer, unfolded: (groups, n, k), k weights of a filter."""
        picked = torch.cat([seen[name][0] for seen in self._picked(model, [name], [_inputs])])
        groups = getattr(layer_of(model, name), "groups", 1)
        by_group = picked.reshape(len(picked), groups, -1).transpose(0, 1)
        return by_group.contiguous().cpu().numpy()

    def outputs(self, model: nn.Module, name: str) -> NDArray[np.float32]:
        """Y of a layer without its bias: (n, filters)."""
        picked = [seen[name][0] for seen in self._picked(model, [name], [_outputs])]
        return torch.cat(picked).cpu().numpy()

    def by_batch(
        self, model: nn.Module, names: Sequence[str]
    ) -> Iterator[dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]]:
        """X (n, k) and Y (n, filters) of several layers without groups, batch after batch.

        Each batch passes through the network once, for all of them.
        """
        for seen in self._picked(model, names, [_inputs, _outputs]):
            yield {name: (x.cpu().numpy(), y.cpu().numpy()) for name, (x, y) in seen.items()}

    @torch.no_grad()
    def _picked(
        self, model: nn.Module, names: Sequence[str], read: Sequence[_Read]
    ) -> Iterator[dict[str, list[Tensor]]]:
        """Of every batch, of every layer what is read of it at the chosen places: (n, channels)."""
        model.eval()
        device = next(model.parameters()).device
        streams = {name: torch.Generator().manual_seed(self.seed) for name in names}
        for images in self.batches:
            yield self._seen(model, images.to(device), streams, read)

    def _seen(
        self,
        model: nn.Module,
        images: Tensor,
        streams: dict[str, torch.Generator],
        read: Sequence[_Read],
    ) -> dict[str, list[Tensor]]:
        seen: dict[str, list[Tensor]] = {}

        # What is wanted is taken at once: activations that work in place change it later.
        def take(name: str, layer: Any, given: Any, output: Any) -> None:
            handles[name].remove()  # a layer's first call is recorded, and it may be copied
            flows = [t if t.dim() == 4 else t[:, :, None, None] for t in (given[0], output)]
            index = self._places(streams[name], len(output), flows[1][0, 0].numel())
            seen[name] = [_at(values(layer, *flows), index) for values in read]
            if len(seen) == len(streams):
                raise _SeenError

        handles = {n: layer_of(model, n).register_forward_hook(partial(take, n)) for n in streams}
        try:
            model(images)
        except _SeenError:
            pass
        finally:
            for handle in handles.values():
                handle.remove()
        return seen

    def _places(self, stream: torch.Generator, images: int, places: int) -> Tensor:
        """Which of a layer's places are taken of each image: (images, positions)."""
        return torch.rand(images, places, generator=stream).argsort(1)[:, : self.positions]


class _SeenError(Exception):
    """Ends a pass through a network where its later layers are not needed."""


def _inputs(layer: Recordable, entering: Tensor, leaving: Tensor) -> Tensor:
    return unfolded(layer, entering)


def _outputs(layer: Recordable, entering: Tensor, leaving: Tensor) -> Tensor:
    values = leaving.flatten(2)
    return values if layer.bias is None else values - layer.bias[:, None]


def _at(values: Tensor, places: Tensor) -> Tensor:
    """Of values (images, channels, places) those at the chosen ones: (n, channels)."""
    index = places[:, None].expand(-1, values.shape[1], -1).to(values.device)
    return values.gather(2, index).transpose(1, 2).reshape(-1, values.shape[1])


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
