"""What lets a search go on after a kill: its state in one file, for methods that try candidates.

Trainings have checkpoints of their own (`ecc.training`); a search calls many, each too short to be
worth one.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ecc import runs, stopping
from ecc.errors import UserError
from ecc.methods.problem import Problem
from ecc.training import read_tensors

EVERY_S = 60.0
logger = logging.getLogger(__name__)

Rows = list[dict[str, float]]


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
        if not (at_once or due or stopping.asked()):
            return
        columns = list(history[0]) if history else []
        rows = [[row[column] for column in columns] for row in history]
        tensors = {
            **state(),
            "history": torch.tensor(rows, dtype=torch.float64),
            "effort": torch.tensor(astuple(self.problem.effort)),
        }
        metadata = {"columns": json.dumps(columns), "fingerprint": self.fingerprint}
        with runs.temporary(self.path) as draft:
            # Copies: safetensors takes neither shared storage nor channels that lie last.
            whole = {
                name: tensor.cpu().clone(memory_format=torch.contiguous_format)
                for name, tensor in tensors.items()
            }
            safetensors.torch.save_file(whole, draft, metadata)
        self.saved = time.monotonic()
        stopping.leave_if_asked()

    def restore(self) -> tuple[Rows, dict[str, Tensor]] | None:
        """History and tensors of this very search, if some were saved; the effort is put back."""
        if self.path is None or not self.path.exists():
            return None
        tensors, metadata = read_tensors(self.path)
        if metadata.get("fingerprint") != self.fingerprint:
            logger.warning("%s belongs to other settings: the search starts anew", self.path)
            return None
        try:
            columns = json.loads(metadata["columns"])
            rows = tensors.pop("history").tolist()
            told = [dict(zip(columns, row, strict=True)) for row in rows]
            seen, evaluations, evaluated = map(int, tensors.pop("effort").tolist())
        except (LookupError, ValueError, TypeError) as error:
            raise UserError(
                f"{self.path} is damaged: delete it, and the search begins anew"
            ) from error
        effort = self.problem.effort
        effort.images_seen, effort.evaluations, effort.images_evaluated = (
            seen,
            evaluations,
            evaluated,
        )
        logger.info("resumed from %s after %d steps", self.path, len(rows))
        return told, tensors

    def of_training(self) -> Path | None:
        """Where the training that follows a search keeps its own."""
        return self.path and self.path.with_stem(f"{self.path.stem}-last")


def _fingerprint(problem: Problem, settings: object) -> str:
    """Of everything that decides a search: the state of another one must not be used."""
    training = asdict(problem.training)
    for key in ("device", "checkpoint_every"):
        training.pop(key)
    splits = [
        (len(split), split.task, getattr(split, "fingerprint", ""))
        for split in (problem.train, problem.holdout)
    ]
    full, smallest = problem.full_widths, problem.smallest
    prices: Sequence[float] = problem.energy.gradient(full.astype(float)).tolist()
    told = (settings, training, problem.seed, splits, smallest.tolist(), prices)
    energies = problem.budget_j, problem.joules(full), problem.joules(smallest)
    given = hashlib.sha256(repr((told, energies)).encode())
    for tensor in problem.dense.state_dict().values():
        given.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return given.hexdigest()
