"""Makes an embedded dataset, or checks the user's, and writes its manifest."""

from pathlib import Path
from typing import Any

from ecc import data
from ecc.logs import job


def prepare_data(settings: dict[str, Any], manifest: str) -> None:
    data.prepare(settings, Path(manifest).parent)


if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.input, snakemake.output):
        prepare_data(snakemake.params.settings, snakemake.output.manifest)
