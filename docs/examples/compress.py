"""A trained network, an energy budget, a compressed network to take away: the workflow in a call.

    .venv/bin/python docs/examples/compress.py

Run it in the folder of the repository; about a minute on one core.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `ecc` is, unless it is installed

import ecc
from ecc import data
from ecc.networks import Network
from ecc.training import TaskLoss, TrainingSettings, train

DIGITS = {"kind": "digits", "size": 32}
NETWORK = Network("mobilenet", 10, multiplier=0.25, options={"batch_norm_momentum": 0.1})
TRAINING = TrainingSettings(150, batch_size=64, learning_rate=2e-3, device="cpu")


def main(folder: Path, training: TrainingSettings = TRAINING) -> ecc.Result:
    """A MobileNet of 60 % of the energy on an emulated Jetson TX2; `folder` gets the files."""
    data.prepare(DIGITS, folder / "digits")
    images, dense = data.load(DIGITS, folder / "digits"), NETWORK.build()
    train(dense, images.train, TaskLoss(images.train.task), training, seed=0)  # or load your own
    phase = {"loss": "distillation", "iterations": training.iterations // 2, "schedule": "cosine"}
    settings = ecc.Settings(compression=training, finetuning=[phase])
    given = {"platform": "jetson_tx2", "budget": 0.6, "settings": settings}  # or budget_j=0.0082
    result = ecc.compress(dense, folder / "digits", deployed=NETWORK, **given)
    result.save(folder / "network")  # safetensors, torch.export, ONNX, a model card
    return result


if __name__ == "__main__":
    found = main(Path("results/examples"))
    print(f"accuracy {found.accuracy:.3f}, {found.measured_energy_j:.5f} of {found.budget_j:.5f} J")
