"""Measures compressed networks before they are fine-tuned, and narrows those over budget."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ecc import data, energy, metrics, platforms, runs
from ecc.closing import close, narrow
from ecc.logs import job
from ecc.networks import Network
from ecc.training import evaluate, load_weights


def close_budgets(
    manifest: str,
    budgets: str,
    energy_model: str,
    masked: Sequence[str],
    compression: Sequence[str],
    *,
    platform: str,
    platform_settings: Mapping[str, Any],
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

    `name` keeps the noise of an emulated platform apart from that of other methods' networks.
    """
    full = Network(**network)
    on = platforms.make(platform, platform_settings)
    model = energy.load(energy_model, full.structure)
    found = [metrics.from_file(runs.read_json(path)) for path in compression]
    networks = [load_weights(Path(path), full.build()) for path in masked]
    images = data.load(dataset, Path(manifest).parent)
    before = []
    for each, run in zip(networks, found, strict=True):
        # With statistics of the same batches as afterwards: the difference is the channels' alone.
        kept = full.channels.kept(each)
        narrow(each, full.channels, kept, images.train, seed=run["seed"], device=device)
        before.append(evaluate(each, images.holdout, device=device))
    closed = close(
        on,
        platforms.Deployed(full.structure, network),
        full.channels,
        model,
        [(each, run["budget_j"]) for each, run in zip(networks, found, strict=True)],
        smallest=np.array(metrics.from_file(runs.read_json(budgets))["lower_bounds"]),
        rounds=rounds,
        repeats=repeats,
        seed=runs.named_seed(seed, f"{name}/closing"),
        journal=Path(journal),
    )
    for file, result, run, accuracy in zip(files, closed, found, before, strict=True):
        after = accuracy
        if result.widths.tolist() != run["widths"]:
            seed = run["seed"]
            narrow(result.model, full.channels, result.keep, images.train, seed=seed, device=device)
            after = evaluate(result.model, images.holdout, device=device)
        runs.write_json(
            file,
            {
                "rounds": max(len(result.measured_j) - 1, 0),
                **metrics.to_file({"measured_energy_j": result.measured_j}, on.metric),
                "closed": result.closed,
                "holdout_accuracy_before": accuracy,
                "holdout_accuracy_after": after,
                "widths_before": run["widths"],
                "widths": result.widths.tolist(),
                "kept": [each.nonzero().flatten().tolist() for each in result.keep],
            },
        )


if __name__ == "__main__":
    with job(snakemake.log[0]):
        torch.set_num_threads(snakemake.threads)
        close_budgets(
            snakemake.input.data,
            snakemake.input.budgets,
            snakemake.input.energy_model,
            snakemake.input.masked,
            snakemake.input.metrics,
            platform=snakemake.wildcards.platform,
            platform_settings=snakemake.params.platform,
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
