"""EAP, energy-aware pruning (Yang, Chen, Sze, CVPR 2017), of channels and under a budget.

Rounds in which the output error that may be made grows. In each, channel groups are pruned in order
of their energy, highest first: the channels of smallest norm go, those come back that most reduce
||Y_hat - X A||_1 (Y_hat of the dense network, X of the partly pruned one), and least squares refits
the layers that read what is left. It ends within a round, where the budget is met; the iterations
that are left train the network with its zeros fixed. `ecc.finegrained` prunes single weights.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ecc.channels import Reader, widths_of
from ecc.errors import require
from ecc.methods.problem import Compressed, FixedZeros, Problem
from ecc.methods.reconstruction import least_squares
from ecc.methods.recording import Recorder
from ecc.training import train

Array = NDArray[np.float32]
# Outputs of candidates that restoration compares, which bounds time and memory: those of the first
# samples, 16 at least. Least squares sees all samples.
VALUES = 2**21


@dataclass(frozen=True)
class Settings:
    """`removed` of a group's channels go at a time, before some of them are restored.

    `tolerance` is the output error, relative to the output's mean deviation, at which restoration
    ends; it grows by `growth` each round. `ridge` of least squares is relative to the mean squared
    input. Errors are measured on `images` training images, whose batches count as iterations, at
    `positions` of each.
    """

    removed: float = 0.5
    tolerance: float = 0.1
    growth: float = 1.5
    ridge: float = 0.3
    images: int = 256
    positions: int = 4

    def __post_init__(self) -> None:
        require(
            self,
            "methods.eap.",
            removed=0 < self.removed < 1,
            tolerance=self.tolerance > 0,
            growth=self.growth >= 1.05,  # nearer to 1 there would be thousands of rounds
            ridge=self.ridge > 0,
            images=self.images >= 1,
            positions=self.positions >= 1,
        )


def compress(problem: Problem, settings: Settings) -> Compressed:
    """Prunes channels until the budget is met, then trains for the iterations that are left."""
    pruning = _Pruning(problem, settings)
    history = pd.DataFrame(pruning.rounds())
    if left := problem.training.iterations - pruning.batches:
        train(
            pruning.model,
            problem.train,
            problem.distillation(),
            replace(problem.training, iterations=left),
            seed=problem.seed + 1,  # other batches than those that errors were measured on
            update=FixedZeros(problem.channels, pruning.model, pruning.keep),
            checkpoint=problem.checkpoint,
            description="eap",
        )
    return Compressed(pruning.model, pruning.keep, history, problem.training.iterations)


def restoration(
    parts: Array, residual: Array, *, until: float, most: int
) -> tuple[list[int], list[float]]:
    """Greedy choice of what to restore: each time what reduces the output error most.

    `parts` (candidates, N) is what each adds to the outputs, `residual` (N,) what these lack
    without all candidates; the error is the L1 norm. Ends at an error of `until`, at `most`
    candidates, and where none reduces it. Returns the chosen in their order, and the errors
    before the first and after each.
    """
    parts, where = parts.copy(), list(range(len(parts)))
    chosen: list[int] = []
    errors = [float(np.abs(residual).sum())]
    while where and len(chosen) < most and errors[-1] > until:
        differences = residual - parts[: len(where)]
        after = np.abs(differences, out=differences).sum(axis=1)
        best = int(after.argmin())
        if after[best] >= errors[-1]:
            break
        residual = residual - parts[best]
        errors.append(float(after[best]))
        chosen.append(where[best])
        # The last candidate moves into the gap, so that those left lie together.
        where[best], parts[best] = where[-1], parts[len(where) - 1]
        where.pop()
    return chosen, errors


class _Pruning:
    """A model that loses channels; `batches` of training images were looked at."""

    def __init__(self, problem: Problem, settings: Settings):
        self.problem, self.settings, self.batches = problem, settings, 0
        self.model = problem.student()
        self.keep = [torch.ones(int(width), dtype=torch.bool) for width in problem.full_widths]

    def rounds(self) -> Iterator[dict[str, float]]:
        """Prunes until the budget is met; yields what the history holds of each group."""
        if self._joules() <= self.problem.budget_j:
            return
        recorder = self._recorder()
        readers = [_refitted(self.model, group) for group in self.problem.channels.readers]
        names = sorted({reader.layer for group in readers for reader in group})
        dense = {name: recorder.outputs(self.problem.dense, name) for name in names}
        tolerance, number = self.settings.tolerance, 0
        while True:
            for group in self._order():
                layers = [
                    _Reading(self.model, reader, recorder, dense[reader.layer])
                    for reader in readers[group]
                ]
                error = self._prune(group, layers, tolerance)
                energy_j = self._joules()
                yield {
                    "round": number,
                    "group": group,
                    "width": int(self.keep[group].sum()),
                    "tolerance": tolerance,
                    "output_error": error,
                    "energy_j": energy_j,
                }
                if energy_j <= self.problem.budget_j:
                    return
            tolerance, number = tolerance * self.settings.growth, number + 1

    def _joules(self) -> float:
        return self.problem.joules(widths_of(self.keep))

    def _recorder(self) -> Recorder:
        training = self.problem.training
        wanted = -(-self.settings.images // training.batch_size)
        self.batches = min(wanted, training.iterations)
        stream = self.problem.train.batches(training.batch_size, self.problem.seed)
        images = [next(stream)[0] for _ in range(self.batches)]
        return Recorder(images, self.settings.positions, seed=self.problem.seed)

    def _order(self) -> list[int]:
        """Groups that can be narrowed, by the energy that this can save, highest first.

        Those that save nothing are left out where others save something.
        """
        widths, smallest = widths_of(self.keep), self.problem.smallest
        trials = np.where(np.eye(len(widths), dtype=bool), smallest, widths)
        savings = self._joules() - self.problem.energy.energy(trials)
        able = [int(g) for g in np.argsort(-savings, kind="stable") if widths[g] > smallest[g]]
        return [group for group in able if savings[group] > 0] or able

    def _prune(self, group: int, layers: Sequence["_Reading"], tolerance: float) -> float:
        """Prunes a group and refits the layers that read it; returns their output error after."""
        now, least = int(self.keep[group].sum()), int(self.problem.smallest[group])
        width = max(least, now - max(1, int(self.settings.removed * now)))
        removed = self._by_norm(group)[width:now]
        inside = self._inside(group, np.arange(width, now + 1))
        parts, residual, scale = _outputs(layers, removed)
        until = 0.0 if inside[0] else tolerance * scale
        chosen, errors = restoration(parts, residual, until=until, most=now - width)
        count = int(np.sum(np.array(errors[:-1]) > tolerance * scale))
        if inside[count]:
            # The whole budget is used: those that lower no error by themselves follow by norm.
            chosen += [index for index in range(len(removed)) if index not in chosen]
            count = int(np.flatnonzero(inside)[-1])
        self.keep[group][removed] = False
        self.keep[group][removed[chosen[:count]]] = True
        self.problem.channels.mask(self.model, self.keep)
        return float(np.mean([layer.refit(self.settings.ridge) for layer in layers] or [0.0]))

    def _by_norm(self, group: int) -> NDArray[np.int64]:
        """Channels of a group, the kept ones first and by their norm, largest first."""
        norms = self.problem.channels.norms(self.model)[group].cpu()
        ranked = norms.where(self.keep[group], torch.tensor(-1.0))
        return torch.sort(ranked, descending=True, stable=True).indices.numpy()

    def _inside(self, group: int, widths: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the budget is met with each of `widths` of one group: (n,)."""
        trials = np.repeat(widths_of(self.keep)[None], len(widths), axis=0)
        trials[:, group] = widths
        inside: NDArray[np.bool_] = self.problem.energy.energy(trials) <= self.problem.budget_j
        return inside


