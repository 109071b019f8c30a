"""Captions of figures and tables: what is shown, what this run found in it, and its settings.

What is shown is text, one file each in docs/report. Numbers and settings come from the run. All of
it is reStructuredText, for the page and for Snakemake's report alike.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from docutils.core import publish_parts

from ecc import config
from ecc.budgets import Budget
from ecc.evidence import names, plan
from ecc.evidence.findings import FOUND, Run, listed

PHYSICAL = (
    "An emulated platform is a physical model calibrated on published energies: no such device "
    "was measured."
)
SIMULATED = "A simulated sensor reads such a model; its clock, lag, drift and noise are made up."


@dataclass(frozen=True)
class Caption:
    """Its parts in reStructuredText; `found` and `settings` may be empty."""

    shown: str
    found: str = ""
    settings: str = ""

    @property
    def text(self) -> str:
        found = f"**In this run:** {self.found}" if self.found else ""
        settings = f"**Settings.**\n\n{self.settings}" if self.settings else ""
        return "\n\n".join(part for part in (self.shown.strip(), found, settings) if part) + "\n"


def make(name: str, shown: str, run: Run) -> Caption:
    """The caption of a figure or table; `shown` is the text of its file."""
    find, tell = FOUND.get(name), SETTINGS.get(name, _of_experiments)
    return Caption(shown, find(run) if find else "", tell(run))


def html(text: str) -> str:
    """Of reStructuredText, from which no file is read."""
    limits = {"file_insertion_enabled": False, "raw_enabled": False, "doctitle_xform": False}
    return str(publish_parts(text, writer="html5", settings_overrides=limits)["body"])


def _of_experiments(run: Run, only: Iterable[str] | None = None) -> str:
    entries = run.experiments(only)
    told = [platform for entry in entries for platform in entry["platforms"]]
    return _with_platforms(run, [_experiment(run, entry) for entry in entries], told)


def _experiment(run: Run, entry: Mapping[str, Any]) -> str:
    network = run.settings["networks"][entry["network"]]
    size = " x ".join(map(str, network["deployment_size"]))
    finetuning = sum(phase["iterations"] for phase in entry["finetuning"])
    model = config.model_label(config.used_model(dict(run.settings), entry["name"]))
    return (
        f"{names.name(entry['name'])}: network {entry['network']} at {size} pixels, data "
        f"{entry['dataset']}; {listed(run.titles[name] for name in entry['platforms'])}; methods "
        f"{listed(map(names.name, entry['methods']))}; budgets "
        f"{listed(Budget.from_settings(budget).label for budget in entry['budgets'])}; seeds "
        f"{listed(map(str, entry['seeds']))}; iterations: {entry['dense']['iterations']} dense, "
        f"{entry['compression']['iterations']} of compression and {finetuning} of fine-tuning for "
        f"every method; energy model ``{model}``."
    )


def _of_energy(run: Run, only: Iterable[str] | None = None) -> str:
    fitted = run.table("energy_model_errors")
    if not len(fitted):
        return ""
    fitted = fitted if only is None else fitted[fitted["network"].isin(only)]
    done = {f"{row.model}_{row.fit}" for row in fitted.itertuples()}
    fits = [
        f"``{label}``" + (f" ({model['iterations']} iterations)" if "iterations" in model else "")
        for model in run.settings["energy"]["models"]
        if (label := config.model_label(model)) in done
    ]
    networks = listed(map(names.name, fitted["network"].unique()))
    lines = [f"Networks {networks}; energy models {listed(fits)}."]
    for platform, of in fitted.groupby("platform"):
        tests = of["test_samples"].iloc[0]
        lines.append(
            f"{run.titles[platform]}: {of['train_samples'].iloc[0] + tests} random width vectors, "
            f"of which {tests} are for testing; seed {run.settings['seed']}."
        )
    return _with_platforms(run, lines, fitted["platform"].unique())


def _of_sensors(run: Run) -> str:
    found = run.table("repeatability")
    lines = [
        f"{run.titles[row.platform]}, {names.name(row.network)}: {row.samples} samples in "
        f"{row.windows} windows, {row.references} of them of the reference network; sensor "
        f"{row.sensor}."
        for row in found.itertuples()
    ]
    return _with_platforms(run, lines, found["platform"].tolist() if len(found) else [])


def _of_pruning(run: Run) -> str:
    if not (study := run.settings["eap"]):
        return ""
    classes = listed(map(str, study["classes"]))
    lines = [
        f"The dense network of experiment {study['experiment']}; ways "
        f"{listed(map(names.name, study['arms']))}; {classes} target classes; "
        f"{study['finetuning']['iterations']} iterations of training after each round; seeds "
        f"{listed(map(str, config.eap_seeds(dict(run.settings))))}; energy of "
        f"{run.titles[study['platform']]}."
    ]
    return _with_platforms(run, lines, [study["platform"]])


def _of_layers(run: Run) -> str:
    if not (study := run.settings["eap"]):
        return ""
    dense = study["dense"]
    lines = [
        f"Networks {listed(map(names.name, dense['networks']))}, not trained; {dense['batch']} "
        f"images share the weights of a layer, zeros are counted on {dense['images']}; seed "
        f"{run.settings['seed']}; energy of {run.titles[study['platform']]}, in units "
        "of one MAC."
    ]
    return _with_platforms(run, lines, [study["platform"]])


def _of_evolution(run: Run) -> str:
    studies = run.settings["evolution"]
    lines = [
        f"{name}: {study['population']} new networks in each of {study['generations'] + 1} "
        f"generations (fewer where the space has no more); seeds "
        f"{listed(map(str, study['seeds']))}; {study['training']['iterations']} iterations of "
        f"training each, on {study['dataset']}; costs at "
        f"{' x '.join(map(str, study['deployment_size']))} pixels on "
        f"{run.titles[study['platform']]}."
        for name, study in studies.items()
    ]
    return _with_platforms(run, lines, [study["platform"] for study in studies.values()])


def _of_convergence(run: Run) -> str:
    if run.converged is None:
        return ""
    _, told = run.converged
    return (
        f"- Budget {told['budget']}, seed {told['seed']}, "
        f"{run.title((told['experiment'], told['platform']))}.\n"
        + _of_experiments(run, [told["experiment"]])
    )


def _of_searches(run: Run) -> str:
    methods = run.settings["methods"]
    return _of_experiments(
        run,
        [
            entry["name"]
            for entry in run.experiments()
            if any(methods[name]["method"] == "amc" for name in entry["methods"])
        ],
    )


def _of_limits(run: Run) -> str:
    limited = [
        entry["name"]
        for entry in run.experiments()
        if any(budget.get("limits") for budget in entry["budgets"])
    ]
    return _of_experiments(run, limited)


def _of_everything(run: Run) -> str:
    parts = [_of_experiments(run), _of_energy(run), _of_pruning(run), _of_evolution(run)]
    return "\n".join(part.partition("\n\n")[0] for part in parts if part)


def _with_platforms(run: Run, lines: Sequence[str], platforms: Iterable[str]) -> str:
    """Lines as a list, and what emulated and simulated mean where one of `platforms` is."""
    titles = " ".join(run.titles[platform] for platform in platforms)
    marks = (("emulated", PHYSICAL), ("simulated", SIMULATED))
    notes = [note for mark, note in marks if mark in titles]
    told = "\n".join(f"- {line}" for line in lines)
    return "\n\n".join(part for part in (told, " ".join(notes)) if part)


def _of_plan(name: str) -> Callable[[Run], str]:
    figure = plan.FIGURES[name]
    of_model = figure.kind in ("error_history", "hidden_layers")
    return lambda run: (_of_energy if of_model else _of_experiments)(run, figure.subjects)


# Of all that is not here the settings are those of all experiments.
SETTINGS: dict[str, Callable[[Run], str]] = {
    **{name: _of_plan(name) for name in plan.FIGURES},
    **dict.fromkeys(("energy_anchors", "staircase", "residuals"), _of_energy),
    **dict.fromkeys(
        (f"energy_model_{part}" for part in ("errors", "history", "residuals")), _of_energy
    ),
    **dict.fromkeys(("drift", "repeatability"), _of_sensors),
    **dict.fromkeys(("eap_pruning", "eap_classes"), _of_pruning),
    **dict.fromkeys(("eap_layers", "eap_networks", "eap_results"), _of_layers),
    **dict.fromkeys(
        (f"evolution_{part}" for part in ("fronts", "hypervolume", "networks", "spread")),
        _of_evolution,
    ),
    "convergence": _of_convergence,
    "learning": _of_searches,
    "limits": _of_limits,
    **dict.fromkeys(("claims", "efficiency", "provenance"), _of_everything),
}
