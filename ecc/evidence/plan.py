"""Which figure shows what, in the paper's numbering. Standard library only, so that rules may ask.

Source: Yang, Zhu, Liu, ECC, CVPR 2019: Figures 2 to 6, and 7 to 11 of its supplement.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Plan:
    """`subjects`: networks of energy models, or names of experiments; drawn where a run has them.

    `kind` is a function of `ecc.evidence.figures`; `stage` is of accuracies, `main` of widths:
    the main platform (the Jetson TX2 where there is one), or all others.
    """

    kind: str
    subjects: tuple[str, ...]
    stage: str = "after_finetuning"
    main: bool = True


FIGURES = {
    2: Plan("error_history", ("mobilenet",)),
    3: Plan("hidden_layers", ("mobilenet",)),
    4: Plan("accuracy", ("mobilenet",)),
    5: Plan("accuracy", ("alexnet",)),
    6: Plan("kept_widths", ("mobilenet", "alexnet")),
    7: Plan("accuracy", ("mobilenet",), stage="before_finetuning"),
    8: Plan("accuracy", ("alexnet",), stage="before_finetuning"),
    9: Plan("error_history", ("alexnet", "erfnet")),
    10: Plan("hidden_layers", ("alexnet", "erfnet")),
    11: Plan("kept_widths", ("mobilenet", "alexnet"), main=False),
}


def shown_platforms(plan: Plan, platforms: Iterable[str]) -> list[str]:
    """Those of an experiment's platforms that a figure of widths shows."""
    ordered = sorted(platforms, key=lambda name: (name != "jetson_tx2", name))
    return ordered[:1] if plan.main else ordered[1:]


def available(energy: Mapping[str, Any], experiments: Iterable[Mapping[str, Any]]) -> list[int]:
    """Numbers of the figures for which a run has data, by these two parts of the configuration."""
    by_name = {experiment["name"]: experiment for experiment in experiments}
    by_adam = any(model["fit"] == "adam" for model in energy["models"]) and energy["platforms"]

    def has(plan: Plan, subject: str) -> bool:
        if plan.kind in ("error_history", "hidden_layers"):
            return bool(by_adam) and subject in energy["networks"]
        experiment = by_name.get(subject)
        if experiment is None or plan.kind == "accuracy":
            return experiment is not None
        return "ecc" in experiment["methods"] and bool(
            shown_platforms(plan, experiment["platforms"])
        )

    return [n for n, plan in FIGURES.items() if any(has(plan, name) for name in plan.subjects)]
