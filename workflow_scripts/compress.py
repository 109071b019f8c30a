"""Compresses the dense network of an experiment by one method, for the runs of one job."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ecc import data, energy, metrics as units, records, runs
from ecc.logs import job
from ecc.methods import Limit, Problem, compress as compress_by
from ecc.networks import Network
from ecc.parallel import launch
from ecc.training import TrainingSettings, load_weights, save_weights


def compress(
    manifest: str,
    dense: str,
    budgets: str,
    energy_model: str,
    limits: Mapping[str, str],
    *,
    covered: Sequence[tuple[str, int]],
    network: Mapping[str, Any],
    dataset: dict[str, Any],
    training: Mapping[str, Any],
    method: Mapping[str, Any],
    masked: Sequence[str],
    history: Sequence[str],
    metrics: Sequence[str],
) -> None:
    """`covered` are (budget, seed) of the runs; the last three are the files of each.

    `limits` are energy models of further platforms, by the names that budgets' limits have.
    """
    found = data.load(dataset, Path(manifest).parent)
    full = Network(**network)
    weights = load_weights(Path(dense), full.build())
    model = energy.load(energy_model, full.structure)
    limiting = energy.limit_models(full.structure, limits)
    resolved = records.read(budgets, "budgets")
    checkpoints = [runs.checkpoint_of(file) for file in masked]
    by_run = zip(covered, checkpoints, masked, history, metrics, strict=True)
    for (budget, seed), checkpoint, *files in by_run:
        logging.info("budget %s, seed %d", budget, seed)
        problem = Problem(
            dense=weights,
            channels=full.channels,
            energy=model,
            budget_j=resolved["budget_j"][budget],
            lower_bounds=np.array(resolved["lower_bounds"]),
            train=found.train,
            holdout=found.holdout,
            training=TrainingSettings(**training),
            seed=seed,
            limits=tuple(
                Limit(name, limiting[name], value)
                for name, value in resolved["limits"][budget].items()
            ),
            checkpoint=checkpoint,
        )
        compress_run(problem, method, resolved["metric"], *files)
    for checkpoint in checkpoints:  # not sooner: a killed job resumes runs that had ended
        runs.finished(checkpoint)


def compress_run(
    problem: Problem,
    method: Mapping[str, Any],
    metric: str,
    masked: str,
    history: str,
    metrics: str,
) -> None:
    """One run. Its metrics hold what fine-tuning must know: the iterations left unspent."""
    started = runs.start()
    settings = {k: value for k, value in method.items() if k not in ("method", "energy_model")}
    compressed = compress_by(method["method"], problem, settings)
    save_weights(Path(masked), compressed.model)
    runs.write_csv(history, compressed.history)
    energies = {
        "budget_j": problem.budget_j,
        "modelled_energy_j": problem.joules(compressed.widths),
    }
    runs.write_json(
        metrics,
        {
            **units.to_file(energies, metric),
            "limited": {
                limit.name: {
                    "limit": limit.budget,
                    "modelled": float(limit.model.energy(compressed.widths)),
                }
                for limit in problem.limits
            },
            "widths": compressed.widths.tolist(),
            "iterations": compressed.iterations,
            "unspent_iterations": problem.training.iterations - compressed.iterations,
            "effort": asdict(compressed.effort),
            "method": method,
            **runs.record(problem.seed, started),
        },
    )


if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.input, snakemake.output):
        torch.set_num_threads(snakemake.threads)
        training = snakemake.params.training
        work = partial(
            compress,
            snakemake.input.data,
            snakemake.input.dense,
            snakemake.input.budgets,
            snakemake.input.energy_model,
            dict(zip(snakemake.params.limiting, snakemake.input.limits, strict=True)),
            covered=snakemake.params.runs,
            network=snakemake.params.network,
            dataset=snakemake.params.dataset,
            training=snakemake.params.training,
            method=snakemake.params.method,
            masked=snakemake.output.masked,
            history=snakemake.output.history,
            metrics=snakemake.output.metrics,
        )
        launch(training["processes"], training["device"], work)
