"""Measures compressed networks before they are fine-tuned, and narrows those over budget."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ecc import data, energy, platforms, records, runs
from ecc.channels import widths_of
from ecc.closing import close_all, narrow
from ecc.logs import job
from ecc.networks import Network
from ecc.training import evaluate, load_weights


def close_budgets(
    manifest: str,
    budgets: str,
    energy_models: Mapping[str, str],
    masked: Sequence[str],
    compression: Sequence[str],
    *,
    on: Mapping[str, Mapping[str, Any]],
    network: Mapping[str, Any],
    dataset: dict[str, Any],
    device: str,
    rounds: int,
    repeats: int,
    seed: int,
    name: str,
    journal: str,
    files: Sequence[str],
) -> None:
    """`masked` and `compression` are weights and metrics of the runs, `files` what is made of each.

    `energy_models` and `on`, the settings of platforms, are by name: the first is the platform of
    the budgets, the others are those on which limits are kept.
    `name` keeps the noise of an emulated platform apart from that of other methods' networks.
    """
    full = Network(**network)
    found = [records.read(path, "compression") for path in compression]
    networks = [load_weights(Path(path), full.build()) for path in masked]
    images = data.load(dataset, Path(manifest).parent)
    before = []
    for each, run in zip(networks, found, strict=True):
        # With statistics of the same batches as afterwards: the difference is the channels' alone.
        kept = full.channels.kept(each)
        narrow(each, full.channels, kept, images.train, seed=run["seed"], device=device)
        before.append(evaluate(each, images.holdout, device=device))
    own, *limiting = on
    meters = {
        platform: (platforms.make(platform, on[platform]), energy.load(file, full.structure))
        for platform, file in energy_models.items()
    }
    budgeted = [
        {own: run["budget_j"]}
        | {name: limit["limit"] for name, limit in run["limited"].items() if name in limiting}
        for run in found
    ]
    closed = close_all(
        meters,
        platforms.Deployed(full.structure, network),
        full.channels,
        list(zip(networks, budgeted, strict=True)),
        smallest=np.array(records.read(budgets, "budgets")["lower_bounds"]),
        rounds=rounds,
        repeats=repeats,
        seed=runs.named_seed(seed, f"{name}/closing"),
        journal=Path(journal),
    )
    for file, model, result, run, accuracy in zip(
        files, networks, closed, found, before, strict=True
    ):
        after = accuracy
        if widths_of(result.keep).tolist() != run["widths"]:
            narrow(model, full.channels, result.keep, images.train, seed=run["seed"], device=device)
            after = evaluate(model, images.holdout, device=device)
        kept = [each.nonzero().flatten().tolist() for each in result.keep]
        record = result.record(np.array(run["widths"]), accuracy, after)
        runs.write_json(file, {**record, "kept": kept})


if __name__ == "__main__":
    journals = [snakemake.params.journal]
    with job(snakemake.log[0], snakemake.input, snakemake.output, journals):
        torch.set_num_threads(snakemake.threads)
        on = snakemake.params.on
        close_budgets(
            snakemake.input.data,
            snakemake.input.budgets,
            dict(zip(on, snakemake.input.energy_models, strict=True)),
            snakemake.input.masked,
            snakemake.input.metrics,
            on=on,
            network=snakemake.params.network,
            dataset=snakemake.params.dataset,
            device=snakemake.params.device,
            rounds=snakemake.params.rounds,
            repeats=snakemake.params.repeats,
            seed=snakemake.params.seed,
            name=snakemake.params.name,
            journal=snakemake.params.journal,
            files=snakemake.output.closing,
        )
