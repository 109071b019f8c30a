"""Fine-tuning of a compressed network: its zeros stay, its other weights train on.

The slim network is trained: it computes what the masked one does, its zeros cannot come back
because they are gone, and its steps cost less.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from ecc.training import Distillation, Loss, Split, TaskLoss, TrainingSettings, train


def finetune(
    slim: nn.Module,
    teacher: nn.Module,
    split: Split,
    phases: Sequence[Mapping[str, Any]],
    *,
    seed: int,
    extra_iterations: int = 0,
    checkpoint: Path | None = None,
) -> pd.DataFrame:
    """Trains `slim` in place through all phases; returns the history with the phase's number.

    A phase is the settings of a training and its `loss`: "distillation" from `teacher`, or "task".
    The first gets `extra_iterations`: those that compression was given and did not spend, so that
    all methods train equally long.
    """
    losses: dict[str, Loss] = {
        "distillation": Distillation(teacher, split.task),
        "task": TaskLoss(split.task),
    }
    histories = []
    for number, phase in enumerate(phases):
        extra = extra_iterations if number == 0 else 0
        given = {key: value for key, value in phase.items() if key not in ("loss", "iterations")}
        history = train(
            slim,
            split,
            losses[phase["loss"]],
            TrainingSettings(iterations=phase["iterations"] + extra, **given),
            seed=seed + 1_000 * (number + 1),
            checkpoint=checkpoint and checkpoint.with_stem(f"{checkpoint.stem}-{number + 1}"),
            description=f"fine-tuning, phase {number + 1} of {len(phases)}",
        )
        histories.append(history.assign(phase=number + 1))
    return pd.concat(histories, ignore_index=True)
