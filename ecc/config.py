"""The configuration: merged from files, checked, and asked for what rules need to know.

`check` raises UserError, one line that names the key, its value and what is allowed.
"""

import difflib
import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from ecc.budgets import Budget
from ecc.counts import COUNTS
from ecc.errors import UserError
from ecc.sources import MARK

Config = dict[str, Any]
Key = Sequence[str | int]
# JSON schema takes 3.0 for a whole number; Python does not, wherever it counts with one.
WHOLE = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
    "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
)
Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=WHOLE)
# Of datasets that have no such setting; the last of 20 is void.
LARGEST = 2**63 - 1  # of a whole number: what a file of 64-bit integers can hold
FASTER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C, where PyYAML was built with it
SHOWN = 100  # characters of a value in a message
# 010 is 8 in YAML, and 1:30 is 90.
MISREAD = re.compile(r"[-+]?(0[0-9_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")
# Snakemake takes what is repeated so often for a wildcard without end.
PERIODIC = re.compile(r"(.+)\1{19}")
CLASSES = {"digits": 10, "cifar10": 10, "streets": 20, "cityscapes": 20}
SEGMENTED = ("streets", "cityscapes")  # datasets with a label for every pixel
SEGMENTING = ("erfnet",)  # architectures that give one
WORDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
}


def load(*paths: str | Path) -> Config:
    """The first file, with each later one merged over it as Snakemake's --configfile does."""
    config: Config = {}
    for path in paths:
        try:
            content = yaml.load(Path(path).read_text(), Loader=FASTER)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        except yaml.YAMLError as error:
            raise UserError(f"{path} is not YAML: {error}") from error
        config = merge(config, content)
    return config


