"""Two processes on the CPU train what one does, and only the first of them writes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ecc import parallel, stopping
from ecc.checkpoints import read_tensors

ROOT = Path(__file__).parents[1]
# In a process of its own: forking one that has run torch's threads may hang.
PROGRAM = """
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

sys.path[:0] = ["{root}", "{root}/tests"]
from conftest import MemorySplit, TinyNetwork
from ecc import methods, parallel, runs
from ecc.channels import trace
from ecc.energy import BilinearGraph
from ecc.errors import UserError
from ecc.methods import Problem
from ecc.tasks import CLASSIFICATION
from ecc.training import TaskLoss, TrainingSettings, save_weights, train
import numpy as np

torch.set_num_threads(1)
SETTINGS = TrainingSettings(10, batch_size=9, learning_rate=5e-3, device="cpu", checkpoint_every=4)


def network(plain):
    torch.manual_seed(0)
    model = TinyNetwork()
    if plain:
        for index in (1, 4, 7):
            model.layers[index] = torch.nn.Identity()
    return model


def trained(settings, plain, path):
    model, loss = network(plain), TaskLoss(CLASSIFICATION)
    history = train(
        model, MemorySplit(), loss, settings, seed=3, checkpoint=path.with_suffix(".part")
    )
    save_weights(path, model)
    runs.write_csv(path.with_suffix(".csv"), history)


def compressed(settings, path):
    # In float64: Adam makes steps of a gradient that is nothing but rounding.
    dense = network(plain=True)
    channels = trace(dense, (8, 8))
    dense.double()
    energy = BilinearGraph(channels.structure, np.array([0.1, 1.0, 2.0, 3.0, 0.5]) * 1e-3)
    budget_j = 0.5 * float(energy.energy(channels.structure.full_widths))
    split = MemorySplit()
    split.images = split.images.double()
    problem = Problem(dense, channels, energy, budget_j, split, MemorySplit(32, 1), settings)
    # At a fixed pace: the automatic one orders groups whose prices are equal but for rounding.
    settings = {{"pace": "fixed", "beta": 3.0}}
    save_weights(path, methods.compress("ecc", problem, settings).model)


def refused():
    raise UserError("no, and why")


def both(folder):
    for processes in (1, 2):
        settings = replace(SETTINGS, processes=processes)
        for plain in (True, False):
            # One process: its batch norms see the same parts as the two do.
            parts = 1 if plain or processes == 2 else 2
            own = replace(settings, accumulate=parts)
            work = partial(trained, own, plain, folder / f"{{plain}}-{{processes}}.safetensors")
            parallel.launch(processes, "cpu", work)
        work = partial(compressed, settings, folder / f"ecc-{{processes}}.safetensors")
        parallel.launch(processes, "cpu", work)
    try:
        parallel.launch(2, "cpu", refused)
    except UserError as error:
        print(error)


both(Path(sys.argv[1]))
"""


# Trains for as long as nobody stops it.
STOPPED = """
import os, sys, time
from functools import partial
from pathlib import Path

import torch

sys.path[:0] = ["{root}", "{root}/tests"]
from conftest import MemorySplit, TinyNetwork
from ecc import parallel
from ecc.logs import job
from ecc.tasks import CLASSIFICATION
from ecc.training import TaskLoss, TrainingSettings, train

folder, launcher = Path(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)


class Slow:
    def __call__(self, iteration, optimizer):
        (folder / f"begun-{{parallel.place()[0]}}-{{os.getpid()}}").touch()
        time.sleep(0.01)
        return {{}}
    def state(self): return {{}}
    def restore(self, state): pass
    def __repr__(self): return "Slow"


def work():
    torch.manual_seed(0)
    settings = TrainingSettings(
        100_000, batch_size=8, device="cpu", checkpoint_every=100_000, processes=2
    )
    path = folder / "checkpoint.safetensors"
    train(TinyNetwork(), MemorySplit(), TaskLoss(CLASSIFICATION), settings, seed=0,
          update=Slow(), checkpoint=path)


