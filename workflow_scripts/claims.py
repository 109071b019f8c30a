"""Decides the papers' claims by the tables of the run; statistics; captions; and the page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from ecc import records, runs
from ecc.evidence import (
    captions,
    claims as evidence,
    findings,
    page,
    provenance,
    statistics,
    tables,
)
from ecc.logs import job
from ecc.provenance import of_job

FIRST = (  # of the tables on the page
    *("table_02", "comparison", "ranking", "differences", "energy_model_errors", "limits"),
    *("efficiency", "run_efficiency"),
)


def claims(
    source: str,
    found: Sequence[str],
    published: str,
    figures: Sequence[str],
    settings: Mapping[str, Any],
    titles: Mapping[str, str],
    made_by: Mapping[str, str],
    shown: Sequence[str],
    further: Mapping[str, Any],
    own: Mapping[str, Any],
    files: Mapping[str, Any],
) -> None:
    """`found` are tables; `shown` texts of captions, in the order of `files["captions"]`, and
    `further` what they tell beside tables (`findings.Run`); `own` is the record of this job.
    """
    frames = {Path(table).stem: pd.read_csv(table) for table in found}
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
    frames |= {"claims": decided, "provenance": made}
    run = findings.Run(settings, frames, **further)
    told = {}
    for text, file in zip(shown, files["captions"], strict=True):
        name = Path(text).stem
        told[name] = captions.make(name, Path(text).read_text(), run)
        runs.write_text(file, told[name].text)
    counts_as = {claim["id"]: claim["holds"] for claim in stated}
    judged = decided.assign(holds=decided["claim_id"].map(counts_as))
    first = [name for name in FIRST if name in frames]
    others = [name for name in frames if name not in ("claims", *first)]
    below = {name: frames[name] for name in [*first, *others] if len(frames[name])}
    html = page.render(judged, below, figures, settings["experiments"], titles, made_by, made, told)
    runs.write_text(files["page"], html)


def further(
    described: Mapping[str, str],
    converged: Sequence[str],
    searches: Sequence[str],
    sampled: Sequence[tuple[str, str]],
    sweeps: Sequence[str],
) -> dict[str, Any]:
    """`converged` are history and metrics of a run of ECC, `searches` the metrics of AMC's runs;
    `sampled` are (platform, network), in the order of `sweeps`.
    """
    history, metrics = converged or ("", "")
    run = converged and (pd.read_csv(history), records.read(metrics, "fine-tuning"))
    return {
        "titles": described,
        "converged": run or None,
        "searches": tables.searches(searches) if searches else None,
        "swept": {pair: pd.read_csv(sweep) for pair, sweep in zip(sampled, sweeps, strict=True)},
    }


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
            snakemake.input.shown,
            further(
                snakemake.params.described,
                snakemake.input.converged,
                snakemake.input.searches,
                snakemake.params.sampled,
                snakemake.input.sweeps,
            ),
            of_job(snakemake.log[0], snakemake.output),
            dict(snakemake.output.items()),
        )
