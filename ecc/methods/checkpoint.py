"""What lets a search go on after a kill: its state in one file, for methods that try candidates.

Trainings have checkpoints of their own (`ecc.training`); a search calls many, each too short to be
worth one.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ecc import checkpoints, parallel, stopping
from ecc.checkpoints import Rows
from ecc.methods.problem import Binding, Limit, Problem
from ecc.training import identity_of_split

EVERY_S = 60.0
PRICED = 16  # widths at random whose energy tells one model from another


class Checkpoint:
    """The state of a search: tensors, its history, and the effort so far of the problem.

    As a context it lets a signal wait for the next `save`, which then ends the process. Where the
    problem asks for no checkpoint, nothing is written.
    """

    def __init__(self, problem: Problem, settings: object):
        self.problem, self.path = problem, problem.checkpoint
        self.fingerprint = _fingerprint(problem, settings) if self.path else ""
        self.saved, self.stack = time.monotonic(), ExitStack()

    def __enter__(self) -> "Checkpoint":
        self.stack.enter_context(stopping.deferred(self.path is not None))
        return self

    def __exit__(self, *error: Any) -> None:
        self.stack.__exit__(*error)

    def save(
        self, history: Rows, state: Callable[[], Mapping[str, Tensor]], *, at_once: bool = False
    ) -> None:
        """Writes what the search has, where the last time is a minute ago or the job is to end.

        All rows of `history` have the same keys; `state` is called where it is needed.
        """
        if self.path is None:
            return
        due = time.monotonic() - self.saved >= EVERY_S
        if not ((asked := parallel.asked()) or at_once or due):
            return
        effort = {"effort": torch.tensor(astuple(self.problem.effort))}
        checkpoints.write(self.path, self.fingerprint, history, {**state(), **effort})
        self.saved = time.monotonic()
        if asked:
            parallel.leave()

    def restore(self) -> tuple[Rows, dict[str, Tensor]] | None:
        """History and tensors of this very search, if some were saved; the effort is put back."""
        if self.path is None:
            return None
        saved = checkpoints.read(self.path, self.fingerprint, "the search")
        if saved is not None:
            effort, counts = self.problem.effort, saved[1].pop("effort").tolist()
            effort.images_seen, effort.evaluations, effort.images_evaluated = counts
        return saved

    def of_training(self) -> Path | None:
        """Where the training that follows a search keeps its own."""
        return self.path and self.path.with_stem(f"{self.path.stem}-last")


def _fingerprint(problem: Problem, settings: object) -> str:
    """Of everything that decides a search: the state of another one must not be used."""
    training, splits = problem.training.deciding, (problem.train, problem.holdout)
    data = [identity_of_split(split) for split in splits]
    told = checkpoints.LIBRARY, settings, training, problem.seed, data, priced(problem)
    return checkpoints.digest((told, checkpoints.identity(problem.dense)), {})


def priced(problem: Problem) -> list[Any]:
    """Widths, full and smallest first, and of every budget its name, value, and what they take.

    Two energy models that agree on all of them count as one.
    """
    full, smallest = problem.full_widths, problem.smallest
    between = np.random.default_rng(0).integers(smallest, full + 1, (PRICED, len(full)))
    widths = np.concatenate([full[None], smallest[None], between])
    own = Limit("energy", problem.energy, problem.budget_j)
    several = problem.energy.limits if isinstance(problem.energy, Binding) else None
    limits = several or (own, *problem.limits)
    told = [
        (limit.name, limit.budget, np.asarray(limit.model.energy(widths)).tolist())
        for limit in limits
    ]
    return [widths.tolist(), problem.budget_j, told]
