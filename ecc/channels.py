"""Channel groups of a network: derived from its trace; counted, masked, slimmed.

torch-pruning (Fang et al., DepGraph, CVPR 2023) traces which layers' channels vanish together and
removes them; what a channel group means for energy and for the methods is decided here.

A channel is dropped by zeroing every weight that reads it (the input columns of convolutions and
fully connected layers, and its depthwise kernels): then no consumer sees it, and removing its
producer's filter too does not change the function.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch_pruning
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ecc.errors import UserError
from ecc.structure import Group, Operation, Pair, Structure

Layer = nn.Conv2d | nn.ConvTranspose2d | nn.Linear
LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


@dataclass(frozen=True)
class Reader:
    """A layer that reads a group: rows of `index` (S, columns) along dimension `dim` of its weight.

    A depthwise convolution reads its group along dimension 0, where its kernels lie.
    """

    layer: str
    dim: int
    index: Tensor

    def weight(self, model: nn.Module) -> Tensor:
        return model.get_parameter(f"{self.layer}.weight")

    def sum(self, values: Tensor) -> Tensor:
        """Sums `values`, shaped as the weight, over each channel: (S,)."""
        others = [dim for dim in range(values.dim()) if dim != self.dim]
        per_entry = values.sum(dim=others)
        whole = self.index.numel() == per_entry.numel()
        entries = per_entry.view(self.index.shape) if whole else per_entry[self.index]
        return entries.sum(dim=1)

    def zero(self, values: Tensor, dropped: Tensor) -> None:
        """Zeroes in place the entries of the channels where `dropped` (S,) is true."""
        entries = self.index[dropped].flatten()
        values.index_fill_(self.dim, entries.to(values.device), 0.0)


class Channels:
    """The prunable channel groups of a network, for any model of the same architecture."""

    def __init__(self, structure: Structure, readers: Sequence[Sequence[Reader]], size: Pair):
        self.structure, self.size = structure, size
        self.readers = tuple(tuple(group) for group in readers)

    def scores(self, model: nn.Module, of: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """Sum of `of(weight)`, shaped as the weight, over all weights reading a channel: (S,) each.

        ECC, Section 3.3.1 with `of` = D * weight**2; a depthwise kernel counts with its channel.
        """
        return [
            torch.stack([reader.sum(of(reader.weight(model))) for reader in group]).sum(dim=0)
            for group in self.readers
        ]

    @torch.no_grad()
    def norms(self, model: nn.Module) -> list[Tensor]:
        """L2 norm of all weights that read a channel: (S,) for each group."""
        return [score.sqrt() for score in self.scores(model, torch.square)]

    @torch.no_grad()
    def kept(self, model: nn.Module) -> list[Tensor]:
        """Which channels any convolution or fully connected column reads: bool (S,) a group.

        A channel whose depthwise kernel alone is zero still carries its batch norm's constant, so
        depthwise kernels do not count.
        """
        kept = []
        for group in self.readers:
            columns = [reader for reader in group if not _is_depthwise_reader(model, reader)]
            sums = [reader.sum(reader.weight(model).abs()) for reader in columns]
            kept.append(torch.stack(sums).sum(dim=0) > 0)
        return kept

    def count(self, model: nn.Module) -> NDArray[np.int64]:
        """phi(W) of ECC, Eq. 2: the kept channels of each group, (groups,)."""
        return widths_of(self.kept(model))

    def keep_largest(self, model: nn.Module, widths: ArrayLike) -> list[Tensor]:
        """The `widths` (groups,) channels of largest norm in each group: bool (S,) each."""
        return [
            largest(norms, int(width))
            for norms, width in zip(self.norms(model), np.asarray(widths), strict=True)
        ]

    def keeping(self, channels: Sequence[Sequence[int]]) -> list[Tensor]:
        """The choice that keeps the channels of these numbers, for each group: bool (S,) each."""
        chosen = []
        for group, numbers in zip(self.structure.groups, channels, strict=True):
            kept = torch.zeros(group.width, dtype=torch.bool)
            kept[list(numbers)] = True
            chosen.append(kept)
        return chosen

    @torch.no_grad()
    def mask(self, model: nn.Module, keep: Sequence[Tensor]) -> None:
        """Zeroes in place every weight that reads a channel where `keep` is false."""
        for group, kept in enumerate(keep):
            self.mask_group(model, group, kept)

    @torch.no_grad()
    def mask_group(self, model: nn.Module, group: int, kept: Tensor) -> None:
        """The same of one group: `kept` is bool (S,)."""
        dropped = ~kept.cpu()
        if dropped.any():
            for reader in self.readers[group]:
                reader.zero(reader.weight(model), dropped)

    def first(self, widths: ArrayLike) -> list[Tensor]:
        """The choice of the first channels of every group, as many as `widths` (groups,).

        Raises UserError where a group has not as many.
        """
        found = []
        for group, width in zip(self.structure.groups, np.asarray(widths).tolist(), strict=True):
            if width > group.width:
                raise UserError(
                    f"channel group '{group.name}' has at most {group.width} channels, not {width}"
                )
            found.append(torch.arange(group.width, device="cpu") < width)
        return found

    def slim(self, model: nn.Module, keep: Sequence[Tensor]) -> nn.Module:
        """A copy of a masked `model` with the dropped channels physically removed.

        Raises UserError if a group would lose all its channels.
        """
        slimmed = copy.deepcopy(model)
        graph = _dependencies(slimmed, self.size, self.structure.image_channels)
        for group, kept in zip(self.structure.groups, keep, strict=True):
            dropped = torch.nonzero(~kept.cpu()).flatten().tolist()
            if len(dropped) == group.width:
                raise UserError(f"channel group '{group.name}' would lose all its channels")
            if dropped:
                layer = slimmed.get_submodule(group.name)
                graph.get_pruning_group(layer, _pruner(layer), idxs=dropped).prune()
        for parameter in slimmed.parameters():
            parameter.grad = None
        return slimmed


def largest(norms: Tensor, width: int) -> Tensor:
    """The choice of the `width` channels of largest norm (S,): bool (S,)."""
    chosen = torch.zeros(len(norms), dtype=torch.bool, device=norms.device)
    # A stable sort, so that equal norms choose the same channels everywhere.
    chosen[torch.sort(norms, descending=True, stable=True).indices[:width]] = True
    return chosen


def widths_of(keep: Sequence[Tensor]) -> NDArray[np.int64]:
    """Widths s (groups,) of a choice of channels."""
    return np.array([int(kept.sum()) for kept in keep], dtype=np.int64)


def trace(
    model: nn.Module, size: Pair, *, residual: str = "prune", image_channels: int = 3
) -> Channels:
    """Derives the channel groups and operations of `model` for images of `size` (height, width).

    The trace runs without arithmetic on the "meta" device. With `residual="keep"`, groups that
    several layers write (residual streams) keep their widths. Channels that nothing reads (the
    network's outputs), channels that share only part of a layer, and those of convolutions in
    groups are fixed as well. Raises UserError for a network that cannot be traced, that runs a
    layer more than once, or that has nothing to prune.
    """
    model = copy.deepcopy(model).to("meta").eval()
    names: dict[Any, str] = {module: name for name, module in model.named_modules()}
    names |= {parameter: name for name, parameter in model.named_parameters()}
    geometry = _geometry(model, size, image_channels)
    if not geometry:
        raise UserError("nothing to prune: the network has no convolution or fully connected layer")
    order = {names[layer]: position for position, layer in enumerate(geometry)}
    graph = _dependencies(model, size, image_channels)
    groups: list[Group] = []
    readers: list[list[Reader]] = []
    writes: dict[str, int] = {}
    seen: set[str] = set()
    for layer in geometry:
        if names[layer] in seen or is_depthwise(layer):
            continue
        found = _group_of(graph, layer, names)
        seen.update(found.writers)
        if found.whole and found.readers and (residual == "prune" or len(found.writers) == 1):
            for writer in found.writers:
                writes[writer] = len(groups)
            name = min(found.writers, key=order.__getitem__)
            groups.append(Group(name, found.width, len(found.vectors)))
            readers.append(found.readers)
    if not groups:
        raise UserError("nothing to prune: no layer's channels are read by another layer alone")
    operations = _operations(geometry, names, readers, writes)
    classes = _width(list(geometry)[-1])
    structure = Structure(tuple(groups), operations, image_channels, classes)
    fixed = sum(p.numel() for p in model.parameters()) - int(structure.parameters())
    return Channels(replace(structure, fixed_vectors=fixed), readers, size)


@dataclass
class _Coupled:
    """What vanishes with the output channels of one layer."""

    width: int
    writers: list[str]
    readers: list[Reader]
    vectors: set[str]
    whole: bool


def _group_of(graph: Any, layer: Layer, names: dict[Any, str]) -> _Coupled:
    width = _width(layer)
    found = _Coupled(width, [], [], set(), whole=True)
    columns: dict[tuple[str, int], dict[int, list[int]]] = {}
    for item in graph.get_pruning_group(layer, _pruner(layer), idxs=list(range(width))):
        module = item.dep.target.module
        if module not in names:
            continue
        if isinstance(module, nn.Parameter):  # of no layer, such as a learned scale of channels
            found.vectors.add(names[module])
            found.whole &= module.numel() == width
            continue
        outgoing = graph.is_out_channel_pruning_fn(item.dep.handler)
        if outgoing or not isinstance(module, LAYERS):
            found.vectors |= {
                f"{names[module]}.{name}"
                for name, parameter in module.named_parameters(recurse=False)
                if parameter.dim() == 1
            }
        if isinstance(module, LAYERS):
            depthwise = is_depthwise(module)
            # Channels of a convolution in groups could only go from all of its groups at once.
            found.whole &= depthwise or isinstance(module, nn.Linear) or module.groups == 1
            if outgoing and not depthwise:
                if names[module] not in found.writers:
                    found.writers.append(names[module])
                found.whole &= sorted(item.idxs) == list(range(_width(module)))
            else:
                # One reader may be reached over several paths: gather its columns as a set.
                dim = 0 if depthwise or isinstance(module, nn.ConvTranspose2d) else 1
                entries = columns.setdefault((names[module], dim), {})
                for index, root in zip(item.idxs, item.root_idxs, strict=True):
                    of_root = entries.setdefault(root, [])
                    if index not in of_root:
                        of_root.append(index)
        elif not isinstance(module, (nn.modules.batchnorm._BatchNorm,)):
            found.whole = False
    for (name, dim), entries in columns.items():
        rows = [sorted(entries.get(channel, [])) for channel in range(width)]
        if len({len(row) for row in rows}) == 1:
            found.readers.append(Reader(name, dim, torch.tensor(rows)))
        else:
            found.whole = False
    return found


def _operations(
    geometry: dict[Layer, tuple[Pair, Pair]],
    names: dict[nn.Module, str],
    readers: Sequence[Sequence[Reader]],
    writes: dict[str, int],
) -> tuple[Operation, ...]:
    reads: dict[str, list[tuple[int, Reader]]] = {}
    for index, group in enumerate(readers):
        for reader in group:
            reads.setdefault(reader.layer, []).append((index, reader))
    operations = []
    for layer, (in_size, out_size) in geometry.items():
        name = names[layer]
        of_layer = reads.get(name, [])
        columns = max([reader.index.shape[1] for _, reader in of_layer], default=1)
        entries = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
        read = sum(reader.index.numel() for _, reader in of_layer)
        convolution = None if isinstance(layer, nn.Linear) else layer
        depthwise = is_depthwise(layer)
        written = of_layer[0][0] if depthwise and of_layer else writes.get(name)
        operations.append(
            Operation(
                name=name,
                kind=_kind(layer),
                reads=tuple(group for group, _ in of_layer),
                writes=written,
                fixed_in=(entries - read) // columns,
                fixed_out=_width(layer) if written is None else 0,
                columns=columns,
                kernel=(1, 1) if convolution is None else _pair(convolution.kernel_size),
                stride=(1, 1) if convolution is None else _pair(convolution.stride),
                in_size=in_size,
                out_size=out_size,
                groups=1 if convolution is None or depthwise else convolution.groups,
                bias=layer.bias is not None,
            )
        )
    return tuple(operations)


def _geometry(model: nn.Module, size: Pair, image_channels: int) -> dict[Layer, tuple[Pair, Pair]]:
    """Every layer in the order of its call, with its input and output size (height, width)."""
    found: dict[Layer, tuple[Pair, Pair]] = {}

    def record(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if layer in found:
            again = next(name for name, module in model.named_modules() if module is layer)
            raise UserError(f"layer '{again}' runs more than once: use one layer for each")
        found[layer] = (_size(inputs[0]), _size(output))

    handles = [
        module.register_forward_hook(record)
        for module in model.modules()
        if isinstance(module, LAYERS)
    ]
    try:
        with torch.no_grad():
            model(torch.empty(1, image_channels, *size, device="meta"))
    except UserError:
        raise
    except Exception as error:
        raise _untraceable(size, error) from error
    finally:
        for handle in handles:
            handle.remove()
    return found


def _dependencies(model: nn.Module, size: Pair, image_channels: int) -> Any:
    device = next(model.parameters()).device
    example = torch.empty(1, image_channels, *size, device=device)
    training = model.training
    try:
        with torch.enable_grad():
            # A tuple: a bare tensor would be tried as one unbatched image first.
            graph = torch_pruning.DependencyGraph().build_dependency(model.eval(), (example,))
    except Exception as error:
        raise _untraceable(size, error) from error
    finally:
        model.train(training)
    return graph


def _untraceable(size: Pair, error: Exception) -> UserError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return UserError(f"the network cannot be traced at {size[0]}x{size[1]}: {reason}")


def _size(tensor: Tensor) -> Pair:
    return (int(tensor.shape[-2]), int(tensor.shape[-1])) if tensor.dim() == 4 else (1, 1)


def _pair(values: Sequence[int]) -> Pair:
    return int(values[0]), int(values[1])


def _width(layer: Layer) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _kind(layer: Layer) -> str:
    if isinstance(layer, nn.Linear):
        return "linear"
    if isinstance(layer, nn.ConvTranspose2d):
        return "transposed"
    return "depthwise" if is_depthwise(layer) else "conv"


def is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.groups == layer.out_channels > 1


def _is_depthwise_reader(model: nn.Module, reader: Reader) -> bool:
    return reader.dim == 0 and is_depthwise(model.get_submodule(reader.layer))


def _pruner(layer: nn.Module) -> Callable[..., Any]:
    if isinstance(layer, nn.Linear):
        function: Callable[..., Any] = torch_pruning.prune_linear_out_channels
    else:
        function = torch_pruning.prune_conv_out_channels
    return function
