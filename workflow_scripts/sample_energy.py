"""Measures random width vectors of a network on a platform, the dense network and the sweeps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ecc import energy, metrics, platforms, provenance, runs
from ecc.files import unseal
from ecc.logs import job
from ecc.structure import Structure


def sample_energy(
    structure: str,
    *,
    platform: str,
    platform_settings: Mapping[str, Any],
    network: str,
    network_settings: Mapping[str, Any],
    samples: int,
    repeats: int,
    sweeps: Sequence[Mapping[str, Any]],
    seed: int,
    files: Mapping[str, str],
    chunks: Sequence[str] = (),
) -> None:
    """`chunks` are files of all samples, in order, where jobs of their own took them."""
    traced = Structure.read(structure)
    device = platforms.make(platform, platform_settings)
    journal = Path(files["samples"]).with_name("campaign")
    taken = energy.sample(
        device,
        platforms.Deployed(traced, network_settings),
        samples,
        repeats=repeats,
        seed=seed,
        sweeps=sweeps,
        journal=journal,
        chunks=[
            # Not all versions of pandas read the very floats that were written.
            pd.read_csv(chunk, converters=dict.fromkeys(metrics.METRICS, float)).rename(
                columns=metrics.in_code
            )
            for chunk in chunks
        ],
    )
    for name, frame in (("samples", taken.samples), ("sweep", taken.sweep)):
        named = frame.rename(columns=lambda column: metrics.in_files(column, device.metric))
        runs.write_csv(files[name], named)
    names = {"platform": platform, "network": network, "metric": device.metric}
    energies = {
        "dense_energy_j": taken.dense_energy_j,
        "smallest_energy_j": taken.smallest_energy_j,
    }
    runs.write_json(
        files["dense"],
        {**names, "repeats": repeats, **metrics.to_file(energies, device.metric)},
    )
    campaign = device.campaign(traced, journal)
    runs.write_json(
        files["provenance"],
        {
            **names,
            "kind": platform_settings["kind"],
            "description": device.description,
            "emulated": device.emulated,
            "fingerprint": traced.fingerprint,
            "samples": samples,
            "seed": seed,
            "commit": provenance.commit(),
            "versions": provenance.versions(),
            "hardware": provenance.hardware(),
            "campaign": campaign and campaign.provenance,
        },
    )
    for chunk in chunks:  # which are removed next
        unseal(chunk)


if __name__ == "__main__":
    journals = [Path(snakemake.output.samples).with_name("campaign")]
    with job(snakemake.log[0], snakemake.input, snakemake.output, journals):
        sample_energy(
            snakemake.input.structure,
            platform=snakemake.wildcards.platform,
            platform_settings=snakemake.params.platform,
            network=snakemake.wildcards.network,
            network_settings=snakemake.params.network,
            samples=snakemake.params.samples,
            repeats=snakemake.params.repeats,
            sweeps=snakemake.params.sweeps,
            seed=snakemake.params.seed,
            files=dict(snakemake.output.items()),
            chunks=snakemake.input.chunks,
        )
