"""Prunes single weights of a dense network, cut to fewer target classes, round by round."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ecc import data, platforms, runs
from ecc.finegrained import FewerClasses, Progress, Settings, Study, load_fewer, of_layers, record
from ecc.logs import job
from ecc.networks import Network
from ecc.training import (
    Distillation,
    TaskLoss,
    TrainingSettings,
    evaluate,
    load_weights,
    save_weights,
    train,
)


def eap_pruning(
    manifest: str,
    dense: str,
    *,
    classes: int,
    network: Mapping[str, Any],
    dataset: dict[str, Any],
    platform: Mapping[str, Any],
    training: Mapping[str, Any],
    pruning: Mapping[str, Any],
    seed: int,
    files: Mapping[str, str],
) -> None:
    """Required is the hold-out accuracy of the dense network on all classes."""
    started = runs.start()
    found = data.load(dataset, Path(manifest).parent)
    full, few = Network(**network), Network(**{**network, "classes": classes})
    settings = TrainingSettings(**training)
    whole = load_weights(Path(dense), full.build())
    required = evaluate(whole, found.holdout, device=settings.device)
    on_train, on_holdout, on_validation = (
        FewerClasses(split, classes) for split in (found.train, found.holdout, found.validation)
    )
    checkpoint = runs.checkpoint_of(files["model"])
    model = load_fewer(few.build(), whole)
    if classes < found.classes:
        train(
            model,
            on_train,
            TaskLoss(on_train.task),
            settings,
            seed=seed,
            checkpoint=checkpoint.with_stem(f"{checkpoint.stem}-classes"),
            description="fewer classes",
        )
    study = Study(
        model,
        [operation.name for operation in few.structure.operations],
        of_layers(platforms.make("eap", platform), few.structure),
        Distillation(model, on_train.task),
        on_train,
        on_holdout,
        Settings(**pruning),
        settings,
        required=required,
        seed=seed,
    )
    progress = Progress.of(study, checkpoint)
    rounds = study.rounds(progress.last, checkpoint)
    pruned = record(rounds, few.structure, on_validation, progress)
    numbered = {"seed": seed, "classes": classes, "required_accuracy": required}
    runs.write_csv(files["rounds"], pruned.rounds.assign(**numbered))
    runs.write_csv(files["layers"], pruned.layers.assign(**numbered))
    save_weights(Path(files["model"]), pruned.last.model)
    settings_used = {"pruning": pruning, "finetuning": training, "platform": platform}
    last = {**numbered, "last_accepted_round": pruned.last.number, **settings_used}
    runs.write_json(files["metrics"], {**last, **runs.record(seed, started)})
    runs.finished(checkpoint)


if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.input, snakemake.output):
        torch.set_num_threads(snakemake.threads)
        eap_pruning(
            snakemake.input.data,
            snakemake.input.dense,
            classes=int(snakemake.wildcards.classes),
            network=snakemake.params.network,
            dataset=snakemake.params.dataset,
            platform=snakemake.params.platform,
            training=snakemake.params.training,
            pruning=snakemake.params.pruning,
            seed=int(snakemake.wildcards.seed),
            files=dict(snakemake.output.items()),
        )
