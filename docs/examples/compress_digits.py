"""The library without the workflow: a small MobileNet on handwritten digits, on an energy budget.

    .venv/bin/python docs/examples/compress_digits.py

Run it in the folder of the repository; seconds on one core.
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `ecc` is, unless it is installed

from ecc import budgets, data, energy
from ecc.finetuning import finetune
from ecc.methods import Problem, compress
from ecc.networks import Network
from ecc.platforms import Deployed, get
from ecc.training import TaskLoss, TrainingSettings, evaluate, train
from ecc.verification import verify

NETWORK = Network("mobilenet", 10, multiplier=0.25, options={"batch_norm_momentum": 0.1})
DEVICE = get("jetson_tx2")  # emulated
DEPLOYED = Deployed(NETWORK.structure)
TRAINING = TrainingSettings(iterations=150, batch_size=64, learning_rate=2e-3, device="cpu")


def digits() -> data.Dataset:
    settings = {"kind": "digits", "size": 32}
    with tempfile.TemporaryDirectory() as folder:
        data.prepare(settings, folder)
        return data.load(settings, folder)


def energy_model(samples: int = 1000, unseen: int = 200) -> energy.EnergyModel:
    """Measure random width vectors on the device, and fit an energy model to most of them."""
    table = energy.sample(DEVICE, DEPLOYED, samples, seed=0).samples
    widths, energy_j = table.filter(like="width_").to_numpy(), table["energy_j"].to_numpy()
    fitted, test = energy.split(samples, unseen, seed=0)
    known, held = (widths[fitted], energy_j[fitted]), (widths[test], energy_j[test])
    model, history = energy.fit("bilinear_graph", "nnls", NETWORK.structure, *known, {}, test=held)
    print(f"relative test error of the energy model: {history['relative_test_error'].iloc[-1]:.4f}")
    return model


def main(
    training: TrainingSettings = TRAINING, methods: Sequence[str] = ("uniform", "ecc")
) -> pd.DataFrame:
    """One row a method: accuracies, and the slim network's energy beside its budget.

    `training` is that of compression; dense training is as long, fine-tuning half as long.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images, model = digits(), energy_model()

    dense = NETWORK.build()
    onecycle = replace(training, learning_rate=1e-2, schedule="onecycle")
    train(dense, images.train, TaskLoss(images.train.task), onecycle, seed=0)

    # A quarter of what can be saved is left, where no group loses more than 80 % of its channels.
    bounds = budgets.lower_bounds(NETWORK.full_widths, smallest_width=0.2)
    dense_j, least_j = model.energy(NETWORK.full_widths), model.energy(bounds)
    found = budgets.Range(float(dense_j), float(least_j))
    budget = budgets.Budget("reducible", 0.25).resolve(found)
    problem = Problem(
        dense=dense,
        channels=NETWORK.channels,
        energy=model,
        budget_j=budget,
        lower_bounds=bounds,
        train=images.train,
        holdout=images.holdout,
        training=training,
    )
    phase = {"loss": "distillation", "iterations": training.iterations // 2, "schedule": "cosine"}
    phase |= {"batch_size": 64, "learning_rate": 2e-3, "device": "cpu"}
    rows = {}
    for method in methods:
        compressed = compress(method, problem, {})
        before = evaluate(compressed.model, images.validation, device="cpu")
        [verified] = verify(
            DEVICE, DEPLOYED, model, compressed.widths, [budget], repeats=25, seed=1
        )
        slim = NETWORK.channels.slim(compressed.model, compressed.keep)
        unspent = training.iterations - compressed.iterations
        finetune(slim, dense, images.train, [phase], seed=0, extra_iterations=unspent)
        rows[method] = {
            "accuracy_before_finetuning": before,
            "accuracy": evaluate(slim, images.validation, device="cpu"),
            "dense_accuracy": evaluate(dense, images.validation, device="cpu"),
            "budget_j": budget,
            "measured_energy_j": verified["measured_energy_j"],
        }
    return pd.DataFrame.from_dict(rows, orient="index")


if __name__ == "__main__":
    print(main().round(4).to_string())
