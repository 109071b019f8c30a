"""Measures some of the random width vectors of a network on a platform."""

from collections.abc import Mapping
from typing import Any

from ecc import energy, metrics, platforms, runs
from ecc.logs import job
from ecc.structure import Structure


def sample_chunk(
    structure: str,
    *,
    platform: str,
    platform_settings: Mapping[str, Any],
    first: int,
    count: int,
    seed: int,
    file: str,
) -> None:
    """Samples `first` to `first + count - 1`."""
    device = platforms.make(platform, platform_settings)
    deployed = platforms.Deployed(Structure.read(structure))
    frame = energy.sample_chunk(device, deployed, first, count, seed=seed)
    named = frame.rename(columns=lambda column: metrics.in_files(column, device.metric))
    runs.write_csv(file, named)


if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.input, snakemake.output):
        sample_chunk(
            snakemake.input.structure,
            platform=snakemake.wildcards.platform,
            platform_settings=snakemake.params.platform,
            first=int(snakemake.wildcards.first),
            count=snakemake.params.size,
            seed=snakemake.params.seed,
            file=snakemake.output.chunk,
        )
