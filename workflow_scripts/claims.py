"""Decides the papers' claims by the tables of the run; statistics; and the page that shows them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from ecc import runs
from ecc.evidence import claims as evidence, page, provenance, statistics
from ecc.logs import job
from ecc.provenance import of_job

SHOWN = (
    *("table_02", "comparison", "ranking", "differences", "energy_model_errors", "limits"),
    *("efficiency", "run_efficiency"),
)


def claims(
    source: str,
    tables: Sequence[str],
    published: str,
    figures: Sequence[str],
    settings: Mapping[str, Any],
    titles: Mapping[str, str],
    made_by: Mapping[str, str],
    own: Mapping[str, Any],
    files: Mapping[str, str],
) -> None:
    """`own` is the record of this job (`ecc.provenance`)."""
    frames = {Path(table).stem: pd.read_csv(table) for table in tables}
    accuracies = frames["accuracy_at_budget"]
    frames["ranking"] = statistics.ranking(accuracies)
    frames["differences"] = statistics.differences(accuracies)
    stated = evidence.read(source)
    decided = evidence.decide(stated, frames, pd.read_csv(published))
    for name in ("ranking", "differences"):
        runs.write_csv(files[name], frames[name])
    runs.write_csv(files["claims"], decided)
    runs.write_text(files["settings"], yaml.safe_dump(settings, sort_keys=False))
    made = provenance.by_file(Path(files["page"]).parent, own)
    runs.write_csv(files["provenance"], made)
    counts_as = {claim["id"]: claim["holds"] for claim in stated}
    shown = decided.assign(holds=decided["claim_id"].map(counts_as))
    named = " ".join(decided["tables"].dropna()).split()
    below = {
        name: frames[name] for name in dict.fromkeys([*SHOWN, *named]) if len(frames.get(name, ()))
    }
    html = page.render(shown, below, figures, settings["experiments"], titles, made_by, made)
    runs.write_text(files["page"], html)


if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.input, snakemake.output):
        claims(
            snakemake.input.claims,
            snakemake.input.tables,
            snakemake.input.published,
            snakemake.input.figures,
            snakemake.params.settings,
            snakemake.params.titles,
            snakemake.params.made_by,
            of_job(snakemake.log[0], snakemake.output),
            dict(snakemake.output.items()),
        )
