"""Energy-aware pruning of single weights, as published: `Study` (EAP, CVPR 2017).

Not a method under a budget: it has an accuracy threshold, and its energy is that of hardware which
skips zeros (`ecc.methods.eap` removes whole channels, under a budget).
"""

from ecc.finegrained.classes import FewerClasses, load_fewer
from ecc.finegrained.energy import dense_layers, of_layers
from ecc.finegrained.records import Progress, Record, record
from ecc.finegrained.rounds import Energy, Round, Settings, Study

__all__ = [
    "Energy",
    "FewerClasses",
    "Progress",
    "Record",
    "Round",
    "Settings",
    "Study",
    "dense_layers",
    "load_fewer",
    "of_layers",
    "record",
]