def check_text(path: str | Path, merged: Mapping[str, Any] | None = None) -> None:
    """Refuses a file in which YAML would read something else than is written there.

    A key that stands twice in one mapping, of which only the last would count; numbers with a zero
    in front (octal) or with colons (of base 60). An empty mapping over something else, of which
    nothing is left in `merged`, all files as one. A file that is no YAML is left to the reader.
    Raises UserError, one line that names the file and the key.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        try:
            json.loads(text)
            loader = yaml.SafeLoader  # not all that is JSON is YAML to the faster one
        except ValueError:
            loader = FASTER
        root = yaml.compose(text, Loader=loader)
    except (OSError, ValueError, yaml.YAMLError):
        return
    _check_node(root, (), path, set())
    if merged is not None:
        _check_empty(root, (), path, merged)


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> Config:
    """Mappings merge key by key; everything else of `overlay` replaces what `base` has."""
    merged = dict(base)
    for key, value in overlay.items():
        known = merged.get(key)
        both = isinstance(known, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(known, value) if both else value  # type: ignore[arg-type]
    return merged


def check(config: Config, schema: str | Path) -> Config:
    """Returns `config`, keys sorted, if it fits the schema and its parts fit each other.

    Sorted, because the order in which an overlay writes its keys must not look like a change.

    Raises UserError for the first thing that is wrong.
    """
    validator = Validator(load(schema))
    errors = list(validator.iter_errors(config))
    if errors:
        # A mistyped key is also a missing one: the unknown key is what helps.
        raise UserError(_explain(min(errors, key=lambda e: e.validator != "additionalProperties")))
    _check_values(config, ())
    _check_names(config)
    _check_methods(config)
    _check_energy(config)
    _check_evolution(config)
    names = [experiment["name"] for experiment in config["experiments"]]
    _once(names, ("experiments",))
    _once(["_".join(pair) for pair in pairs(config)], ("experiments",))  # names of rules
    for index, experiment in enumerate(config["experiments"]):
        _check_experiment(config, experiment, ("experiments", index))
    _check_eap(config)
    ordered: Config = _sorted(config)
    return ordered


def experiment(config: Config, name: str) -> Config:
    """The settings of the experiment called `name`."""
    return next(entry for entry in config["experiments"] if entry["name"] == name)


def network(config: Config, name: str) -> Config:
    """What `ecc.networks.Network` takes for an entry of `networks`."""
    entry = dict(config["networks"][name])
    return {"size": tuple(entry.pop("deployment_size")), **entry}


def stage(config: Config, settings: Mapping[str, Any]) -> Config:
    """Settings of one training: the common ones with those of the stage over them."""
    return {**config["training"], "device": config["device"], **settings}


def eap_seeds(config: Config) -> list[int]:
    """Seeds with which the study of single weights is repeated."""
    seeds: list[int] = config["eap"].get("seeds", [0])
    return seeds


def budget_labels(config: Config, name: str, platform: str) -> list[str]:
    """Labels of the budgets that an experiment spends on a platform."""
    budgets = experiment(config, name)["budgets"]
    return [
        Budget.from_settings(budget).label
        for budget in budgets
        if budget.get("platform", platform) == platform
    ]


def limit_platforms(config: Config, name: str) -> list[str]:
    """Platforms, beside that of a budget, on which an experiment keeps limits."""
    limits = {
        name for budget in experiment(config, name)["budgets"] for name in budget.get("limits", ())
    }
    return sorted(limits & set(config["platforms"]))


def pairs(config: Config) -> list[tuple[str, str]]:
    """(experiment, platform) of everything that is compressed."""
    return [
        (entry["name"], platform)
        for entry in config["experiments"]
        for platform in entry["platforms"]
    ]


def sampled(config: Config) -> list[tuple[str, str]]:
    """(platform, network) of everything that is sampled: named under `energy`, or compressed."""
    energy = config["energy"]
    named = {
        (platform, network) for platform in energy["platforms"] for network in energy["networks"]
    }
    used = {(platform, experiment(config, name)["network"]) for name, platform in pairs(config)}
    limiting = {
        (platform, entry["network"])
        for entry in config["experiments"]
        for platform in limit_platforms(config, entry["name"])
    }
    return sorted(named | used | limiting)


def samples(config: Config, platform: str) -> tuple[int, int]:
    """Samples of a network on a platform, and how many of them are kept from the fit."""
    sizes = {**config["energy"], **config["platforms"][platform]}
    return sizes["samples"], sizes["test_samples"]


def energy_models(config: Config) -> dict[str, list[Config]]:
    """The energy models to be fitted, by network.

    Networks named under `energy` get all models, others those that experiments use.
    """
    models = config["energy"]["models"]
    wanted: dict[str, list[Config]] = {
        network: list(models) if network in config["energy"]["networks"] else []
        for _, network in sampled(config)
    }
    for entry in config["experiments"]:
        fitted = wanted[entry["network"]]
        for method in (None, *entry["methods"]):
            used = used_model(config, entry["name"], method)
            if used not in fitted:
                fitted.append(used)
    return wanted


def used_model(config: Config, name: str, method: str | None = None) -> Config:
    """The entry of `energy.models` under which an experiment, or one method in it, works."""
    label = experiment(config, name)["energy_model"]
    if method is not None:
        label = config["methods"][method].get("energy_model", label)
    return next(model for model in config["energy"]["models"] if model_label(model) == label)


def model_label(model: Mapping[str, Any]) -> str:
    return f"{model['model']}_{model['fit']}"


def model_file(model: Mapping[str, Any]) -> str:
    """Name of the file of a fitted model: networks as safetensors, coefficients as JSON."""
    suffix = "safetensors" if model["model"].startswith("mlp") else "json"
    return f"{model_label(model)}.{suffix}"


def check_units(config: Config, metrics: Mapping[str, str]) -> None:
    """Raises UserError for a budget in another unit than its platform measures.

    `metrics` are those of the platforms by name.
    """
    for index, entry in enumerate(config["experiments"]):
        for number, settings in enumerate(entry["budgets"]):
            key: Key = ("experiments", index, "budgets", number)
            budget = Budget.from_settings(settings)
            on = [settings["platform"]] if "platform" in settings else entry["platforms"]
            asked: list[tuple[Key, Budget, str]]
            asked = [(key, budget, metrics[platform]) for platform in on]
            asked += [
                ((*key, "limits", name), limit, metrics.get(name, "count"))
                for name, limit in budget.limits
            ]
            for where, own, metric in asked:
                try:
                    own.check(metric)
                except UserError as error:
                    raise UserError(f"{_key(where)}: {error}") from error


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value, key=str)}
    return [_sorted(entry) for entry in value] if isinstance(value, list) else value


def _check_node(node: yaml.Node | None, key: Key, path: str | Path, seen: set[int]) -> None:
    if node is None or id(node) in seen:  # an alias, perhaps of what it is in
        return
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        number = node.tag.rpartition(":")[2] in ("int", "float")
        if number and MISREAD.fullmatch(node.value):
            value = yaml.safe_load(node.value)
            raise UserError(
                f"{path}: {_key(key)}: YAML reads {node.value} as {value}: write {value}, or quote "
                "what is meant as text"
            )
    elif isinstance(node, yaml.SequenceNode):
        for index, entry in enumerate(node.value):
            _check_node(entry, (*key, index), path, seen)
    elif isinstance(node, yaml.MappingNode):
        there: set[str] = set()
        for name, entry in node.value:
            if not isinstance(name, yaml.ScalarNode):
                continue
            if name.value in there:
                raise UserError(
                    f"{path}: {_key((*key, name.value))} is there more than once: remove all but "
                    "one, as only the last would count"
                )
            there.add(name.value)
            _check_node(entry, (*key, name.value), path, seen)


def _check_empty(node: yaml.Node | None, key: Key, path: str | Path, merged: Any) -> None:
    """Snakemake merges an empty mapping into whatever is there, which stays."""
    if isinstance(node, yaml.MappingNode) and not node.value and not isinstance(merged, Mapping):
        raise UserError(f"{path}: {_key(key)}: {{}} has no effect here: leave it out or correct it")
    if isinstance(node, yaml.MappingNode) and isinstance(merged, Mapping):
        for name, entry in node.value:
            if isinstance(name, yaml.ScalarNode) and name.value in merged:
                _check_empty(entry, (*key, name.value), path, merged[name.value])


def _check_values(value: Any, key: Key) -> None:
    """Refuses values that a schema cannot: no numbers, endless ones, dates, text of many lines."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{_key(key)}: {value} must be a finite number")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise UserError(f"{_key(key)}: {_value(value)} must be at most {LARGEST}")
    if isinstance(value, str) and not value.isprintable():
        raise UserError(f"{_key(key)}: {_value(value)} must be one line of printable text")
    if not isinstance(value, str | int | float | dict | list | None):
        kind = type(value).__name__
        raise UserError(f"{_key(key)}: YAML reads {_value(value)} as a {kind}: quote it for text")
    if isinstance(value, dict | list):
        for name, entry in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(value, dict) and not (isinstance(name, str) and name.isprintable()):
                raise UserError(f"{_key((*key, name))}: the key must be one line of text: quote it")
            _check_values(entry, (*key, name))


