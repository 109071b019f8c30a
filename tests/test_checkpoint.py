"""Searches that are killed, or asked to stop, end as those that nobody disturbed."""

import copy
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import ecc.checkpoints
from ecc import stopping, training
from ecc.checkpoints import read_tensors
from ecc.errors import UserError
from ecc.methods import Limit, checkpoint as checkpoints, compress

ROOT = Path(__file__).parents[1]
SEARCHES = {
    "amc": {"episodes": 12, "warm_up": 5, "batches": 1, "positions": 4},
    "evolution": {"stages": 3, "population": 4, "generations": 1, "calibration": 1},
    "lcp": {"evaluations": 8, "population": 3, "tournament": 2},
    "netadapt": {"decay": 0.9},
}


class KilledError(Exception):
    pass


def search(method, problem):
    return compress(method, problem, SEARCHES[method])


def assert_same(one, other):
    assert one.history.equals(other.history)
    assert one.effort == other.effort
    assert one.iterations == other.iterations
    assert np.array_equal(one.widths, other.widths)
    theirs = other.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in one.model.state_dict().items())


def test_tensors_with_channels_last_are_saved(tiny_problem, tmp_path):
    problem = tiny_problem(checkpoint=tmp_path / "checkpoint.safetensors")
    weights = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    checkpoint = checkpoints.Checkpoint(problem, None)
    checkpoint.save([{"round": 0.0}], lambda: {"weights": weights}, at_once=True)
    saved = checkpoint.restore()
    assert saved
    assert torch.equal(saved[1]["weights"], weights)


@pytest.fixture
def saves(monkeypatch):
    """Writes at every chance, and calls what a test puts here after the nth time."""
    monkeypatch.setattr(checkpoints, "EVERY_S", 0.0)
    then = {}
    real, count = checkpoints.Checkpoint.save, iter(range(1, 1000))

    def save(checkpoint, *given, **named):
        real(checkpoint, *given, **named)
        if checkpoint.path:
            then.get(next(count), lambda: None)()

    monkeypatch.setattr(checkpoints.Checkpoint, "save", save)
    return then


@pytest.fixture
def kept(tiny_problem, tmp_path):
    return replace(tiny_problem(0.5), checkpoint=tmp_path / "checkpoint.safetensors")


def killed():
    raise KilledError


@pytest.mark.parametrize("method", SEARCHES)
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_killed_search_ends_as_an_undisturbed_one(tiny_problem, kept, saves, method, at):
    whole = search(method, tiny_problem(0.5))
    saves[at] = killed
    with pytest.raises(KilledError):
        search(method, kept)
    assert_same(search(method, kept), whole)


@pytest.mark.parametrize("method", SEARCHES)
def test_a_search_killed_twice_ends_as_an_undisturbed_one(tiny_problem, kept, saves, method):
    whole = search(method, tiny_problem(0.5))
    saves[1] = saves[3] = killed
    for _ in range(2):
        with pytest.raises(KilledError):
            search(method, kept)
    assert_same(search(method, kept), whole)


@pytest.mark.parametrize("method", ["lcp", "netadapt"])
def test_a_search_killed_in_its_last_training_goes_on_there(kept, monkeypatch, method):
    monkeypatch.setattr(checkpoints, "EVERY_S", 0.0)
    # A group that stays as it is leaves NetAdapt's share of iterations for it over.
    bounds = np.where(np.arange(len(kept.full_widths)), 1, kept.full_widths)
    training_of = replace(kept.training, checkpoint_every=2)
    kept = replace(kept, training=training_of, lower_bounds=bounds)
    whole = search(method, replace(kept, checkpoint=None))
    real, last = training._Run.save, kept.checkpoint.with_stem("checkpoint-last")

    def save(run, path):
        real(run, path)
        assert path == last
        raise KilledError

    monkeypatch.setattr(training._Run, "save", save)
    with pytest.raises(KilledError):
        search(method, kept)
    monkeypatch.setattr(training._Run, "save", real)
    assert last.exists()
    assert_same(search(method, kept), whole)


@pytest.mark.parametrize("method", SEARCHES)
def test_the_state_of_another_search_is_not_used(tiny_problem, kept, saves, caplog, method):
    saves[2] = killed
    with pytest.raises(KilledError):
        search(method, kept)
    elsewhere = replace(kept.training, device="cpu", checkpoint_every=7)  # which decide nothing
    for changes, foreign in (
        ({"seed": 1}, True),
        ({"budget_j": 0.99 * kept.budget_j}, True),
        ({"training": replace(kept.training, learning_rate=0.1)}, True),
        ({"training": elsewhere}, False),
    ):
        caplog.clear()
        fresh = replace(kept, checkpoint=None, **changes)
        with caplog.at_level(logging.INFO):
            state = kept.checkpoint.read_bytes()
            assert_same(search(method, replace(kept, **changes)), search(method, fresh))
            kept.checkpoint.write_bytes(state)
        assert ("starts anew" in caplog.text) is foreign


