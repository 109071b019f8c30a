"""Measures the energy of all slim networks of a method again, on the platform of their budgets."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ecc import energy, metrics, platforms, runs
from ecc.logs import job
from ecc.structure import Structure
from ecc.verification import verify


def verify_energy(
    structure: str,
    energy_model: str,
    limits: Mapping[str, str],
    finetuned: Sequence[str],
    *,
    platform: str,
    platform_settings: Mapping[str, Any],
    network: Mapping[str, Any],
    repeats: int,
    seed: int,
    name: str,
    journal: str,
    files: Sequence[str],
) -> None:
    """`finetuned` are the metrics of the runs, `files` where what is measured of each goes.

    `limits` are energy models of further platforms, by the names that budgets' limits have.
    `name` keeps the noise of an emulated platform apart from that of other methods' networks.
    """
    traced = Structure.read(structure)
    device = platforms.make(platform, platform_settings)
    found = [metrics.from_file(runs.read_json(path)) for path in finetuned]
    rows = verify(
        device,
        platforms.Deployed(traced, network),
        energy.load(energy_model, traced),
        [[group["width"] for group in run["groups"]] for run in found],
        [run["budget_j"] for run in found],
        repeats=repeats,
        seed=runs.named_seed(seed, name),
        journal=Path(journal),
    )
    models = energy.limit_models(traced, limits)
    for file, row, run in zip(files, rows, found, strict=True):
        widths = [group["width"] for group in run["groups"]]
        limited = {
            name: {"limit": limit, "modelled": float(models[name].energy(widths))}
            for name, limit in run["limited"].items()
        }
        measured = metrics.to_file(row, device.metric)
        runs.write_json(file, {"repeats": repeats, **measured, "limited": limited})


if __name__ == "__main__":
    with job(snakemake.log[0]):
        verify_energy(
            snakemake.input.structure,
            snakemake.input.energy_model,
            dict(zip(snakemake.params.limiting, snakemake.input.limits, strict=True)),
            snakemake.input.metrics,
            platform=snakemake.wildcards.platform,
            platform_settings=snakemake.params.platform,
            network=snakemake.params.network,
            repeats=snakemake.params.repeats,
            seed=snakemake.params.seed,
            name=snakemake.params.name,
            journal=snakemake.params.journal,
            files=snakemake.output.energy,
        )
