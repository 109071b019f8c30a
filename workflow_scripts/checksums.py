"""Writes a checksum of every result file, by which a later change of one is noticed."""

from pathlib import Path

from ecc.evidence import reproduction
from ecc.logs import job

if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.input, snakemake.output):
        file = Path(snakemake.output.checksums)
        reproduction.write_checksums(file.parent, file)
