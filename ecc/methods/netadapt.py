"""NetAdapt (Yang et al., ECCV 2018), with energy as the resource, as the ECC authors compare it.

Each round lowers the target energy; every channel group alone is narrowed until the target is met,
its network briefly trained and measured on hold-out images, and the best candidate goes on.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Adam

from ecc.channels import largest, widths_of
from ecc.errors import UserError, require
from ecc.methods.checkpoint import Checkpoint
from ecc.methods.problem import Compressed, FixedZeros, Problem, evenly
from ecc.training import adam, evaluate, pack, train, unpack

SCHEDULES = ("geometric", "original")
SELECTIONS = ("accuracy", "accuracy_per_energy")


@dataclass(frozen=True)
class Settings:
    """`schedule` "geometric": R_i = decay R_(i-1), as the ECC authors; "original": R_i = R_(i-1) -
    reduction dense decay^(i-1), as NetAdapt's. `selection`: highest hold-out accuracy, or smallest
    loss of it per joule saved, as NetAdapt's code.
    """

    schedule: str = "geometric"
    decay: float = 0.96
    reduction: float = 0.025
    selection: str = "accuracy"

    def __post_init__(self) -> None:
        for key, known in (("schedule", SCHEDULES), ("selection", SELECTIONS)):
            if getattr(self, key) not in known:
                value = getattr(self, key)
                raise UserError(f"methods.netadapt.{key} '{value}': known are {', '.join(known)}")
        require(
            self,
            "methods.netadapt.",
            decay=0 < self.decay < 1,
            reduction=0 < self.reduction <= 1,
        )


@dataclass(frozen=True)
class _Candidate:
    """A network on the way. Without iterations of its own, `model` is still that of the round."""

    group: int
    model: nn.Module
    optimizer: Adam
    keep: list[Tensor]
    accuracy: float
    energy_j: float


def compress(problem: Problem, settings: Settings) -> Compressed:
    """Narrows one group a round until the budget is met.

    The iterations are divided over rounds x groups so that all candidates of a round, which are
    compared, train equally; what cannot be shared out so, and what candidates that drop out leave
    over, trains the final network.
    """
    channels, full = problem.channels, problem.full_widths
    targets = list(_targets(problem, settings))
    left = problem.training.iterations
    shares = list(evenly(left // len(full), len(targets)))  # iterations of a step's candidates
    model = problem.student()
    now = _Candidate(
        group=-1,
        model=model,
        optimizer=adam(model, problem.training),
        keep=channels.keep_largest(model, full),
        accuracy=evaluate(model, problem.holdout, device=problem.training.device),
        energy_j=problem.joules(full),
    )
    rows: list[dict[str, float]] = []
    with Checkpoint(problem, settings) as checkpoint:
        if saved := checkpoint.restore():
            rows, tensors = saved
            now = _restored(now, rows, tensors) if rows else now  # none where dense is the budget
            left = int(tensors["left"])
        for number, target in enumerate(targets):
            while now.energy_j > target:
                norms = channels.norms(now.model)
                proposals = _proposals(problem, widths_of(now.keep), target)
                share = shares[len(rows)] if len(rows) < len(shares) else 0
                left -= share * len(proposals)
                candidates = (
                    _candidate(problem, now, norms, group, widths, share, number)
                    for group, widths in proposals
                )
                now = max(candidates, key=partial(_score, settings, now))
                channels.mask(now.model, now.keep)
                row = {"round": number, "group": now.group}
                rows.append({**row, "energy_j": now.energy_j, "holdout_accuracy": now.accuracy})
                checkpoint.save(rows, partial(_state, now, left))
        checkpoint.save(rows, partial(_state, now, left), at_once=True)
        last = checkpoint.of_training()
        _train_masked(problem, now.model, now.optimizer, now.keep, left, len(targets), last)
    columns = ["round", "group", "energy_j", "holdout_accuracy"]
    history = pd.DataFrame(rows, columns=columns).astype({"round": int, "group": int})
    return Compressed(now.model, now.keep, history, problem.training.iterations)


def _state(now: _Candidate, left: int) -> dict[str, Tensor]:
    """What a checkpoint needs besides the history; `left` are iterations."""
    keep = {f"keep.{group}": kept for group, kept in enumerate(now.keep)}
    return {**pack(now.model, now.optimizer), **keep, "left": torch.tensor(left)}


def _restored(
    start: _Candidate, rows: list[dict[str, float]], tensors: Mapping[str, Tensor]
) -> _Candidate:
    unpack(start.model, start.optimizer, tensors)
    return replace(
        start,
        group=int(rows[-1]["group"]),
        keep=[tensors[f"keep.{group}"].to(kept) for group, kept in enumerate(start.keep)],
        accuracy=rows[-1]["holdout_accuracy"],
        energy_j=rows[-1]["energy_j"],
    )


def _targets(problem: Problem, settings: Settings) -> Iterator[float]:
    """Target energies in joules, one a round; the last is the budget."""
    dense = target = problem.joules(problem.full_widths)
    round_number = 0
    while target > problem.budget_j:
        if settings.schedule == "geometric":
            target *= settings.decay
        else:
            step = settings.reduction * dense * settings.decay**round_number
            # The steps sum to a finite reach; a floor keeps every budget within it.
            target -= max(step, 1e-3 * dense)
        target = max(target, problem.budget_j)
        round_number += 1
        yield target


def _proposals(
    problem: Problem, widths: NDArray[np.int64], target: float
) -> list[tuple[int, NDArray[np.int64]]]:
    """Each group alone narrowed just enough for the target.

    Groups that cannot reach it are left out, as published; where none can, each that saves energy
    at its smallest width is proposed there (all, if none does), and the round takes another step.
    """
    now_j, reaching, saving, smallest = problem.joules(widths), [], [], []
    for group, (width, bound) in enumerate(zip(widths, problem.smallest, strict=True)):
        if width == bound:
            continue
        trials = np.repeat(widths[None], width - bound, axis=0)
        trials[:, group] = np.arange(bound, width)
        energy_j = problem.energy.energy(trials)
        smallest.append((group, trials[0]))
        if energy_j[0] < now_j * (1 - 1e-9):  # beyond rounding, which no joule is saved by
            saving.append((group, trials[0]))
        inside = np.flatnonzero(energy_j <= target)
        if len(inside):
            reaching.append((group, trials[inside[-1]]))
    return reaching or saving or smallest


def _candidate(
    problem: Problem,
    now: _Candidate,
    norms: list[Tensor],
    group: int,
    widths: NDArray[np.int64],
    iterations: int,
    round_number: int,
) -> _Candidate:
    """`now` with one group narrowed to its width of `widths`; `norms` are those of its channels."""
    model, optimizer, keep = now.model, now.optimizer, [*now.keep]
    keep[group] = largest(norms[group], int(widths[group]))
    if iterations:
        # Copied together: Adam's moments are carried on, or its first steps would all be full ones.
        model, optimizer = copy.deepcopy((model, optimizer))
        _train_masked(problem, model, optimizer, keep, iterations, round_number)
        accuracy = evaluate(model, problem.holdout, device=problem.training.device)
    else:
        accuracy = _score_of_masked(problem, model, group, keep[group])
    return _Candidate(group, model, optimizer, keep, accuracy, problem.joules(widths))


def _score_of_masked(problem: Problem, model: nn.Module, group: int, kept: Tensor) -> float:
    """Of the network with fewer channels in a group. It stays as it is: faster than a copy."""
    weights = [reader.weight(model).data for reader in problem.channels.readers[group]]
    before = [weight.clone() for weight in weights]
    problem.channels.mask_group(model, group, kept)
    accuracy = evaluate(model, problem.holdout, device=problem.training.device)
    for weight, old in zip(weights, before, strict=True):
        weight.copy_(old)
    return accuracy


def _train_masked(
    problem: Problem,
    model: nn.Module,
    optimizer: Adam,
    keep: list[Tensor],
    iterations: int,
    round_number: int,
    checkpoint: Path | None = None,
) -> None:
    mask = FixedZeros(problem.channels, model, keep)
    if iterations:
        train(
            model,
            problem.train,
            problem.distillation(),
            replace(problem.training, iterations=iterations),
            # All candidates of a round see the same batches.
            seed=problem.seed + 7919 * (round_number + 1),
            optimizer=optimizer,
            update=mask,
            checkpoint=checkpoint,
            description=f"netadapt round {round_number}",
        )


def _score(settings: Settings, now: _Candidate, candidate: _Candidate) -> float:
    if settings.selection == "accuracy":
        return candidate.accuracy
    saved_j = now.energy_j - candidate.energy_j
    return (candidate.accuracy - now.accuracy) / saved_j if saved_j > 0 else -np.inf
