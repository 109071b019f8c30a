"""Measures one chunk of the random width vectors of a network on a platform."""

from ecc import energy, platforms, runs
from ecc.logs import job
from ecc.structure import Structure


def sample_energy(
    structure: str, platform: str, *, chunk: int, chunks: int, samples: int, seed: int, output: str
) -> None:
    network = platforms.Deployed(Structure.read(structure))
    start, stop = (part * samples // chunks for part in (chunk, chunk + 1))
    frame = energy.sample(platforms.get(platform), network, samples, seed, start, stop)
    runs.write_csv(output, frame)


if __name__ == "__main__":
    with job(snakemake.log[0]):
        sample_energy(
            snakemake.input.structure,
            snakemake.wildcards.platform,
            chunk=int(snakemake.wildcards.chunk),
            chunks=snakemake.params.chunks,
            samples=snakemake.params.samples,
            seed=snakemake.params.seed,
            output=snakemake.output.chunk,
        )
