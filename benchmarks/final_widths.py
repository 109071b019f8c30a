"""Is it the widths that methods chose, or how they came to them?

    python -m benchmarks.final_widths results/methods mobilenet gtx1080ti reducible-0.1
    python -m benchmarks.final_widths results/methods mobilenet gtx1080ti reducible-0.1 lcp uniform

Takes the widths that every method of a run, or those named, ended with, cuts the dense network to
them by norm, and gives it all iterations of compression and fine-tuning at once, as uniform pruning
has them. Prints a table: what the method itself reached with these widths, and what fine-tuning
alone does, means and standard deviations over seeds.
"""

import argparse
import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from torch import nn

from ecc import config, data, runs
from ecc.finetuning import finetune
from ecc.networks import Network
from ecc.training import evaluate, load_weights


def by_finetuning_alone(
    run: Mapping[str, Any], network: Network, dense: nn.Module, images: data.Dataset
) -> float:
    """Validation accuracy of the dense network cut to the widths of a run, and fine-tuned."""
    widths = np.array([group["width"] for group in run["groups"]])
    model = copy.deepcopy(dense)
    network.channels.mask(model, network.channels.keep_largest(model, widths))
    slim = network.channels.slim(model, network.channels.kept(model))
    extra = run["iterations"] - sum(phase["iterations"] for phase in run["phases"])
    finetune(slim, dense, images.train, run["phases"], seed=run["seed"], extra_iterations=extra)
    return evaluate(slim, images.validation, device="cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("results", "experiment", "platform", "budget"):
        parser.add_argument(name, type=Path if name == "results" else str)
    parser.add_argument("methods", nargs="*", help="all of the run unless given")
    parser.add_argument("--output", type=Path, help="CSV file: accuracies of every seed")
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
    rows = []
    for method in given.methods or experiment["methods"]:
        for file in sorted((chosen / method).glob("seed*/metrics.json")):
            run = runs.read_json(file)
            alone = by_finetuning_alone(run, network, dense, images)
            rows.append((method, run["seed"], run["accuracy"], alone))
    columns = ["method", "seed", "by_the_method", "by_finetuning_alone"]
    found = pd.DataFrame(rows, columns=columns)
    if given.output is not None:
        found.to_csv(given.output, index=False)
    table = found.drop(columns="seed").groupby("method", sort=False).agg(["mean", "std"])
    print(table.sort_values(("by_the_method", "mean"), ascending=False).round(3).to_string())


if __name__ == "__main__":
    main()
