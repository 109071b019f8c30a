"""Writes the numbers of pages from the tables of runs, and copies figures and reference results.

    .venv/bin/python docs/update.py            after `make figures`, or a run that PAGES names

What stands between `<!-- name -->` and `<!-- end -->` in a page is replaced; pages whose runs are
not in `results/` stay as they are.
"""

import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))

from ecc.evidence.claims import FAILS, HOLDS, OPEN
from ecc.evidence.names import name
from ecc.evidence.reproduction import CHECKSUMS, write_checksums

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
    """Validation score before and after fine-tuning, means over seeds; the best after it bold.

    It is accuracy, of ERFNet mean IoU. Below it the largest standard deviation over seeds at any
    budget.
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
            if method not in means.index:
                cells.append("")
                continue
            before, after = means.loc[method, ["before_finetuning", "after_finetuning"]]
            shown = f"**{after:.3f}**" if after == best else f"{after:.3f}"
            cells.append(f"{before:.3f} → {shown}")
        fraction = group["budget_fraction"].iloc[0]
        where = f"{name(experiment)}, {name(platform)}"
        rows.append([where, f"{fraction:.2f} ({budget_j:.4f} J)", *cells])
    spread = found.groupby("stage")["std"].max()
    dense = runs.groupby("experiment")["dense_accuracy"].first()
    score = runs.groupby("experiment")["score"].first()
    told = ", ".join(f"{name(key)} {value:.3f} ({score[key]})" for key, value in dense.items())
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
    worst = f"; the worst exceeds it by {over:.1f} %" if over else ""
    apart = 100 * anchors["relative_difference"].abs().max()
    return _wrapped(
        f"Measured again, {runs['within_budget'].sum()} of {len(runs)} slim networks are within "
        f"their budget{worst}: budgets are spent by an energy model, and closed by measurement "
        f"before fine-tuning. The model is off by {off.mean():.1f} % on average over these "
        f"networks and by {off.max():.1f} % at most "
        f"(`results/tables/accuracy_at_budget.csv`). Dense energies are within "
        f"{apart:.2f} % of the {len(anchors)} published ones (`results/tables/energy_anchors.csv`)."
    )


def verdicts(tables: Path) -> str:
    """How many of the papers' claims hold."""
    found = pd.read_csv(tables / "claims.csv")["verdict"]
    counts = ", ".join(f"{(found == verdict).sum()} {told}" for verdict, told in VERDICTS.items())
    return _wrapped(
        f"Of {len(found)} claims of the papers, {counts}: [docs/claims.md](docs/claims.md) "
        "has each, with the reason."
    )


def claims(tables: Path) -> str:
    """Every claim: what the paper states, what the run found, the verdict and the reason."""
    found = pd.read_csv(tables / "claims.csv")

    def number(value: float) -> str:
        return "" if pd.isna(value) else f"{value:.4g}"

    rows = [
        [
            *(row["source"], row["claim"], number(row["paper"])),
            number(row["ours"])
            + (f" ({row['low']:.3g} to {row['high']:.3g})" if row["low"] < row["high"] else ""),
            *(row["verdict"], "" if pd.isna(row["reason"]) else row["reason"]),
        ]
        for _, row in found.iterrows()
    ]
    return _table(["Source", "Claim", "Paper", "Here (95 %)", "Verdict", "Why"], rows)


def methods(tables: Path) -> str:
    """Accuracy after fine-tuning of every method at every budget, mean and deviation over seeds."""
    found = _after_finetuning(tables)
    return _by_budget(found[found["experiment"] == "mobilenet"])


def iterations(tables: Path) -> str:
    """The same for experiments that differ in their iterations, one table below the other."""
    return _by_experiment(tables, _by_budget)


def ablation(tables: Path) -> str:
    """The same, and by how much `ecc_outputs` is above each of the others.

    A spread is the larger standard deviation over seeds of the two.
    """
    return _by_experiment(tables, lambda found: f"{_by_budget(found)}\n{_gains(found)}")


def terms(tables: Path) -> str:
    """What a run of each method used, on average over budgets, seeds and platforms."""
    found = pd.read_csv(tables / "equal_terms.csv")
    hardware = found["hardware"].iloc[0]
    found = found[found["experiment"] == "mobilenet"].drop(columns=["experiment", "platform"])
    peak = found.groupby("method")["peak_memory_mb"].max()
    mean = found.groupby("method").mean(numeric_only=True).assign(peak_memory_mb=peak)
    rows = [
        [
            name(str(method)),
            *(f"{row[key]:,.0f}" for key in TERMS if key != "accuracy"),
            f"{row['accuracy']:.3f}",
        ]
        for method, row in mean.sort_values("accuracy", ascending=False).iterrows()
    ]
    return _table(["A run of", *TERMS.values()], rows, f"Seconds are those of {hardware}.")