def _check_names(config: Config) -> None:
    named = [("datasets",), ("networks",), ("platforms",), ("methods",), ("evolution",)]
    found: list[tuple[Key, str]]
    found = [((*key, name), name) for key in named for name in config[key[0]]]
    found += [(("eap", "arms", name), name) for name in config["eap"].get("arms", ())]
    for index, entry in enumerate(config["experiments"]):
        found.append((("experiments", index, "name"), entry["name"]))
    for key, name in found:
        if PERIODIC.search(name):
            raise UserError(f"{_key(key)}: {name} repeats itself 20 times: choose another name")


def _check_methods(config: Config) -> None:
    """What has the name of an algorithm is shown as that, and found by it."""
    algorithms = {entry["method"] for entry in config["methods"].values()}
    for name, entry in config["methods"].items():
        key = ("methods", name)
        if name in algorithms and entry["method"] != name:
            raise UserError(
                f"{_key((*key, 'method'))}: {entry['method']} under the name of another method: "
                "rename the entry"
            )
        tournament, population = entry.get("tournament", 0), entry.get("population", math.inf)
        if tournament > population:
            raise UserError(
                f"{_key((*key, 'tournament'))}: {tournament} cannot be drawn from a population of "
                f"{population}"
            )


def _check_energy(config: Config) -> None:
    energy = config["energy"]
    for key, known in (("platforms", "platforms"), ("networks", "networks")):
        for index, name in enumerate(energy[key]):
            _known(name, config[known], ("energy", key, index))
    for name in COUNTS:
        if name in config["platforms"]:
            raise UserError(f"{_key(('platforms', name))}: {name} is a count: choose another name")
    for index, sweep in enumerate(energy["sweeps"]):
        _known(sweep["network"], config["networks"], ("energy", "sweeps", index, "network"))
    for name, platform in config["platforms"].items():
        count, test = samples(config, name)
        if test >= count:
            own = ("platforms", name) if "test_samples" in platform else ("energy",)
            raise UserError(
                f"{_key((*own, 'test_samples'))} is {test}: "
                f"it must be less than the samples of {name} ({count})"
            )
    _once([model_label(model) for model in energy["models"]], ("energy", "models"))


