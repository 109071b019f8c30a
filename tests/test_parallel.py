"""Two processes on the CPU train what one does, and only the first of them writes."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

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
