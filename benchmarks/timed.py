"""A split of a dataset that times the steps of a training."""

from collections.abc import Callable, Iterator
from itertools import islice

from torch import Tensor

from ecc.tasks import Task

Batch = tuple[Tensor, Tensor]


class TimedSplit:
    """Batches of `draw`; `seconds`, by `clock`, from when one is there until the next is asked for.

    A step and its update are over then, on a GPU too: a training reads the loss of every step.
    """

    def __init__(
        self,
        classes: int,
        task: Task,
        batch_size: int,
        draw: Callable[[], Batch],
        clock: Callable[[], float],
    ) -> None:
        self.classes, self.task, self.batch_size = classes, task, batch_size
        self.draw, self.clock = draw, clock
        self.seconds: list[float] = []

    def __len__(self) -> int:
        return self.batch_size

    def batches(self, batch_size: int, seed: int, start: int = 0) -> Iterator[Batch]:
        while True:
            batch = self.draw()
            begun = self.clock()
            yield batch
            self.seconds.append(self.clock() - begun)

    def ordered(self, batch_size: int) -> Iterator[Batch]:
        return islice(self.batches(batch_size, 0), 1)
