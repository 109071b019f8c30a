"""Writes the fine-tuned network of a run as safetensors, torch.export and ONNX, with its card."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ecc import platforms, records
from ecc.card import Facts, Images
from ecc.export import export
from ecc.logs import job
from ecc.networks import Network
from ecc.training import load_weights


def export_network(
    manifest: str,
    slim: str,
    metrics: str,
    energy: str,
    *,
    platform: str,
    platform_settings: Mapping[str, Any],
    network: Mapping[str, Any],
    settings: Mapping[str, Any],
    folder: str,
) -> None:
    """`settings` are those of the run that its `metrics` do not hold: the card has both."""
    run = records.read(metrics, "fine-tuning")
    measured = records.read(energy, "verification")
    device, full = platforms.make(platform, platform_settings), Network(**network)
    told = ("groups", "accuracy", "accuracy_before_finetuning", "dense_accuracy", "metric")
    also = ("budget", "seed", "phases", "closing", "versions", "hardware")
    facts = Facts(
        **{name: run[name] for name in (*told, "method", "platform", "budget_j", "dense_energy_j")},
        **{name: measured[name] for name in ("modelled_energy_j", "measured_energy_j")},
        description=device.description,
        emulated=device.emulated,
        images=Images.from_manifest(records.read(manifest, "manifest")),
        settings={
            "network": network,
            "platform": platform_settings,
            "method": run["method_settings"],
            **settings,
            **{name: run[name] for name in also},
        },
    )
    export(folder, load_weights(Path(slim), full.build(facts.widths)), full, facts)


if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.input, snakemake.output):
        torch.set_num_threads(snakemake.threads)
        export_network(
            snakemake.input.data,
            snakemake.input.slim,
            snakemake.input.metrics,
            snakemake.input.energy,
            platform=snakemake.wildcards.platform,
            platform_settings=snakemake.params.platform,
            network=snakemake.params.network,
            settings=snakemake.params.settings,
            folder=str(Path(snakemake.output.weights).parent),
        )
