"""How well the energies were measured: repeatability, drift, and the staircase of one width."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ecc import files as sealed, platforms, runs
from ecc.evidence import measurements as evidence, style
from ecc.logs import job
from ecc.measuring import drift
from ecc.metrics import from_table
from ecc.structure import Structure


def measurements(
    pairs: Sequence[tuple[str, str]],
    structures: Sequence[str],
    sweeps: Sequence[str],
    *,
    platform_settings: Mapping[str, Mapping[str, Any]],
    titles: Mapping[str, str],
    files: Mapping[str, str],
) -> None:
    """`pairs` are (platform, network), in the order of `structures` and `sweeps`."""
    reports, references, swept = {}, {}, {}
    for (platform, network), structure, sweep in zip(pairs, structures, sweeps, strict=True):
        device = platforms.make(platform, platform_settings[platform])
        journal = Path(sweep).with_name("campaign")
        for file in sealed.kept(journal):
            sealed.verify(file)
        campaign = device.campaign(Structure.read(structure), journal)
        if campaign:
            key, told = (platform, network), campaign.provenance
            reports[key] = drift.repeatability(campaign.windows, told)
            references[key] = drift.references(campaign.windows, told["settings"]["baseline"])
        frame = from_table(pd.read_csv(sweep))
        if len(frame):
            swept[platform, network] = frame
    runs.write_csv(files["repeatability"], evidence.repeatability(reports))
    for name, drawn in (("drift", references), ("staircase", swept)):
        if f"{name}_png" in files:
            draw = getattr(evidence, name)
            style.save(draw(drawn, titles), files[f"{name}_png"], files[f"{name}_pdf"])


if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.input, snakemake.output):
        measurements(
            snakemake.params.pairs,
            snakemake.input.structures,
            snakemake.input.sweeps,
            platform_settings=snakemake.params.platforms,
            titles=snakemake.params.titles,
            files=dict(snakemake.output.items()),
        )
