"""What is kept of the rounds of a pruning: tidy rows, and the last network that was accepted."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from ecc.finegrained.rounds import Round
from ecc.structure import Structure
from ecc.training import Split, evaluate

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """`rounds`: a row a round. `layers`: a row a layer of every round. `last`: what was accepted.

    Where not even the network as given was accepted, it is `last`.
    """

    rounds: pd.DataFrame
    layers: pd.DataFrame
    last: Round


def record(rounds: Iterable[Round], structure: Structure, validation: Split) -> Record:
    """Runs all `rounds`; of each, weights, MACs, energy and accuracy of the deployed network."""
    weights, macs = structure.weights(), structure.macs()
    names = [operation.name for operation in structure.operations]
    rows, layers, last = [], [], None
    for state in rounds:
        device = str(next(state.model.parameters()).device)
        accuracy = evaluate(state.model, validation, device=device)
        logger.info("round %d: validation accuracy %.4f", state.number, accuracy)
        if last is None or state.accepted:
            last = state
        rows.append(
            {
                "round": state.number,
                "weights": float(weights @ state.weight_density),
                "non_skipped_macs": float(macs @ (state.weight_density * state.input_density)),
                "energy_j": float(state.energy_j.sum()),
                "holdout_accuracy": state.holdout_accuracy,
                "accuracy": accuracy,
                "accepted": state.accepted,
            }
        )
        layers.append(
            pd.DataFrame(
                {
                    "round": state.number,
                    "layer": names,
                    "weight_density": state.weight_density,
                    "input_density": state.input_density,
                    "energy_j": state.energy_j,
                }
            )
        )
    assert last is not None
    return Record(pd.DataFrame(rows), pd.concat(layers, ignore_index=True), last)
