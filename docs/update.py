"""Writes the numbers of README.md from the tables of a run, and copies its figure 4.

    .venv/bin/python docs/update.py            after `make figures`

What stands between `<!-- name -->` and `<!-- end -->` in the README is replaced.
"""

import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))

from ecc.evidence.names import name

ROOT = Path(__file__).parents[1]
MODELS = {
    "bilinear_chain_adam": "chain, Adam",
    "bilinear_chain_nnls": "chain, NNLS",
    "bilinear_graph_adam": "graph, Adam",
    "bilinear_graph_nnls": "graph, NNLS",
    "mlp1_adam": "MLP 1",
    "mlp2_adam": "MLP 2",
    "mlp3_adam": "MLP 3",
    "lookup_nnls": "look-up",
}


def accuracy(tables: Path) -> str:
    """Validation accuracy before and after fine-tuning, means over seeds; the best after it bold.

    Below it the largest standard deviation over seeds at any budget.
    """
    found = pd.read_csv(tables / "comparison.csv")
    runs = pd.read_csv(tables / "accuracy_at_budget.csv")
    methods = sorted(found["method"].unique(), key=lambda method: (method != "ecc", method))
    rows = []
    at_budget = found.groupby(["experiment", "platform", "budget_j"])
    for (experiment, platform, budget_j), group in sorted(at_budget, key=_widest_first):
        means = group.pivot(index="method", columns="stage", values="mean")
        best = means["after_finetuning"].max()
        cells = []
        for method in methods:
            before, after = means.loc[method, ["before_finetuning", "after_finetuning"]]
            shown = f"**{after:.3f}**" if after == best else f"{after:.3f}"
            cells.append(f"{before:.3f} → {shown}")
        fraction = group["budget_fraction"].iloc[0]
        where = f"{name(experiment)}, {name(platform)}"
        rows.append([where, f"{fraction:.2f} ({budget_j:.4f} J)", *cells])
    spread = found.groupby("stage")["std"].max()
    dense = runs.groupby("experiment")["dense_accuracy"].first()
    told = ", ".join(f"{name(key)} {value:.3f}" for key, value in dense.items())
    note = (
        f"Dense: {told}. Largest standard deviation over the seeds of any entry: "
        f"{spread['before_finetuning']:.3f} before, {spread['after_finetuning']:.3f} after."
    )
    return _table(["Network, emulated platform", "Budget / dense", *map(name, methods)], rows, note)


def energy_models(tables: Path) -> str:
    """Relative test errors in percent, of the networks that are fitted with all models."""
    found = pd.read_csv(tables / "energy_model_errors.csv")
    found["key"] = found["model"] + "_" + found["fit"]
    percent = 100 * found.pivot(
        index=["network", "platform"], columns="key", values="relative_test_error"
    )
    rows = [
        [f"{name(network)}, {name(platform)}", *(f"{row[key]:.2f}" for key in MODELS)]
        for (network, platform), row in percent.dropna().iterrows()
    ]
    return _table(["Error, %", *MODELS.values()], rows)


def verified(tables: Path) -> str:
    """How the measured energies of all slim networks stand to budgets and energy models."""
    runs = pd.read_csv(tables / "accuracy_at_budget.csv")
    anchors = pd.read_csv(tables / "energy_anchors.csv")
    off = 100 * (runs["modelled_energy_j"] / runs["measured_energy_j"] - 1).abs()
    over = 100 * max((runs["measured_energy_j"] / runs["budget_j"] - 1).max(), 0)
    apart = 100 * anchors["relative_difference"].abs().max()
    return _wrapped(
        f"Measured again, {runs['within_budget'].sum()} of {len(runs)} slim networks are within "
        f"their budget; the worst exceeds it by {over:.1f} %: budgets are spent by an energy "
        f"model, which is off by {off.mean():.1f} % on average over these networks and by "
        f"{off.max():.1f} % at most (`results/tables/accuracy_at_budget.csv`). Dense energies are "
        f"within "
        f"{apart:.1f} % of the {len(anchors)} published ones (`results/tables/energy_anchors.csv`)."
    )


BLOCKS = {"accuracy": accuracy, "energy_models": energy_models, "verified": verified}


def filled(text: str, tables: Path) -> str:
    """`text` with every block made anew. Raises ValueError where a block is not there once."""
    for block, make in BLOCKS.items():
        pattern = rf"(<!-- {block} -->\n).*?(<!-- end -->)"
        content = make(tables)
        text, count = re.subn(
            pattern, lambda found, new=content: found[1] + new + found[2], text, flags=re.DOTALL
        )
        if count != 1:
            raise ValueError(f"the text has {count} blocks '{block}', not one")
    return text


def _widest_first(entry: tuple[tuple[str, str, float], pd.DataFrame]) -> tuple[bool, str, float]:
    (experiment, platform, budget_j), _ = entry
    return experiment != "mobilenet", platform, -budget_j


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> str:
    lines = [header, ["---"] * len(header), *rows]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return table + (f"\n{_wrapped(note)}" if note else "")


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100, break_on_hyphens=False) + "\n"


def main(results: Path = ROOT / "results") -> None:
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text(), results / "tables"))
    shutil.copy(results / "figures/figure_04.png", ROOT / "docs/images/figure_04.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
