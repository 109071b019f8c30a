"""What a run found in each of its figures and tables, in a sentence: for captions.

All of it is reStructuredText made from the tables of the run; none where it has no data.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from ecc.evidence import names, plan
from ecc.evidence.claims import FAILS, HOLDS, OPEN
from ecc.evidence.eap import last_accepted
from ecc.evidence.tables import unlimited
from ecc.metrics import UNITS, from_table, pareto

HIDDEN = {"bilinear_chain": "no hidden layer", "mlp1": "one", "mlp2": "two", "mlp3": "three"}
VERDICTS = {HOLDS: "hold", FAILS: "do not hold", OPEN: "are not testable at this scale"}


@dataclass(frozen=True)
class Run:
    """What captions are made from.

    `settings` is the whole configuration; `titles` are printed names of platforms; `tables` those
    of the run by name. `converged` are history and metrics of the run of ECC that is shown,
    `searches` AMC's episodes, `swept` energies along widths by (platform, network).
    """

    settings: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame]
    titles: Mapping[str, str]
    converged: tuple[pd.DataFrame, Mapping[str, Any]] | None = None
    searches: pd.DataFrame | None = None
    swept: Mapping[tuple[str, str], pd.DataFrame] = field(default_factory=dict)

    def table(self, name: str) -> pd.DataFrame:
        """With the names of columns that code has; empty where the run has no such table."""
        return from_table(self.tables[name]) if name in self.tables else pd.DataFrame()

    def title(self, key: tuple[str, str]) -> str:
        """Of an experiment, or a network, and a platform."""
        return names.panel_title(key, self.titles)

    def experiments(self, only: Iterable[str] | None = None) -> list[Mapping[str, Any]]:
        entries = self.settings["experiments"]
        return [entry for entry in entries if only is None or entry["name"] in only]


def listed(texts: Iterable[str]) -> str:
    return ", ".join(texts)


def percent(share: float, digits: int = 1) -> str:
    return "not known" if pd.isna(share) else f"{100 * share:.{digits}f} %"


def _each(lead: str, parts: Sequence[str]) -> str:
    """A list below `lead`; none of no parts."""
    lines = "\n".join(f"- {part}" for part in parts)
    return f"{lead}:\n\n{lines}" if parts else ""


def _plain(text: str) -> str:
    """Without what is markup."""
    return re.sub(r"([\\*`|_])", r"\\\1", text)


def _tightest(run: Run, stage: str, only: Iterable[str] | None = None) -> str:
    """Mean scores of all methods at the tightest budget of each experiment and platform."""
    found = run.table("comparison")
    if not len(found):
        return ""
    found = unlimited(found[found["stage"] == stage])
    parts = []
    for key, group in found.groupby(["experiment", "platform"], sort=False):
        if only is not None and key[0] not in only:
            continue
        tight = group[group["budget_fraction"] == group["budget_fraction"].min()]
        tight = tight.sort_values("mean", ascending=False)
        scores = [f"{names.name(row.method)} {row.mean:.3f}" for row in tight.itertuples()]
        score = tight["score"].iloc[0]
        fraction, unit = tight["budget_fraction"].iloc[0], UNITS[tight["metric"].iloc[0]]
        parts.append(
            f"{run.title(key)}, at {fraction:.2f} of dense "
            f"({tight['budget_j'].iloc[0]:.4g} {unit}), {score}: {listed(scores)}"
        )
    return _each("means over seeds at the tightest budget", parts)


def _of_accuracy(name: str) -> Callable[[Run], str]:
    figure = plan.FIGURES[name]
    return lambda run: (
        _tightest(run, figure.stage, figure.subjects) or "no experiment of this name was run."
    )


def _errors(run: Run, only: Iterable[str] | None, models: Mapping[str, str]) -> str:
    """Relative test errors of models, with their printed names, fitted by Adam."""
    found = run.table("energy_model_errors")
    parts: list[str] = []
    for (network, platform), group in found.groupby(["network", "platform"], sort=False):
        if only is not None and network not in only:
            continue
        of = group[group["fit"] == "adam"].set_index("model")["relative_test_error"]
        told = [f"{title} {percent(of[model])}" for model, title in models.items() if model in of]
        if told:
            parts.append(f"{names.name(network)}, {run.titles[platform]}: {listed(told)}")
    return _each("relative test errors", parts)


def _of_errors(name: str) -> Callable[[Run], str]:
    figure = plan.FIGURES[name]
    models = names.FORMS if figure.kind == "error_history" else HIDDEN
    return lambda run: _errors(run, figure.subjects, models)


def _of_all_errors(run: Run) -> str:
    found = run.table("energy_model_errors")
    if not len(found):
        return ""
    found = found.sort_values("relative_test_error")
    best, worst = ({**found.iloc[place]} for place in (0, -1))

    def told(row: Mapping[str, Any]) -> str:
        where = run.title((row["network"], row["platform"]))
        return f"{percent(row['relative_test_error'])} (``{row['model']}_{row['fit']}``, {where})"

    return f"relative test errors from {told(best)} to {told(worst)}."


def _of_widths(figure: str | None) -> Callable[[Run], str]:
    """Mean share of the channels that ECC, or every method, leaves at the tightest budget."""

    def told(run: Run) -> str:
        found = run.table("widths")
        of = plan.FIGURES[figure] if figure else None
        parts = []
        for key, group in found.groupby(["experiment", "platform"], sort=False):
            experiments = run.experiments([key[0]])
            if of and (
                key[0] not in of.subjects
                or key[1] not in plan.shown_platforms(of, experiments[0]["platforms"])
            ):
                continue
            group = group[group["method"] == "ecc"] if of else group
            tight = group[group["budget_fraction"] == group["budget_fraction"].min()]
            share = tight["width"] / tight["full_width"]
            means = share.groupby(tight["group"], sort=False).mean()
            narrow, wide = means.idxmin(), means.idxmax()
            parts.append(
                f"{run.title(key)}, at "
                f"{tight['budget_fraction'].iloc[0]:.2f} of dense: {percent(share.mean(), 0)}, "
                f"from {percent(means[narrow], 0)} (``{narrow}``) to {percent(means[wide], 0)} "
                f"(``{wide}``)"
            )
        whose = "ECC leaves" if of else "all methods leave"
        lead = f"channels of a group that {whose} at the tightest budget, on average"
        return _each(lead, parts)

    return told


def _of_measured(run: Run) -> str:
    runs = run.table("accuracy_at_budget")
    known = runs[runs["measured_energy_j"].notna()]
    if not len(known):
        return f"{len(runs)} runs; no platform could measure them."
    off = (known["modelled_energy_j"] / known["measured_energy_j"] - 1).abs()
    over = known["measured_energy_j"] / known["budget_j"] - 1
    worst = known.loc[over.idxmax()]
    sign = "above" if over.max() > 0 else "below"
    return (
        f"of {len(known)} networks measured, {int((over <= 0).sum())} are within their budget; the "
        f"highest is {percent(abs(over.max()))} {sign} it ({names.name(worst['method'])}, "
        f"{run.title((worst['experiment'], worst['platform']))}). The energy "
        f"model is off by {percent(off.mean())} on average and {percent(off.max())} at most."
    )


def _of_comparison(run: Run) -> str:
    return _tightest(run, "after_finetuning")


def _of_finetuning(run: Run) -> str:
    runs = run.table("accuracy_at_budget")
    gain = runs["accuracy"] - runs["accuracy_before_finetuning"]
    means = gain.groupby(runs["method"]).mean().sort_values(ascending=False)
    told = [f"{names.name(method)} {value:+.3f}" for method, value in means.items()]
    return f"mean gain by fine-tuning: {listed(told)}; the largest of a run {gain.max():+.3f}."


def _of_fronts(run: Run) -> str:
    runs = unlimited(run.table("accuracy_at_budget"))
    runs = runs.assign(energy_j=runs["measured_energy_j"].fillna(runs["modelled_energy_j"]))
    groups = [group for _, group in runs.groupby(["experiment", "platform"])]
    front = pd.concat([group[pareto(group)] for group in groups])
    counts = front["method"].value_counts()
    told = [f"{count} of {names.name(method)}" for method, count in counts.items()]
    shown = f"of {len(groups)} panels are {len(front)} of {len(runs)} runs"
    return f"on the fronts {shown}: {listed(told)}."


def _of_closing(run: Run) -> str:
    found = run.table("closing")
    if not len(found):
        return "no budget was closed by measurement (``closing_rounds`` is 0)."
    narrowed, known = found[found["rounds"] > 0], found["closed"].dropna()
    cost = found["holdout_accuracy_before"] - found["holdout_accuracy_after"]
    told = (
        f"for {len(narrowed)} of {len(found)} budgets and limits a network measured above and was "
        f"narrowed; the last measurement of {int(known.astype(bool).sum())} of {len(known)} is "
        "inside."
    )
    if not len(narrowed):
        return told
    lost = cost[narrowed.index]
    return (
        f"{told} It cost {lost.mean():.3f} of hold-out score on average, {lost.max():.3f} at most."
    )


def _of_limits(run: Run) -> str:
    found = run.table("limits")
    if not len(found):
        return "no budget came with limits."
    within = found["within_limit"].dropna().astype(bool)
    accuracies = found["accuracy"]
    return (
        f"{int(within.sum())} of {len(within)} limits hold; scores from {accuracies.min():.3f} to "
        f"{accuracies.max():.3f}."
    )


def _of_differences(run: Run) -> str:
    found = run.table("differences")
    if not len(found):
        return ""
    after = found[found["stage"] == "after_finetuning"]
    below, above = (after["high"] < 0).sum(), (after["low"] > 0).sum()

    def told(row: Mapping[str, Any]) -> str:
        where = run.title((row["experiment"], row["platform"]))
        return (
            f"{row['minus_ecc']:+.3f} ({names.name(row['method'])}, {where}, "
            f"{row['budget_fraction']:.2f} of dense)"
        )

    least, most = after.loc[after["minus_ecc"].idxmin()], after.loc[after["minus_ecc"].idxmax()]
    return (
        f"after fine-tuning, from {told(least)} to {told(most)}; of {len(after)} intervals {below} "
        f"are wholly below zero, where ECC is better, and {above} wholly above."
    )


def _of_ranking(run: Run) -> str:
    found = run.table("ranking")
    if not len(found):
        return ""
    after = found[found["stage"] == "after_finetuning"]
    ranks = after.groupby("method")["mean_rank"].mean().sort_values()
    told = [f"{names.name(method)} {rank:.2f}" for method, rank in ranks.items()]
    groups = after.groupby(["experiment", "platform", "limits"])["mean_rank"]
    first = after[after["mean_rank"] == groups.transform("min")]
    return (
        f"mean rank after fine-tuning, over experiments and platforms: {listed(told)}; ECC is "
        f"first, or shares it, in {(first['method'] == 'ecc').sum()} of {groups.ngroups}."
    )


def _of_residuals(run: Run) -> str:
    found = run.table("energy_model_residuals")
    own = found[(found["model"] == "bilinear_chain") & (found["fit"] == "adam")]
    own = own if len(own) else found
    if not len(own):
        return ""
    worst = own.loc[own["mean_relative_residual"].abs().idxmax()]
    return (
        f"the largest mean residual of ``{worst['model']}_{worst['fit']}`` is "
        f"{100 * worst['mean_relative_residual']:+.1f} % (group ``{worst['group']}``, widths "
        f"{worst['width_from']:.1f} to {worst['width_to']:.1f} of full, "
        f"{run.title((worst['network'], worst['platform']))}), the mean of all "
        f"{percent(own['mean_relative_residual'].abs().mean(), 2)} in size."
    )


def _of_anchors(run: Run) -> str:
    found = run.table("energy_anchors")
    if not len(found):
        return "no network of the papers was sampled on a platform of theirs."
    off = found["relative_difference"].abs()
    return f"{len(found)} published energies; the largest difference is {percent(off.max())}."


def _of_equal_terms(run: Run) -> str:
    found = run.table("equal_terms").groupby("method")["seconds"].mean().sort_values()
    told = [f"{names.name(method)} {seconds:.0f}" for method, seconds in found.items()]
    return f"mean seconds of a run: {listed(told)}. {_machines(run.table('equal_terms'))}"


def _of_timings(run: Run) -> str:
    found = run.table("timings")
    longest = found.loc[found["seconds"].idxmax()]
    return (
        f"the longest of {len(found)} stages took {longest['seconds']:.0f} seconds "
        f"({longest['what'].partition(' (')[0]}), the largest "
        f"{found['peak_memory_mb'].max():.0f} MB. " + _machines(found)
    )


def _machines(found: pd.DataFrame) -> str:
    return f"On: {_plain(' / '.join(sorted(found['hardware'].dropna().unique())))}."


def _of_efficiency(run: Run) -> str:
    rules = run.table("efficiency")
    if not len(rules):
        return ""
    (whole,) = run.table("run_efficiency").to_dict("records")
    return (
        f"{whole['jobs']} jobs in {whole['wall_seconds'] / 60:.0f} minutes on {whole['cores']} "
        f"cores, parallel efficiency {percent(whole['parallel_efficiency'], 0)}; "
        f"{percent(rules['share'].iloc[0], 0)} of the time is rule ``{rules['rule'].iloc[0]}``; "
        f"the critical path is {whole['critical_path_seconds'] / 60:.0f} minutes."
    )


def _of_claims(run: Run) -> str:
    found = run.table("claims")["verdict"].value_counts()
    counts = [f"{found.get(verdict, 0)} {told}" for verdict, told in VERDICTS.items()]
    return f"of {found.sum()} claims {listed(counts)}."


def _of_provenance(run: Run) -> str:
    found = run.table("provenance")
    jobs = len(found[["rule", "job"]].drop_duplicates())
    return (
        f"{len(found)} files of {jobs} jobs, by commit {listed(sorted(found['commit'].unique()))}. "
        + _machines(found)
    )


def _of_repeatability(run: Run) -> str:
    found = run.table("repeatability")
    if not len(found):
        return "no platform of this run is read by a sensor."
    told = [
        f"{names.name(row.network)}, {run.titles[row.platform]}: repeatability "
        f"{percent(row.repeatability, 2)}, spread of the reference "
        f"{percent(row.reference_spread, 2)} before and "
        f"{percent(row.reference_spread_corrected, 2)} after correction"
        for row in found.itertuples()
    ]
    return _each("by campaign", told)


def _of_staircase(run: Run) -> str:
    told = []
    for (platform, network), frame in run.swept.items():
        frame = from_table(frame)
        for group, rows in frame.groupby("group"):
            unit = UNITS[rows["metric"].iloc[0]]
            told.append(
                f"{run.title((network, platform))}, group ``{group}``: "
                f"{len(rows)} widths, from {rows['energy_j'].min():.4g} to "
                f"{rows['energy_j'].max():.4g} {unit}"
            )
    return _each("from the smallest to the largest", told)


def _found_convergence(run: Run) -> str:
    if run.converged is None:
        return ""
    history, told = run.converged
    history = from_table(history)
    energy, unit = history["energy_j"], UNITS[history["metric"].iloc[0]]
    return (
        f"energy by the model goes from {energy.iloc[0]:.4g} to {energy.iloc[-1]:.4g} {unit} in "
        f"{int(history['iteration'].iloc[-1])} iterations, where the budget is "
        f"{told['budget_j']:.4g} {unit}; z ends at {history['z'].iloc[-1]:.3g}. The score is "
        f"{told['accuracy_before_finetuning']:.3f} then and {told['accuracy']:.3f} after "
        f"fine-tuning."
    )


def _of_learning(run: Run) -> str:
    if run.searches is None or not len(run.searches):
        return ""
    keys = ["experiment", "platform", "method"]
    told = []
    for (experiment, platform, method), group in run.searches.groupby(keys, sort=False):
        random = group[group["noise"].isna()]["holdout_accuracy"].mean()
        last = group[group["episode"] > group["episode"].max() - 20]["holdout_accuracy"].mean()
        where = run.title((experiment, platform))
        told.append(f"{names.name(method)}, {where}: {random:.3f} at random, {last:.3f} at the end")
    count = int(run.searches["episode"].max()) + 1
    last = f"in the last {min(20, count)} of {count} episodes"
    lead = f"mean reward over budgets and seeds, at random and {last}"
    return _each(lead, told)


def _of_layer_energy(run: Run) -> str:
    found = run.table("eap_layers")
    told = []
    for network, rows in found.groupby("network", sort=False):
        most, total = rows.loc[rows["energy_mac"].idxmax()], rows["energy_mac"].sum()
        told.append(
            f"{names.name(network)}: {total:.3g}, most in ``{most['operation']}`` "
            f"({percent(most['energy_mac'] / total, 0)})"
        )
    return _each("energy of an image in units of one MAC", told)


def _of_networks(run: Run) -> str:
    found = run.table("eap_networks")
    if not len(found):
        return ""
    fewest, cheapest = (found.loc[found[key].idxmin()] for key in ("weights", "energy_mac"))
    convolutions = found["convolution_fraction"]
    known = found["relative_difference"].dropna()
    told = (
        f"the fewest weights has {names.name(fewest['network'])}, the least energy "
        f"{names.name(cheapest['network'])}; convolutions take {percent(convolutions.min(), 0)} to "
        f"{percent(convolutions.max(), 0)} of it."
    )
    if not len(known):
        return told
    off = f"{percent(known.abs().min(), 0)} to {percent(known.abs().max(), 0)}"
    return f"{told} From {len(known)} published energies ours differ by {off}."


def _of_results(run: Run) -> str:
    found = run.table("eap_results")
    if not len(found):
        return ""
    told = [
        f"{names.name(row.network)} by {names.name(row.method)}: "
        f"{percent(row.energy_mac_fraction, 0)} of the dense energy, top-5 accuracy {row.top5:.3f}"
        for row in found[found["method"] != "dense"].itertuples()
    ]
    told = told or ["of these networks EAP states no results"]
    return _each("as published; nothing was pruned on ImageNet here", told)


def _of_table_01(run: Run) -> str:
    found = run.table("table_01")
    told = (f"{names.name(row.method)} {row.networks}" for row in found.itertuples())
    return f"networks of each: {listed(told)}." if len(found) else ""


def _of_rounds(run: Run) -> str:
    found = run.table("eap_pruning")
    if not len(found):
        return ""
    told = []
    for arm, last in last_accepted(found, ["arm", "seed"]).groupby("arm"):
        mean = last[["energy_j_fraction", "weights_fraction", "accuracy"]].mean()
        told.append(
            f"{names.name(arm)}: {percent(mean['energy_j_fraction'], 0)} of the energy and "
            f"{percent(mean['weights_fraction'], 0)} of the weights, accuracy "
            f"{mean['accuracy']:.3f}"
        )
    return _each("the last round above its threshold, means over seeds", told)


def _of_classes(run: Run) -> str:
    found = run.table("eap_classes")
    if not len(found):
        return ""
    told = [
        f"{classes} classes {percent(rows['energy_j_fraction'].mean(), 0)}"
        for classes, rows in found.groupby("classes", sort=False)
    ]
    left = "energy left, of the dense network of most classes, means over seeds"
    return f"{left}: {listed(told)}."


def _of_evolved(run: Run) -> str:
    found = run.tables["evolution_networks"]  # has energies and times, of which none is the metric
    told = [
        f"{study}, for {'accuracy alone' if arm == 'accuracy' else 'accuracy and energy'}: "
        f"{len(rows)} networks, the best with hold-out accuracy {rows['accuracy'].max():.3f}, "
        f"energies from {rows['energy_j'].min():.3g} to {rows['energy_j'].max():.3g} J"
        for (study, arm), rows in found.groupby(["study", "arm"], sort=False)
    ]
    return _each("by study and aim", told)


def _of_hypervolume(run: Run) -> str:
    found = run.table("evolution_history")
    told = []
    for (study, arm), rows in found.groupby(["study", "arm"], sort=False):
        ends = rows[rows["generation"] == rows["generation"].max()]["hypervolume"]
        told.append(f"{study}, arm {arm}: {ends.mean():.3g}")
    return _each("mean over seeds in the last generation", told)


FOUND: dict[str, Callable[[Run], str]] = {
    **{name: _of_accuracy(name) for name, of in plan.FIGURES.items() if of.kind == "accuracy"},
    **{
        name: _of_errors(name)
        for name, of in plan.FIGURES.items()
        if of.kind in ("error_history", "hidden_layers")
    },
    **{name: _of_widths(name) for name, of in plan.FIGURES.items() if of.kind == "kept_widths"},
    "accuracy_at_budget": _of_measured,
    "claims": _of_claims,
    "closing": _of_closing,
    "comparison": _of_comparison,
    "convergence": _found_convergence,
    "differences": _of_differences,
    "drift": _of_repeatability,
    "eap_classes": _of_classes,
    "eap_layers": _of_layer_energy,
    "eap_networks": _of_networks,
    "eap_pruning": _of_rounds,
    "eap_results": _of_results,
    "efficiency": _of_efficiency,
    "energy_anchors": _of_anchors,
    "energy_model_errors": _of_all_errors,
    "energy_model_history": lambda run: _errors(run, None, names.FORMS),
    "energy_model_residuals": _of_residuals,
    "equal_terms": _of_equal_terms,
    "evolution_fronts": _of_evolved,
    "evolution_hypervolume": _of_hypervolume,
    "evolution_networks": _of_evolved,
    "evolution_spread": _of_evolved,
    "finetuning": _of_finetuning,
    "fronts": _of_fronts,
    "learning": _of_learning,
    "limits": _of_limits,
    "measured": _of_measured,
    "provenance": _of_provenance,
    "ranking": _of_ranking,
    "repeatability": _of_repeatability,
    "residuals": _of_residuals,
    "staircase": _of_staircase,
    "table_01": _of_table_01,
    "timings": _of_timings,
    "widths": _of_widths(None),
}
