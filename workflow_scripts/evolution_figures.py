"""Gathers the networks of all studies of evolution into tables, and draws them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ecc import runs
from ecc.evidence import evolution as evidence, style
from ecc.logs import job


def evolution_figures(
    networks: Sequence[str],
    history: Sequence[str],
    platforms: Mapping[str, str],
    files: Mapping[str, str],
) -> None:
    """`platforms` are the printed names of the platforms of the studies."""
    tables = {"networks": evidence.gather(networks), "history": evidence.gather(history)}
    tables["nearly_as_good"] = evidence.nearly_as_good(tables["networks"])
    for name, frame in tables.items():
        runs.write_csv(files[name], frame)
    for name, draw in evidence.FIGURES.items():
        # From the files, as whoever draws again from what is published.
        frame = pd.read_csv(files[evidence.TABLE_OF[name]])
        style.save(
            draw(frame, platforms), *(Path(files[f"{name}_{kind}"]) for kind in ("png", "pdf"))
        )


if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.input, snakemake.output):
        evolution_figures(
            snakemake.input.networks,
            snakemake.input.history,
            snakemake.params.platforms,
            dict(snakemake.output.items()),
        )