def test_all_that_a_search_follows_from_is_in_its_fingerprint(kept, monkeypatch):
    limit = Limit("parameters", kept.energy, 2 * kept.budget_j)
    dearer = replace(kept.energy, coefficients_j=1.1 * kept.energy.coefficients_j)
    slower = copy.deepcopy(kept.dense)
    slower.layers[1].momentum = 0.0003

    def told(problem, settings="settings"):
        return checkpoints._fingerprint(problem.binding(), settings)

    several = replace(kept, limits=(limit,))
    narrower = np.full_like(kept.full_widths, 2)
    found = [
        told(kept),
        told(kept, "others"),
        told(replace(kept, dense=slower)),
        told(replace(kept, energy=dearer)),
        told(replace(kept, lower_bounds=narrower)),
        told(several),
        told(replace(kept, limits=(replace(limit, name="latency"),))),
        # None of these binds.
        told(replace(kept, limits=(replace(limit, budget=3 * kept.budget_j),))),
        told(replace(kept, limits=(limit, replace(limit, name="latency")))),
        told(replace(kept, limits=(replace(limit, model=dearer),))),
    ]
    assert told(several) == found[5]
    monkeypatch.setattr(ecc.checkpoints, "LIBRARY", "of an edited file")
    found.append(told(several))
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("method", SEARCHES)
def test_the_state_of_a_search_with_other_content_is_damaged(kept, saves, method):
    saves[2] = killed
    with pytest.raises(KilledError):
        search(method, kept)
    state, (tensors, metadata) = kept.checkpoint.read_bytes(), read_tensors(kept.checkpoint)
    for name, tensor in tensors.items():
        flat = tensor.clone().flatten().view(torch.uint8)
        flat[-1] ^= 128  # of floats the sign
        flipped = flat.view(tensor.dtype).view_as(tensor)
        save_file({**tensors, name: flipped}, kept.checkpoint, metadata)
        with pytest.raises(UserError, match=r"checkpoint\.safetensors is damaged: delete it"):
            search(method, kept)
        without = {other: each for other, each in tensors.items() if other != name}
        save_file(without, kept.checkpoint, metadata)
        with pytest.raises(UserError, match=r"checkpoint\.safetensors is damaged: delete it"):
            search(method, kept)
    kept.checkpoint.write_bytes(state)
    search(method, kept)


@pytest.mark.parametrize("method", SEARCHES)
def test_a_search_that_is_asked_to_stop_saves_first(tiny_problem, kept, monkeypatch, method):
    """Although no minute has passed since it began."""
    with monkeypatch.context() as asked:
        asked.setattr(stopping, "_asked", signal.SIGTERM)
        with pytest.raises(SystemExit) as left:
            search(method, kept)
    assert left.value.code == 128 + signal.SIGTERM
    assert kept.checkpoint.exists()
    assert_same(search(method, kept), search(method, tiny_problem(0.5)))


def test_nothing_is_written_where_it_is_not_asked_for(tiny_problem, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoints, "EVERY_S", 0.0)
    for method in SEARCHES:
        search(method, tiny_problem(0.5))
    assert not list(tmp_path.iterdir())


# Signals, in a process of its own

TRAINING = """
import sys, time
from pathlib import Path
sys.path.insert(0, "tests")
from conftest import MemorySplit
from torch import nn
from torch.nn import functional
from ecc.logs import job
from ecc.training import TrainingSettings, train

class Slow:
    def __call__(self, iteration, optimizer):
        Path(sys.argv[1], "begun").touch()
        time.sleep(0.02)
        return {}
    def state(self): return {}
    def restore(self, state): pass

with job(Path(sys.argv[1]) / "run.log"):
    train(
        nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)),
        MemorySplit(),
        lambda model, images, labels: functional.cross_entropy(model(images), labels),
        TrainingSettings(100_000, batch_size=8, device="cpu", checkpoint_every=100_000),
        seed=0, update=Slow(), checkpoint=Path(sys.argv[1]) / "checkpoint.safetensors",
    )
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_training_that_gets_a_signal_saves_and_says_so_by_its_exit_code(tmp_path, number):
    run = subprocess.Popen(
        [sys.executable, "-c", TRAINING, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    while not (tmp_path / "begun").exists():
        assert run.poll() is None
        time.sleep(0.05)
    run.send_signal(number)
    assert run.wait(timeout=20) == 128 + number
    tensors, _ = read_tensors(tmp_path / "checkpoint.safetensors")
    assert 0 < len(tensors["history"]) < 100_000


def test_a_second_signal_does_not_wait(tmp_path):
    code = """
import os, signal, sys
from ecc import stopping
stopping.listen()
with stopping.deferred():
    os.kill(os.getpid(), signal.SIGTERM)
    print("one", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    print("two", flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "one\n")


def test_a_signal_that_waited_is_heard_at_the_end_of_the_block():
    code = """
import os, signal
from ecc import stopping
stopping.listen()
with stopping.deferred():
    with stopping.deferred(False):
        os.kill(os.getpid(), signal.SIGINT)
    print("inside", stopping.asked(), flush=True)
print("after", flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (128 + signal.SIGINT, "inside True\n")