def _check_evolution(config: Config) -> None:
    for name, study in config["evolution"].items():
        for field, known in (("dataset", "datasets"), ("platform", "platforms")):
            _known(study[field], config[known], ("evolution", name, field))
        _classified(config, study["dataset"], ("evolution", name, "dataset"))
        _check_alone(config, study["training"], ("evolution", name, "training"))


def _check_eap(config: Config) -> None:
    if study := config["eap"]:
        experiments = [entry["name"] for entry in config["experiments"]]
        _known(study["experiment"], experiments, ("eap", "experiment"))
        dataset = experiment(config, study["experiment"])["dataset"]
        _classified(config, dataset, ("eap", "experiment"))
        _check_alone(config, study["finetuning"], ("eap", "finetuning"))


def _classified(config: Config, dataset: str, key: Key) -> None:
    """Refuses data with a label for every pixel where images need one each."""
    if config["datasets"][dataset]["kind"] in SEGMENTED:
        raise UserError(f"{_key(key)}: {dataset} labels every pixel: name data that labels images")


def _check_experiment(config: Config, experiment: Config, key: Key) -> None:
    for field, known in (
        ("network", "networks"),
        ("dataset", "datasets"),
        ("platforms", "platforms"),
        ("methods", "methods"),
    ):
        value = experiment[field]
        entries = list(enumerate(value)) if isinstance(value, list) else [("", value)]
        for index, name in entries:
            _known(name, config[known], (*key, field, index))
    labels = [model_label(model) for model in config["energy"]["models"]]
    _known(experiment["energy_model"], labels, (*key, "energy_model"))
    for name in experiment["methods"]:
        if own := config["methods"][name].get("energy_model"):
            _known(own, labels, ("methods", name, "energy_model"))
    network, dataset = experiment["network"], experiment["dataset"]
    outputs, classes = config["networks"][network]["classes"], _classes(config["datasets"][dataset])
    segmented = config["datasets"][dataset]["kind"] in SEGMENTED
    if outputs not in (classes, classes - segmented):  # void needs no output
        raise UserError(
            f"{_key((*key, 'dataset'))}: {dataset} has {classes} classes, but networks.{network} "
            f"has {outputs}: give the network as many"
        )
    architecture = config["networks"][network]["architecture"]
    given = architecture in SEGMENTING
    if segmented != given and MARK not in architecture:
        what = ("images", "pixels")
        raise UserError(
            f"{_key((*key, 'dataset'))}: {dataset} labels {what[segmented]}, networks.{network} "
            f"({architecture}) scores {what[given]}: give them the same"
        )
    _check_stages(config, experiment, key)
    _check_budgets(config, experiment, key)


def _check_stages(config: Config, experiment: Config, key: Key) -> None:
    phases = [(("finetuning", i), phase) for i, phase in enumerate(experiment["finetuning"])]
    stages = [((name,), experiment[name]) for name in ("dense", "compression")]
    for where, own in (*stages, *phases):
        _check_parts(stage(config, own), (*key, *where))
    processes = [stage(config, phase)["processes"] for _, phase in phases]
    if len(set(processes)) > 1:
        raise UserError(f"{_key((*key, 'finetuning'))}: give all phases the same processes")


def _check_parts(settings: Mapping[str, Any], key: Key) -> None:
    parts = settings["accumulate"] * settings["processes"]
    if parts > settings["batch_size"]:
        raise UserError(
            f"{_key(key)}: accumulate times processes is {parts}, but batch_size "
            f"{settings['batch_size']}: every part needs an image"
        )


def _check_alone(config: Config, own: Mapping[str, Any], key: Key) -> None:
    """A training that shares its batches with no other process."""
    if own.get("processes", 1) > 1:
        raise UserError(f"{_key((*key, 'processes'))}: this training has one process: leave it out")
    _check_parts({**stage(config, own), "processes": 1}, key)


