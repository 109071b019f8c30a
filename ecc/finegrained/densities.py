"""How much of a network is zero: its weights, and what its layers read."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ecc.methods.recording import layer_of


@torch.no_grad()
def densities(
    model: nn.Module, names: Sequence[str], batches: Iterable[Tensor]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Part of the weights and of the inputs of layers that is not zero: two (layers,).

    Inputs are those of batches of images (batch, channels, height, width).
    """
    model.eval()
    device = next(model.parameters()).device
    with _counting(model, names) as counts:
        for images in batches:
            model(images.to(device))
    weights = [float((layer_of(model, name).weight != 0).double().mean()) for name in names]
    return np.array(weights), np.array([nonzero / total for nonzero, total in counts.values()])


@contextmanager
def _counting(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, list[float]]]:
    counts: dict[str, list[float]] = {name: [0.0, 0.0] for name in names}

    def count(name: str, given: tuple[Tensor, ...]) -> None:
        counts[name][0] += float((given[0] != 0).sum())
        counts[name][1] += given[0].numel()

    handles = [
        layer_of(model, name).register_forward_pre_hook(
            lambda _, given, name=name: count(name, given)
        )
        for name in names
    ]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()