VERDICTS = {
    HOLDS: "hold in the complete run (`make complete`)",
    FAILS: "do not hold",
    OPEN: "are not testable at its scale",
}
SETTINGS = {  # of experiments that stand beside that of configs/methods.yaml
    "mobilenet": "As in `configs/methods.yaml`",
    "mobilenet_8_times": "8 times the iterations",
    "mobilenet_less_finetuning": "180 iterations, fine-tuning at 2e-3, no closing",
}
TERMS = {
    "iterations": "iterations",
    "images_seen": "training images",
    "evaluations": "hold-out passes",
    "images_evaluated": "hold-out images",
    "seconds": "seconds",
    "peak_memory_mb": "peak MB",
    "accuracy": "accuracy",
}
Block = Callable[[Path], str]
README: dict[str, Block] = {
    "accuracy": accuracy,
    "energy_models": energy_models,
    "verified": verified,
}
PAGES: Sequence[tuple[str, str, dict[str, Block]]] = (  # page, folder of the run, blocks
    ("README.md", "", README),
    ("README.md", "complete", {"verdicts": verdicts}),
    ("docs/claims.md", "complete", {"claims": claims}),
    ("docs/methods/README.md", "methods", {"methods": methods, "terms": terms}),
    ("docs/methods/README.md", "iterations", {"iterations": iterations}),
    ("docs/methods/ecc_outputs.md", "ablation", {"ablation": ablation}),
)
FIGURES = {"": "figure_04", "methods": "methods"}  # by folder: the name in docs/images
REFERENCES = ROOT / "resources/reference_results"


def filled(text: str, tables: Path, blocks: dict[str, Block]) -> str:
    """`text` with every block made anew. Raises ValueError where a block is not there once."""
    for block, make in blocks.items():
        pattern = rf"(<!-- {block} -->\n).*?(<!-- end -->)"
        content = make(tables)
        text, count = re.subn(
            pattern, lambda found, new=content: found[1] + new + found[2], text, flags=re.DOTALL
        )
        if count != 1:
            raise ValueError(f"the text has {count} blocks '{block}', not one")
    return text


def refer(tables: Path, reference: Path) -> None:
    """Copies the tables that are in `reference` from those of a run, and writes their checksums."""
    for path in reference.glob("*.csv"):
        shutil.copy(tables / path.name, path)
    write_checksums(reference, reference / CHECKSUMS)


def _by_budget(found: pd.DataFrame) -> str:
    """Rows are methods, the best on average first; columns are budgets, the best of each bold."""
    budgets = _budgets(found)
    ranked = found.groupby("method")["mean"].mean().sort_values(ascending=False).index

    def cell(method: str, of: pd.DataFrame) -> str:
        row, best = of.loc[method], of["mean"].max()
        mean = f"**{row['mean']:.3f}**" if row["mean"] == best else f"{row['mean']:.3f}"
        return f"{mean} ± {row['std']:.3f}"

    rows = [[name(method), *(cell(method, of) for of in budgets.values())] for method in ranked]
    return _table(["Method", *budgets], rows)


def _gains(found: pd.DataFrame) -> str:
    """Rows are the methods that `ecc_outputs` is compared with, columns budgets."""
    budgets = _budgets(found)

    def gain(method: str, of: pd.DataFrame) -> str:
        ours, other = of.loc["ecc_outputs"], of.loc[method]
        above, spread = ours["mean"] - other["mean"], max(ours["std"], other["std"])
        return f"{above:+.3f} ({above / spread:.1f} spreads)"

    rows = [
        [name(method), *(gain(method, of) for of in budgets.values())]
        for method in found["method"].unique()
        if method != "ecc_outputs"
    ]
    return _table(["Gain over", *budgets], rows)


def _by_experiment(tables: Path, told: Callable[[pd.DataFrame], str]) -> str:
    """What is told of each experiment's accuracies after fine-tuning, in the order of SETTINGS."""
    found = _after_finetuning(tables)
    order = sorted(found["experiment"].unique(), key=list(SETTINGS).index)
    return "\n".join(
        f"{SETTINGS[each]}:\n\n{told(found[found['experiment'] == each])}" for each in order
    )


def _after_finetuning(tables: Path) -> pd.DataFrame:
    found = pd.read_csv(tables / "comparison.csv")
    return found[found["stage"] == "after_finetuning"]


def _budgets(found: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """By the head of a column, what was found at a budget, by the method; the widest first."""
    of = dict(iter(found.groupby(["platform", "budget_fraction"])))
    return {
        f"{name(platform)}, {budget:.2f}": of[platform, budget].set_index("method")
        for platform, budget in sorted(of, key=lambda key: (key[0], -key[1]))
    }


def _widest_first(entry: tuple[tuple[str, str, float], pd.DataFrame]) -> tuple[int, str, float]:
    (experiment, platform, budget_j), _ = entry
    first = ["mobilenet", "alexnet", "erfnet"]
    rank = first.index(experiment) if experiment in first else len(first)
    return rank, platform, -budget_j


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> str:
    lines = [header, ["---"] * len(header), *rows]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return table + (f"\n{_wrapped(note)}" if note else "")


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100, break_on_hyphens=False) + "\n"


def main(results: Path = ROOT / "results") -> None:
    for page, folder, blocks in PAGES:
        tables, path = results / folder / "tables", ROOT / page
        if not tables.is_dir():
            print(f"{page} stays as it is: there is no {tables}")
            continue
        path.write_text(filled(path.read_text(), tables, blocks))
        if folder in FIGURES:
            shutil.copy(
                results / folder / "figures/figure_04.png",
                ROOT / f"docs/images/{FIGURES[folder]}.png",
            )
        if (reference := REFERENCES / (folder or "default")).is_dir():
            refer(tables, reference)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
