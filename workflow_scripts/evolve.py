"""Evolves networks for one arm of a study, from one seed."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ecc import data, evolution, platforms, runs
from ecc.evolution import Evaluator, Settings, Study
from ecc.logs import job


def make(
    manifest: str,
    dataset: Mapping[str, Any],
    platform: Mapping[str, Any],
    study: Mapping[str, Any],
    training: Mapping[str, Any],
    seed: int,
) -> Evaluator:
    """What every process that evaluates networks has of its own."""
    found = data.load(dict(dataset), Path(manifest).parent)
    emulated = platforms.make(study["platform"], platform)
    data_told = Path(manifest).read_text()
    return evolution.evaluator(found, emulated, study, training, seed, data_told)


def evolve(
    maker: Callable[[], Evaluator],
    *,
    study: Mapping[str, Any],
    arm: str,
    seed: int,
    processes: int,
    networks: str,
    history: str,
    metrics: str,
) -> None:
    started = runs.start()
    checkpoint = Path(networks).with_name("evaluated.jsonl")
    settings = Settings(*(study[key] for key in ("population", "generations", "largest_macs")))
    own = maker()
    with evolution.workers(own, maker, processes) as evaluate:
        found, generations = Study(
            own.space,
            arm,
            settings,
            evaluate,
            own.macs,
            seed=seed,
            checkpoint=checkpoint,
            fingerprint=own.fingerprint,
        ).run()
    runs.write_csv(networks, found)
    runs.write_csv(history, generations)
    runs.write_json(
        metrics,
        {"arm": arm, "study": study, "evaluations": len(found), **runs.record(seed, started)},
    )
    runs.finished(checkpoint)


if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.input, snakemake.output):
        torch.set_num_threads(1)
        params, seed = snakemake.params, int(snakemake.wildcards.seed)
        settings = params.dataset, params.platform, params.study, params.training
        evolve(
            partial(make, snakemake.input.data, *settings, seed),
            study=params.study,
            arm=snakemake.wildcards.arm,
            seed=seed,
            processes=snakemake.threads,
            networks=snakemake.output.networks,
            history=snakemake.output.history,
            metrics=snakemake.output.metrics,
        )
