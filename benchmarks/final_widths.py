"""Is it the widths that a method chose, or how it came to them?

    python -m benchmarks.final_widths results/methods mobilenet gtx1080ti reducible-0.1 netadapt

Takes the widths that a method ended with, cuts the dense network to them by norm, and gives it all
iterations of compression and fine-tuning at once, as uniform pruning has them. What the method
itself reached with these widths stands beside it, one line a seed.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import yaml

from ecc import config, data, runs
from ecc.finetuning import finetune
from ecc.networks import Network
from ecc.training import evaluate, load_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("results", "experiment", "platform", "budget", "method"):
        parser.add_argument(name, type=Path if name == "results" else str)
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings = yaml.safe_load((given.results / "settings.yaml").read_text())
    experiment = config.experiment(settings, given.experiment)
    network = Network(**config.network(settings, experiment["network"]))
    path = given.results / "dense" / given.experiment / "model.safetensors"
    dense = load_weights(path, network.build())
    name = experiment["dataset"]
    images = data.load(settings["datasets"][name], given.results / "data" / name)
    chosen = given.results / "finetuned" / given.experiment / given.platform / given.budget
    for file in sorted((chosen / given.method).glob("seed*/metrics.json")):
        run = runs.read_json(file)
        widths = np.array([group["width"] for group in run["groups"]])
        model = load_weights(path, network.build())
        network.channels.mask(model, network.channels.keep_largest(model, widths))
        slim = network.channels.slim(model, network.channels.kept(model))
        own = sum(phase["iterations"] for phase in run["phases"])
        finetune(
            slim,
            dense,
            images.train,
            run["phases"],
            seed=run["seed"],
            extra_iterations=run["iterations"] - own,
        )
        again = evaluate(slim, images.validation, device="cpu")
        told = f"{run['accuracy']:.4f} by the method, {again:.4f} by fine-tuning alone"
        print(f"{given.method}, seed {run['seed']}: {told}")


if __name__ == "__main__":
    main()
