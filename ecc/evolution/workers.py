"""Evaluating genomes in processes of their own."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

from ecc.evolution.evaluation import Evaluator
from ecc.evolution.genome import Genes
from ecc.evolution.study import Evaluate

_evaluator: Evaluator  # of a worker process


@contextmanager
def workers(own: Evaluator, make: Callable[[], Evaluator], count: int) -> Iterator[Evaluate]:
    """A function from genomes to their rows, evaluated by `count` processes; by `own` if 1.

    `make` is called once in every other process; it must be a function that can be pickled.
    """
    if count == 1:
        yield lambda genomes: map(own.row, genomes)
        return
    # Spawned: a forked process inherits torch's threads in no usable state.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, _start, (make, os.getpid())) as pool:
        yield lambda genomes: pool.map(_row, genomes)


def _start(make: Callable[[], Evaluator], parent: int) -> None:
    global _evaluator
    torch.set_num_threads(1)
    threading.Thread(target=_stop_with, args=(parent,), daemon=True).start()
    _evaluator = make()


def _row(genes: Genes) -> dict[str, Any]:
    return _evaluator.row(genes)


def _stop_with(parent: int) -> None:
    """A pool whose process is killed outright would leave its workers waiting for ever."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
