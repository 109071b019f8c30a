"""What is kept of the rounds of a pruning: tidy rows, and the last network that was accepted."""

import copy
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ecc import checkpoints, processors
from ecc.finegrained.rounds import Round, Study
from ecc.structure import Structure
from ecc.training import Split, device_of, evaluate

logger = logging.getLogger(__name__)
OF_LAYER = ("weight_density", "input_density", "energy_j")


@dataclass(frozen=True)
class Record:
    """`rounds`: a row a round. `layers`: a row a layer of every round. `last`: what was accepted.

    Where not even the network as given was accepted, it is `last`.
    """

    rounds: pd.DataFrame
    layers: pd.DataFrame
    last: Round


@dataclass
class Progress:
    """Rounds so far: a row each, and of their layers what a `Round` has, (3, layers) each.

    With a `path` it is kept there after each accepted round, and read again where a study goes on.
    """

    path: Path | None = None
    fingerprint: str = ""
    rows: list[dict[str, float]] = field(default_factory=list)
    layers: list[NDArray[np.float64]] = field(default_factory=list)
    last: Round | None = None  # that was accepted

    @classmethod
    def of(cls, study: Study, path: Path) -> "Progress":
        """What a killed job has left of this very study at `path`."""
        progress = cls(path, study.fingerprint)
        if saved := checkpoints.read(path, progress.fingerprint, "the study"):
            progress.rows, tensors = saved
            progress.layers = list(tensors.pop("layers").numpy())
            model, device = copy.deepcopy(study.model), device_of(study.training.device)
            layout = processors.layout(model, study.training.channels_last, device)
            model.to(device).to(memory_format=layout).load_state_dict(tensors)
            weights, inputs, energy_j = progress.layers[-1]
            number, accuracy = (progress.rows[-1][key] for key in ("round", "holdout_accuracy"))
            progress.last = Round(int(number), model, weights, inputs, energy_j, accuracy, True)
        return progress

    def add(self, state: Round, row: dict[str, float]) -> None:
        self.rows.append(row)
        self.layers.append(np.array([state.weight_density, state.input_density, state.energy_j]))
        if self.last is None or state.accepted:
            self.last = state
        if self.path is not None and state.accepted and state.number:
            tensors = {**state.model.state_dict(), "layers": torch.tensor(np.array(self.layers))}
            checkpoints.write(self.path, self.fingerprint, self.rows, tensors)


def record(
    rounds: Iterable[Round],
    structure: Structure,
    validation: Split,
    progress: Progress | None = None,
) -> Record:
    """Runs all `rounds`; of each, weights, MACs, energy and accuracy of the deployed network.

    `progress` has those before them.
    """
    weights, macs = structure.weights(), structure.macs()
    progress = progress or Progress()
    for state in rounds:
        device = str(next(state.model.parameters()).device)
        accuracy = evaluate(state.model, validation, device=device)
        logger.info("round %d: validation accuracy %.4f", state.number, accuracy)
        row = {
            "round": state.number,
            "weights": float(weights @ state.weight_density),
            "non_skipped_macs": float(macs @ (state.weight_density * state.input_density)),
            "energy_j": float(state.energy_j.sum()),
            "holdout_accuracy": state.holdout_accuracy,
            "accuracy": accuracy,
            "accepted": state.accepted,
        }
        progress.add(state, row)
    assert progress.last is not None
    names = [operation.name for operation in structure.operations]
    layers = [
        pd.DataFrame({"round": number, "layer": names, **dict(zip(OF_LAYER, found, strict=True))})
        for number, found in enumerate(progress.layers)
    ]
    frame = pd.DataFrame(progress.rows).astype({"round": int, "accepted": bool})
    return Record(frame, pd.concat(layers, ignore_index=True), progress.last)
