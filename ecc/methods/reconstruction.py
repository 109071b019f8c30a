"""Refits the layers that read pruned groups by least squares, as channel pruning and AMC do.

He, Zhang, Sun, Channel Pruning, ICCV 2017, Eq. 2: with the channels of a group chosen, the weights
that read them minimise ||Y - X W||^2 over samples of what the dense network reads (X) and writes
(Y). Kept as Gram matrices, so that any choice of channels is one small solve.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from torch import Tensor, nn

from ecc.channels import Channels
from ecc.methods.recording import Recorder

Wide = NDArray[np.float64]
RIDGE = 1e-3  # of the mean of the Gram matrix's diagonal


class Reconstruction:
    """Gram matrices of all layers that read prunable groups, of the dense network.

    Left as they are: depthwise, grouped and transposed layers, layers of several groups'
    channels, and those with more weights a filter than samples, which leave the weights open.
    """

    def __init__(self, channels: Channels, dense: nn.Module, recorder: Recorder | None):
        self.systems: dict[str, tuple[Tensor, int, Wide, Wide]] = {}
        if recorder is None:
            return
        read = [reader.layer for group in channels.readers for reader in group]
        open_ones = {
            reader.layer: (reader.index, group)
            for group, readers in enumerate(channels.readers)
            for reader in readers
            if reader.dim == 1
            and getattr(dense.get_submodule(reader.layer), "groups", 1) == 1
            and read.count(reader.layer) == 1
        }
        images = sum(map(len, recorder.batches))
        for batch, seen in zip(
            recorder.batches, recorder.by_batch(dense, list(open_ones)), strict=True
        ):
            for name, (inputs, outputs) in seen.items():
                if len(inputs) * images < inputs.shape[1] * len(batch):
                    continue
                x, y = inputs.astype(np.float64), outputs.astype(np.float64)
                _, _, gram, projected = self.systems.get(name, (None, None, 0.0, 0.0))
                self.systems[name] = (*open_ones[name], gram + x.T @ x, projected + x.T @ y)

    @torch.no_grad()
    def refit(self, model: nn.Module, keep: Sequence[Tensor]) -> None:
        """Refits in place the layers of a masked model whose inputs lost channels."""
        for name, (index, group, gram, projected) in self.systems.items():
            kept = keep[group]
            if bool(kept.all()):
                continue
            weight = model.get_parameter(f"{name}.weight")
            area = weight[0, 0].numel()
            entries = (index[kept].flatten()[:, None] * area + torch.arange(area)).flatten()
            flat = weight.flatten(1).clone()
            chosen = entries.to(weight.device)
            start = flat[:, chosen].T.double().cpu().numpy()
            rows = entries.numpy()
            solved = least_squares(gram[np.ix_(rows, rows)], projected[rows], start)
            flat[:, chosen] = torch.from_numpy(solved.T.copy()).to(weight)
            weight.copy_(flat.view_as(weight))


def least_squares(gram: Wide, projected: Wide, weights: Wide, ridge: float = RIDGE) -> Wide:
    """W (k, d) that minimises ||Y - X W||^2 + penalty ||W - weights||^2, of X^T X and X^T Y.

    The penalty, `ridge` of the mean of the Gram matrix's diagonal, holds inputs that are always
    zero, or depend on others, at the weights they had; and with it ||Y - X W|| never grows.
    """
    system = gram.copy()
    system[np.diag_indices_from(system)] += ridge * np.trace(gram) / len(gram) + 1e-12
    step = cho_solve(cho_factor(system, overwrite_a=True), projected - gram @ weights)
    return np.asarray(weights + step)
