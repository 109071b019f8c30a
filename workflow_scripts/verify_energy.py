"""Measures all slim networks of a method again, on the platforms of their budgets and limits."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ecc import energy, metrics, platforms, records, runs
from ecc.logs import job
from ecc.structure import Structure
from ecc.verification import verify, verify_limits


def verify_energy(
    structure: str,
    energy_models: Mapping[str, str],
    finetuned: Sequence[str],
    *,
    on: Mapping[str, Mapping[str, Any]],
    network: Mapping[str, Any],
    repeats: int,
    seed: int,
    name: str,
    journal: str,
    files: Sequence[str],
) -> None:
    """`finetuned` are the metrics of the runs, `files` where what is measured of each goes.

    `energy_models` and `on`, the settings of platforms, are by name: the first is the platform of
    the budgets, the others are those on which limits are kept.
    `name` keeps the noise of an emulated platform apart from that of other methods' networks.
    """
    traced = Structure.read(structure)
    own, *limiting = on
    devices = {platform: platforms.make(platform, settings) for platform, settings in on.items()}
    models = energy.limit_models(traced, energy_models)
    found = [records.read(path, "fine-tuning") for path in finetuned]
    widths = [[group["width"] for group in run["groups"]] for run in found]
    deployed = platforms.Deployed(traced, network)
    rows = verify(
        devices[own],
        deployed,
        models[own],
        widths,
        [run["budget_j"] for run in found],
        repeats=repeats,
        seed=runs.named_seed(seed, name),
        journal=Path(journal),
    )
    limited = verify_limits(
        [run["limited"] for run in found],
        models,
        {platform: devices[platform] for platform in limiting},
        deployed,
        widths,
        repeats=repeats,
        seed=runs.named_seed(seed, name),
        journal=Path(journal),
    )
    for file, row, limits in zip(files, rows, limited, strict=True):
        measured = metrics.to_file(row, devices[own].metric)
        runs.write_json(file, {"repeats": repeats, **measured, "limited": limits})


if __name__ == "__main__":
    journals = [snakemake.params.journal]
    with job(snakemake.log[0], snakemake.input, snakemake.output, journals):
        on = snakemake.params.on
        verify_energy(
            snakemake.input.structure,
            dict(zip(on, snakemake.input.energy_models, strict=True)),
            snakemake.input.metrics,
            on=on,
            network=snakemake.params.network,
            repeats=snakemake.params.repeats,
            seed=snakemake.params.seed,
            name=snakemake.params.name,
            journal=snakemake.params.journal,
            files=snakemake.output.energy,
        )
