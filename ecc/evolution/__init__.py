"""Evolving networks for accuracy alone, or for accuracy and energy, and what their members cost.

After Young et al., Evolving Energy Efficient Convolutional Neural Networks (2019).
"""

from ecc.evolution.evaluation import Evaluator, evaluator
from ecc.evolution.genome import Space
from ecc.evolution.study import Settings, Study
from ecc.evolution.workers import workers

__all__ = ["Evaluator", "Settings", "Space", "Study", "evaluator", "workers"]
