"""Gathers the chunks of samples, and measures the dense and the smallest network."""

from collections.abc import Iterable

import numpy as np

from ecc import energy, platforms, runs
from ecc.logs import job
from ecc.structure import Structure
from ecc.verification import mean_energy


def gather_samples(
    structure: str,
    chunks: Iterable[str],
    *,
    platform: str,
    network: str,
    samples: int,
    repeats: int,
    seed: int,
    output: str,
    dense: str,
    provenance: str,
) -> None:
    traced = Structure.read(structure)
    device = platforms.get(platform)
    deployed, full = platforms.Deployed(traced), traced.full_widths
    dense_j = mean_energy(device, deployed, full, repeats=repeats, seed=seed, first=samples)
    smallest_j = mean_energy(
        device, deployed, np.ones_like(full), repeats=repeats, seed=seed, first=samples + repeats
    )
    runs.write_csv(output, energy.gather(chunks, samples))
    runs.write_json(
        dense,
        {
            "platform": platform,
            "network": network,
            "dense_energy_j": dense_j,
            "smallest_energy_j": smallest_j,
            "repeats": repeats,
        },
    )
    runs.write_json(
        provenance,
        {
            "platform": platform,
            "description": device.description,
            "emulated": device.emulated,
            "network": network,
            "fingerprint": traced.fingerprint,
            "samples": samples,
            "seed": seed,
            "versions": runs.versions(),
            "hardware": runs.hardware(),
        },
    )


if __name__ == "__main__":
    with job(snakemake.log[0]):
        gather_samples(
            snakemake.input.structure,
            snakemake.input.chunks,
            platform=snakemake.wildcards.platform,
            network=snakemake.wildcards.network,
            samples=snakemake.params.samples,
            repeats=snakemake.params.repeats,
            seed=snakemake.params.seed,
            output=snakemake.output.samples,
            dense=snakemake.output.dense,
            provenance=snakemake.output.provenance,
        )
