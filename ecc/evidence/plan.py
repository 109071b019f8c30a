"""Which figure shows what, in the paper's numbering. Standard library only, so that rules may ask.

Source: Yang, Zhu, Liu, ECC, CVPR 2019: Figures 2 to 6, Table 2, and Figures 7 to 11 of its
supplement.
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
    "figure_02": Plan("error_history", ("mobilenet",)),
    "figure_03": Plan("hidden_layers", ("mobilenet",)),
    "figure_04": Plan("accuracy", ("mobilenet",)),
    "figure_05": Plan("accuracy", ("alexnet",)),
    "figure_06": Plan("kept_widths", ("mobilenet", "alexnet")),
    "figure_07": Plan("accuracy", ("mobilenet",), stage="before_finetuning"),
    "figure_08": Plan("accuracy", ("alexnet",), stage="before_finetuning"),
    "figure_09": Plan("error_history", ("alexnet", "erfnet")),
    "figure_10": Plan("hidden_layers", ("alexnet", "erfnet")),
    "figure_11": Plan("kept_widths", ("mobilenet", "alexnet"), main=False),
    "table_02": Plan("accuracy", ("erfnet",)),  # drawn as Figure 4 is, beside the table itself
}


def shown_platforms(plan: Plan, platforms: Iterable[str]) -> list[str]:
    """Those of an experiment's platforms that a figure of widths shows."""
    ordered = sorted(platforms, key=lambda name: (name != "jetson_tx2", name))
    return ordered[:1] if plan.main else ordered[1:]


def title(name: str) -> str:
    """What the paper calls it: "Figure 4" for figure_04."""
    kind, number = name.split("_")
    return f"{kind.capitalize()} {int(number)}"


def available(energy: Mapping[str, Any], experiments: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of the figures for which a run has data, by these two parts of the configuration."""
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

    return [key for key, plan in FIGURES.items() if any(has(plan, one) for one in plan.subjects)]
