"""Trains the dense network of an experiment, or takes published weights, and measures its score."""

from functools import partial
from pathlib import Path
from typing import Any

import torch

from ecc import data, runs
from ecc.logs import job
from ecc.networks import Network
from ecc.networks.pretrained import load_published
from ecc.parallel import launch
from ecc.training import TaskLoss, TrainingSettings, evaluate, save_weights, train


def train_dense(
    manifest: str,
    *,
    network: dict[str, Any],
    dataset: dict[str, Any],
    training: dict[str, Any],
    weights: str | None,
    seed: int,
    model: str,
    history: str,
    metrics: str,
) -> None:
    started = runs.start()
    found = data.load(dataset, Path(manifest).parent)
    settings = TrainingSettings(**{k: v for k, v in training.items() if k != "weights"})
    torch.manual_seed(seed)
    dense = Network(**network).build()
    if weights is not None:
        load_published(weights, network["architecture"], dense)
    checkpoint = runs.checkpoint_of(model)
    frame = train(
        dense,
        found.train,
        TaskLoss(found.train.task),
        settings,
        seed=seed,
        checkpoint=checkpoint,
        description="dense",
    )
    accuracy = evaluate(dense, found.validation, device=settings.device)
    save_weights(Path(model), dense)
    runs.write_csv(history, frame)
    runs.write_json(
        metrics,
        {
            "dense_accuracy": accuracy,
            "network": network,
            "dataset": dataset,
            "training": training,
            **runs.record(seed, started),
        },
    )
    runs.finished(checkpoint)


if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.input, snakemake.output):
        torch.set_num_threads(snakemake.threads)
        training = snakemake.params.training
        work = partial(
            train_dense,
            snakemake.input.data,
            network=snakemake.params.network,
            dataset=snakemake.params.dataset,
            training=snakemake.params.training,
            weights=snakemake.params.training.get("weights"),
            seed=snakemake.params.seed,
            model=snakemake.output.model,
            history=snakemake.output.history,
            metrics=snakemake.output.metrics,
        )
        launch(training["processes"], training["device"], work)
