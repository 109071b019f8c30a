"""What the compression part adds to a training step of ECC.

    OMP_NUM_THREADS=1 python -m benchmarks.ecc_step

Full-width MobileNet, 1000 classes, 64x64 images, batch 64, one thread, with distillation. One
training takes plain steps and steps with ECC's solver in turn. Two trainings side by side would
not do: two copies of the same network differ by up to 8 % in speed, by where they lie in memory.
Seconds are the thread's own, which do not count while another process has the core.

Prints one JSON line: `ratio` is the median of ECC's steps over the mean of the plain steps before
and after each. Half a minute on one core.
"""

import argparse
import json
from dataclasses import replace
from time import thread_time

import numpy as np
import torch
from torch.optim import Optimizer

from benchmarks.timed import TimedSplit
from ecc import energy, provenance
from ecc.methods import Problem
from ecc.methods.ecc import Settings, Solver
from ecc.networks import Network
from ecc.platforms import Deployed, get
from ecc.tasks import CLASSIFICATION
from ecc.training import TrainingSettings, train

CLASSES, SIZE, BATCH, WARM_UP = 1000, (64, 64), 64, 6


class EverySecond:
    """Calls ECC's solver after every second step: 1, 3, 5, ..."""

    def __init__(self, solver: Solver):
        self.solver = solver
        self.state, self.restore = solver.state, solver.restore

    def __call__(self, iteration: int, optimizer: Optimizer) -> dict[str, float]:
        return self.solver(iteration // 2, optimizer) if iteration % 2 else {}


def main() -> None:
    parser = argparse.ArgumentParser(description="time of an ECC step over that of a plain step")
    parser.add_argument("--steps", type=int, default=30, help="steps of ECC after the warm-up")
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = Network("mobilenet", CLASSES, size=SIZE)
    platform = get("jetson_tx2")
    samples = energy.sample(platform, Deployed(network.structure), 500, seed=0).samples
    widths, joules = samples.filter(like="width_").to_numpy(), samples["energy_j"].to_numpy()
    model, _ = energy.fit(
        "bilinear_graph", "nnls", network.structure, widths, joules, {}, test=(widths, joules)
    )
    # The pace of a long run: the budget is not met, and the solver stays active, to the end.
    training = TrainingSettings(iterations=1000, batch_size=BATCH, device="cpu")
    batch = torch.randn(BATCH, 3, *SIZE), torch.randint(CLASSES, (BATCH,))  # the same at every step
    split = TimedSplit(CLASSES, CLASSIFICATION, BATCH, lambda: batch, thread_time)
    budget_j = 0.3 * float(model.energy(network.full_widths))
    problem = Problem(network.build(), network.channels, model, budget_j, split, split, training)
    student = problem.student()
    solver = Solver(problem, student, Settings())
    # From a plain step to a plain step; a step is timed when the next begins, so one more.
    training = replace(training, iterations=WARM_UP + 2 * steps + 2)
    update = EverySecond(solver)
    train(student, split, problem.distillation(), training, seed=0, update=update)
    if solver.keep is not None:
        raise SystemExit("the solver met its budget: take fewer steps")
    timed = np.array(split.seconds[WARM_UP:])
    plain, with_ecc = timed[::2], timed[1::2]
    result = {
        "ratio": float(np.median(with_ecc / ((plain[:-1] + plain[1:]) / 2))),
        "ecc_step_s": float(np.median(with_ecc)),
        "plain_step_s": float(np.median(plain)),
        "steps": steps,
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
