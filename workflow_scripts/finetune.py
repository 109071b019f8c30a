"""Makes compressed networks slim and fine-tunes them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ecc import data, metrics as units, records, runs
from ecc.closing import narrow
from ecc.finetuning import finetune as finetune_with
from ecc.logs import job
from ecc.networks import Network
from ecc.parallel import launch
from ecc.training import evaluate, load_weights, save_weights


@dataclass(frozen=True)
class Setting:
    """What the runs of a job share; `names` are the columns that they have in common."""

    dataset: data.Dataset
    network: Network
    dense: nn.Module
    dense_accuracy: float
    dense_energy_j: float
    metric: str
    phases: Sequence[Mapping[str, Any]]
    names: Mapping[str, str]


def finetune(
    manifest: str,
    dense: str,
    dense_metrics: str,
    budgets: str,
    *,
    covered: Sequence[tuple[str, int]],
    names: Mapping[str, str],
    network: Mapping[str, Any],
    dataset: dict[str, Any],
    phases: Sequence[Mapping[str, Any]],
    files: Mapping[str, Sequence[str]],
) -> None:
    """`covered` are (budget, seed) of the runs; `files` of each by the arguments of a run."""
    full, resolved = Network(**network), records.read(budgets, "budgets")
    setting = Setting(
        dataset=data.load(dataset, Path(manifest).parent),
        network=full,
        dense=load_weights(Path(dense), full.build()),
        dense_accuracy=records.read(dense_metrics, "dense training")["dense_accuracy"],
        dense_energy_j=resolved["dense_energy_j"],
        metric=resolved["metric"],
        phases=phases,
        names=names,
    )
    checkpoints = [runs.checkpoint_of(file) for file in files["slim"]]
    by_run = zip(covered, checkpoints, *files.values(), strict=True)
    for (budget, seed), checkpoint, *own in by_run:
        logging.info("budget %s, seed %d", budget, seed)
        named = dict(zip(files, own, strict=True))
        finetune_run(setting, budget, seed, checkpoint=checkpoint, **named)
    for checkpoint in checkpoints:  # not sooner: a killed job resumes runs that had ended
        runs.finished(checkpoint)


def finetune_run(
    setting: Setting,
    budget: str,
    seed: int,
    *,
    checkpoint: Path,
    masked: str,
    compression: str,
    slim: str,
    history: str,
    metrics: str,
    closing: str | None = None,
) -> None:
    """One run; `compression` are its metrics so far, `closing` says which channels stayed."""
    started = runs.start()
    so_far = records.read(compression, "compression")
    channels, device = setting.network.channels, setting.phases[0]["device"]
    model = load_weights(Path(masked), setting.network.build())
    closed = {} if closing is None else runs.read_json(closing)
    if closing is not None:
        records.checked(closed, closing, "closing")
        keep = channels.keeping(closed.pop("kept"))
        narrow(model, channels, keep, setting.dataset.train, seed=seed, device=device)
    widths = channels.count(model)
    before = evaluate(model, setting.dataset.validation, device=device)
    small = channels.slim(model, channels.kept(model))
    frame = finetune_with(
        small,
        setting.dense,
        setting.dataset.train,
        setting.phases,
        seed=seed,
        extra_iterations=so_far["unspent_iterations"],
        checkpoint=checkpoint,
    )
    images = sum(setting.phases[number - 1]["batch_size"] for number in frame["phase"])
    accuracy = evaluate(small, setting.dataset.validation, device=device)
    save_weights(Path(slim), small)
    runs.write_csv(history, frame)
    record = runs.record(seed, started)
    energies = {"budget_j": so_far["budget_j"], "dense_energy_j": setting.dense_energy_j}
    runs.write_json(
        metrics,
        {
            **setting.names,
            "budget": budget,
            "metric": setting.metric,
            **units.to_file(energies, setting.metric),
            "budget_fraction": so_far["budget_j"] / setting.dense_energy_j,
            "score": setting.dataset.train.task.name,
            "dense_accuracy": setting.dense_accuracy,
            "accuracy_before_finetuning": before,
            "accuracy": accuracy,
            "limited": {name: found["limit"] for name, found in so_far["limited"].items()},
            "closing": closed or None,
            "iterations": so_far["iterations"] + len(frame),
            "effort": {**so_far["effort"], "finetuning_images": images},
            "groups": [
                {"name": group.name, "width": int(width), "full_width": group.width}
                for group, width in zip(channels.structure.groups, widths, strict=True)
            ],
            "method_settings": so_far["method"],
            "phases": setting.phases,
            "timings": {
                "compression_seconds": so_far["seconds"],
                "finetuning_seconds": record["seconds"],
                **{
                    peak: max((run[peak] for run in (so_far, record) if run[peak]), default=None)
                    for peak in ("peak_memory_mb", "peak_gpu_memory_mb")
                },
            },
            **record,
        },
    )


if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.input, snakemake.output):
        torch.set_num_threads(snakemake.threads)
        first = snakemake.params.phases[0]
        closing = [
            str(runs.sibling(Path(file).with_name("closing.json"), snakemake.input.closed))
            for file in snakemake.input.masked
            if snakemake.input.closed  # stands for them
        ]
        work = partial(
            finetune,
            snakemake.input.data,
            snakemake.input.dense,
            snakemake.input.dense_metrics,
            snakemake.input.budgets,
            covered=snakemake.params.runs,
            names=snakemake.params.names,
            network=snakemake.params.network,
            dataset=snakemake.params.dataset,
            phases=snakemake.params.phases,
            files={
                "masked": snakemake.input.masked,
                "compression": snakemake.input.compression,
                "slim": snakemake.output.slim,
                "history": snakemake.output.history,
                "metrics": snakemake.output.metrics,
                **({"closing": closing} if closing else {}),
            },
        )
        launch(first["processes"], first["device"], work)