if launcher == "gpus":  # the launcher for them, with processes on the CPU all the same
    torch.cuda.device_count = lambda: 2
with job(folder / "run.log"):
    parallel.launch(2, "auto" if launcher == "gpus" else "cpu", work)
"""


def begun(folder):
    """Process ids by their rank, once both train."""
    names = [path.name.split("-")[1:] for path in folder.glob("begun-*")]
    return {int(rank): int(pid) for rank, pid in names}


@pytest.mark.parametrize(
    ("launcher", "to"),
    [*(("cpu", to) for to in ("parent", "everyone", "first", "second")), ("gpus", "parent")],
)
def test_processes_that_one_signal_reaches_save_and_leave_together(tmp_path, launcher, to):
    said, iterations = tmp_path / "said", 0
    for life in ("first", "second"):  # which goes on from what the first has saved
        for mark in tmp_path.glob("begun-*"):
            mark.unlink()
        with said.open("w") as output:
            run = subprocess.Popen(
                [sys.executable, "-c", STOPPED.format(root=ROOT), str(tmp_path), launcher],
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        while len(begun(tmp_path)) < 2:
            assert run.poll() is None, said.read_text()[-2000:]
            time.sleep(0.05)
        children = begun(tmp_path)
        if to == "everyone":
            os.killpg(run.pid, signal.SIGTERM)
        else:
            os.kill({"parent": run.pid, "first": children[0], "second": children[1]}[to], 15)
        code = run.wait(timeout=60)
        if to in ("parent", "everyone"):
            assert code == 128 + signal.SIGTERM, said.read_text()[-2000:]
        else:  # of a job whose process is killed behind its back
            assert code
        assert not any(map(stopping.alive, children.values()))
        tensors, _ = read_tensors(tmp_path / "checkpoint.safetensors")
        assert iterations < len(tensors["history"]) < 100_000
        resumed = f"after {iterations} steps" in (tmp_path / "run.log").read_text()
        assert resumed is (life == "second")
        iterations = len(tensors["history"])


def test_a_signal_while_processes_agree_is_for_the_next_time(monkeypatch):
    told = []

    def all_reduce(number, _):
        told.append(int(number))
        stopping.ask(15)  # a signal to this process alone, when the others have its word already

    monkeypatch.setattr(stopping, "_asked", None)
    monkeypatch.setattr(parallel, "place", lambda: (1, 2))
    monkeypatch.setattr(parallel.distributed, "get_backend", lambda: "gloo")
    monkeypatch.setattr(parallel.distributed, "all_reduce", all_reduce)
    assert [parallel.asked(), parallel.asked()] == [False, True]
    assert told == [0, 15]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parallel")
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(root=ROOT), str(folder)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert found.returncode == 0, found.stderr[-2000:]
    return folder, found.stdout


@pytest.mark.parametrize("name", ["True", "False", "ecc"])
def test_two_processes_train_what_one_does(finished, name):
    one, two = (load_file(finished[0] / f"{name}-{count}.safetensors") for count in (1, 2))
    assert one.keys() == two.keys()
    for key, tensor in one.items():
        # Statistics of batch norms are means over processes, not one part after another.
        if "running" not in key and "num_batches" not in key:
            assert torch.allclose(tensor, two[key], atol=1e-5), key


def test_histories_and_zeros_are_the_same(finished):
    folder, _ = finished
    one, two = (load_file(folder / f"ecc-{count}.safetensors") for count in (1, 2))
    for key in one:
        assert torch.equal(one[key] == 0, two[key] == 0)
    first, second = ((folder / f"True-{n}.csv").read_text().splitlines() for n in (1, 2))
    assert len(first) == len(second) == 11
    losses = [[float(line.split(",")[1]) for line in lines[1:]] for lines in (first, second)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_nothing_is_left_but_what_the_first_wrote(finished):
    folder, _ = finished
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert len(list(folder.glob("*.safetensors"))) == 6


def test_an_error_of_the_user_comes_through_in_one_line(finished):
    assert finished[1].strip() == "no, and why"