def _refitted(model: nn.Module, readers: Sequence[Reader]) -> list[Reader]:
    """Those of a group's readers whose outputs are compared: ungrouped, and not transposed."""
    return [
        reader
        for reader in readers
        if reader.dim == 1 and getattr(model.get_submodule(reader.layer), "groups", 1) == 1
    ]


def _outputs(
    layers: Sequence["_Reading"], removed: NDArray[np.int64]
) -> tuple[Array, Array, float]:
    """What `restoration` compares, of all layers that read a group, one after another.

    What each removed channel adds (removed, N), what all others leave (N,), and the sum of absolute
    deviations of the dense network's outputs from their means. Nothing (N = 0) where no layer is
    compared, and where these outputs do not vary: no error can be relative to them.
    """
    nothing = np.zeros((len(removed), 0), np.float32), np.zeros(0, np.float32), 0.0
    if not layers:
        return nothing
    filters = sum(layer.targets.shape[1] for layer in layers)
    rows = max(16, VALUES // (len(removed) * filters))
    targets = [layer.targets[:rows] for layer in layers]
    scale = float(sum(np.abs(y - y.mean(axis=0)).sum() for y in targets))
    if scale == 0:
        return nothing
    parts = np.concatenate([layer.parts(removed, rows) for layer in layers], axis=1)
    lacking = [layer.residual()[:rows].ravel() for layer in layers]
    return parts, np.concatenate(lacking) + parts.sum(axis=0), scale


class _Reading:
    """A layer that reads a group: X (n, k) as it is now, A (k, d), Y_hat (n, d) of the dense."""

    def __init__(self, model: nn.Module, reader: Reader, recorder: Recorder, targets: Array):
        self.weight, self.targets = reader.weight(model).detach(), targets
        self.inputs = recorder.inputs(model, reader.layer)[0]
        self.filters = _filters(self.weight)
        area = self.weight[0, 0].numel()
        entries = reader.index.numpy()[:, :, None] * area + np.arange(area)
        self.entries = entries.reshape(len(entries), -1)  # rows of A that read each channel

    def parts(self, channels: NDArray[np.int64], rows: int) -> Array:
        """What each of some channels adds to the outputs: (channels, rows * d)."""
        return np.stack(
            [
                (self.inputs[:rows, entries] @ self.filters[entries]).ravel()
                for entries in self.entries[channels]
            ]
        )

    def residual(self) -> Array:
        """Y_hat - X A: (n, d)."""
        lacking: Array = self.targets - self.inputs @ self.filters
        return lacking

    def refit(self, ridge: float) -> float:
        """Least squares on the nonzero part of A; returns the relative squared error after it."""
        filters = _filters(self.weight)
        support = filters.any(axis=1)
        inputs, start = (v.astype(np.float64) for v in (self.inputs[:, support], filters[support]))
        projected = inputs.T @ self.targets.astype(np.float64)
        filters[support] = least_squares(inputs.T @ inputs, projected, start, ridge)
        self.weight.copy_(torch.from_numpy(filters.T.copy()).view_as(self.weight))
        self.filters = filters
        scale = np.square(self.targets - self.targets.mean(axis=0)).sum()
        return float(np.square(self.residual()).sum() / max(scale, 1e-12))


def _filters(weight: Tensor) -> Array:
    """A (k, d) of a weight (d, ...): a copy."""
    filters: Array = np.array(weight.flatten(1).cpu().numpy().T)
    return filters