def _check_budgets(config: Config, experiment: Config, key: Key) -> None:
    platforms = experiment["platforms"]
    for index, budget in enumerate(experiment["budgets"]):
        here = (*key, "budgets", index)
        try:
            Budget.from_settings(budget)
        except UserError as error:
            raise UserError(f"{_key(here)}: {error}") from error
        if "platform" in budget:
            _known(budget["platform"], platforms, (*here, "platform"))
        spent = [budget["platform"]] if "platform" in budget else platforms
        for name in budget.get("limits", ()):
            _known(name, [*config["platforms"], *COUNTS], (*here, "limits", name))
            if name in spent:
                raise UserError(
                    f"{_key((*here, 'limits', name))}: the budget itself is of {name}: limit "
                    "something else, or give the budget a `platform`"
                )
    for platform in platforms:
        labels = budget_labels({"experiments": [experiment]}, experiment["name"], platform)
        _once(labels, (*key, "budgets"))
        if not labels:
            raise UserError(f"{_key((*key, 'budgets'))}: there is none for platform {platform}")


def _classes(dataset: Mapping[str, Any]) -> int:
    found: int = dataset.get("classes") or CLASSES[dataset["kind"]]
    return found + int(dataset.get("label_offset", 0))


def _known(name: str, known: Collection[str], key: Key) -> None:
    if name not in known:
        raise UserError(f"{_key(key)}: '{name}' is unknown: use one of {_nearest(name, known)}")


def _once(names: Sequence[str], key: Key) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{_key(key)}: {name} is there more than once: remove or rename it")


def _key(path: Key) -> str:
    """As in experiments[0].budgets[1].dense."""
    parts = [
        f"[{part}]" if type(part) is int else f".{_short(str(part))}" for part in path if part != ""
    ]
    return "config key " + "".join(parts).removeprefix(".")


def _value(value: Any) -> str:
    try:
        return _short(f"'{value}'" if isinstance(value, str) else str(value))
    except ValueError:  # Python writes no whole number of more than some thousand digits
        return "a number of thousands of digits"


def _short(text: str) -> str:
    """One line that is not too long."""
    shown = text if text.isprintable() else ascii(text)[1:-1]
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}.."


def _nearest(name: Any, known: Collection[Any]) -> str:
    choices = sorted(str(choice) for choice in known)
    close = difflib.get_close_matches(str(name), choices, n=1)
    listed = ", ".join(choices) or "none"
    return f"{listed} (did you mean {close[0]}?)" if close else listed


def _explain(error: jsonschema.ValidationError) -> str:
    key, value, allowed = list(error.absolute_path), error.instance, error.validator_value
    about = f" ({error.schema['description'].rstrip('.')})" if "description" in error.schema else ""
    kind = error.validator
    if kind == "additionalProperties":
        known = error.schema["properties"]
        unknown = next(name for name in value if name not in known)
        return f"{_key([*key, unknown])} is unknown: known here are {_nearest(unknown, known)}"
    if kind == "required":
        missing = next(name for name in allowed if name not in value)
        return f"{_key([*key, missing])} is missing"
    if kind == "type":
        if isinstance(value, str) and allowed in ("number", "integer") and _is_number(value):
            return f"{_key(key)}: YAML reads {value} as text: write {_as_number(value, allowed)}"
        if allowed == "integer" and isinstance(value, float) and value.is_integer():
            return f"{_key(key)}: YAML reads {value} as a fraction: write {int(value)}"
        return f"{_key(key)}: {_value(value)} must be {WORDS[allowed]}{about}"
    limits = {
        "minimum": "at least",
        "maximum": "at most",
        "exclusiveMinimum": "greater than",
        "exclusiveMaximum": "less than",
    }
    if kind in limits:
        return f"{_key(key)}: {_value(value)} must be {limits[kind]} {allowed}{about}"
    if kind == "enum":
        return f"{_key(key)}: {_value(value)} is unknown: use one of {_nearest(value, allowed)}"
    if kind in ("minItems", "maxItems"):
        limit = "at least" if kind == "minItems" else "at most"
        return f"{_key(key)}: {len(value)} entries, must be {limit} {allowed}{about}"
    if kind == "maxLength":
        return f"{_key(key)}: {_value(value)} must be of at most {allowed} characters{about}"
    if kind == "uniqueItems":
        return f"{_key(key)}: {_value(value)} must not hold anything twice{about}"
    return f"{_key(key)}: {_value(value)} is not allowed{about}"


def _as_number(text: str, kind: str) -> str:
    """1e-3 as YAML needs it: with a point and with the sign of the exponent; a whole one bare."""
    if kind == "integer" and float(text).is_integer():
        return str(int(float(text)))
    mantissa, _, exponent = text.strip().lower().partition("e")
    point = mantissa if "." in mantissa or not exponent else f"{mantissa}.0"
    return f"{point}e{int(exponent):+d}" if exponent else point


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
