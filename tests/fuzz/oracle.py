"""What a configuration is worth, told without `ecc.config`: its problems, and what is not used.

The schema is asked directly; what parts must fit each other is written down a second time, so that
neither of the two can be wrong alone.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path as File
from typing import Any

from ecc.config import LARGEST
from ecc.counts import COUNTS
from ecc.metrics import WORDS

from .schema import Path, Schema

CLASSES = {"digits": 10, "cifar10": 10, "streets": 20, "cityscapes": 20}
PIXELS = {"streets", "cityscapes"}
PERIODIC = re.compile(r"(.+?)\1{19,}")
SECTIONS = ("datasets", "networks", "platforms", "methods")
UNITS = {"joules": "energy_j", "seconds": "latency_s", "count": "count"}
BUDGETS = ("dense", "reducible", *UNITS)
RAPL_WITHIN = {"package": {"core", "uncore"}, "psys": {"package", "core", "uncore", "dram"}}
Config = dict[str, Any]


def problems(schema: Schema, config: Any) -> list[str]:
    """Why a configuration has to be refused: nothing where it has to be planned."""
    found = [error.message[:100] for error in schema.validator.iter_errors(config)]
    found += _values(config)
    return found or list(islice(_unfit(config), 1))  # later ones are of what is known to fit


def _values(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, entry in value.items():
            if not (isinstance(key, str) and key.isprintable()):
                yield f"key {key!r}"
            yield from _values(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _values(entry)
    elif isinstance(value, str):
        if not value.isprintable():
            yield "unprintable"
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        if abs(value) > LARGEST:
            yield "too large"
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield "not finite"
    else:
        yield f"a {type(value).__name__}"


def _unfit(config: Config) -> Iterator[str]:
    """Parts of a configuration, each as the schema wants it, that do not fit each other."""
    energy, platforms = config["energy"], config["platforms"]
    models = [f"{model['model']}_{model['fit']}" for model in energy["models"]]
    if max(Counter(models).values()) > 1:
        yield "a model twice"
    named = [(name, platforms) for name in energy["platforms"]]
    named += [(name, config["networks"]) for name in energy["networks"]]
    named += [(sweep["network"], config["networks"]) for sweep in energy["sweeps"]]
    yield from (f"unknown {name}" for name, known in named if name not in known)
    yield from (f"{name} is a count" for name in COUNTS if name in platforms)
    for name, platform in platforms.items():
        sizes = {**energy, **platform}
        if sizes["test_samples"] >= sizes["samples"]:
            yield f"test samples of {name}"
        yield from _platform(platform)
    algorithms = {entry["method"] for entry in config["methods"].values()}
    for name, entry in config["methods"].items():
        if name in algorithms and entry["method"] != name:
            yield f"{name} is {entry['method']}"
        if entry.get("tournament", 0) > entry.get("population", math.inf):
            yield f"tournament of {name}"
    names = [experiment["name"] for experiment in config["experiments"]]
    pairs = [f"{one['name']}_{name}" for one in config["experiments"] for name in one["platforms"]]
    if max(Counter(names).values()) > 1 or max(Counter(pairs).values()) > 1:
        yield "an experiment twice"
    for experiment in config["experiments"]:
        yield from _experiment(config, experiment, models)
    yield from _studies(config)
    yield from _eap(config)
    names += [name for key in (*SECTIONS, "evolution") for name in config[key]]
    if any(PERIODIC.search(name) for name in [*names, *config["eap"].get("arms", ())]):
        yield "a name without end"
    alone = [study["training"] for study in config["evolution"].values()]
    for own in alone + ([config["eap"]["finetuning"]] if config["eap"] else []):
        training = {"accumulate": 1, **config["training"], **own}
        if own.get("processes", 1) > 1 or training["accumulate"] > training["batch_size"]:
            yield "a training in one process"
    if any(platforms.get(name, {}).get("kind") == "recorded" for name in _sampled(config)):
        yield "nothing is recorded where the fuzzing runs"


def _platform(platform: Config) -> Iterator[str]:
    kind = platform["kind"]
    if platform.get("metric") == "latency" and kind not in ("gtx1080ti", "jetson_tx2"):
        yield "no latency"
    protocol = platform.get("protocol", {})
    if protocol.get("sample_s", 1.0) <= protocol.get("settle_s", 0.3):
        yield "settle_s"
    every = platform.get("throttle_every_s", 0)
    if kind == "simulated" and every and not 0 < platform.get("throttle_s", 2.0) < every:
        yield "throttle_s"
    for address, channel in platform.get("addresses", {}).values():
        if not (0x40 <= address <= 0x43 and 1 <= channel <= 3):
            yield "an address"
    domains = set(platform.get("domains", ()))
    if any(outer in domains and inner & domains for outer, inner in RAPL_WITHIN.items()):
        yield "nested domains"


def metric(platform: Config) -> str:
    latency = platform["kind"] == "latency" or platform.get("metric") == "latency"
    return "latency_s" if latency else "energy_j"


def _experiment(config: Config, experiment: Config, models: list[str]) -> Iterator[str]:
    for key in ("network", "dataset", "platform", "method"):
        own = experiment[key] if key in experiment else experiment[f"{key}s"]
        for name in own if isinstance(own, list) else [own]:
            if name not in config[f"{key}s"]:
                yield f"unknown {name}"
                return
    used = [experiment["energy_model"]]
    used += [config["methods"][name].get("energy_model") for name in experiment["methods"]]
    yield from (f"unknown {label}" for label in used if label is not None and label not in models)
    network = config["networks"][experiment["network"]]
    dataset = config["datasets"][experiment["dataset"]]
    pixels = dataset["kind"] in PIXELS
    classes = dataset.get("classes", CLASSES.get(dataset["kind"], 0))
    classes += dataset.get("label_offset", 0)
    if network["classes"] not in {classes, classes - pixels}:
        yield "classes"
    if ":" not in network["architecture"] and pixels != (network["architecture"] == "erfnet"):
        yield "pixels"
    phases = experiment["finetuning"]
    for own in (experiment["dense"], experiment["compression"], *phases):
        stage = {"accumulate": 1, "processes": 1, **config["training"], **own}
        if stage["accumulate"] * stage["processes"] > stage["batch_size"]:
            yield "parts"
    if len({{"processes": 1, **config["training"], **own}["processes"] for own in phases}) > 1:
        yield "processes"
    yield from _budgets(config, experiment)
    weights = experiment["dense"].get("weights", "torchvision")
    result = weights.startswith(f"{config['results']}/")
    if weights != "torchvision" and not result and not File(weights).is_file():
        yield "no weights"


def _budgets(config: Config, experiment: Config) -> Iterator[str]:
    seen = set()
    for budget in experiment["budgets"]:
        limits = budget.get("limits", {})
        if any(sum(kind in one for kind in BUDGETS) != 1 for one in (budget, *limits.values())):
            yield "not one kind"
            return
        on = [budget["platform"]] if "platform" in budget else experiment["platforms"]
        for platform in on:
            if platform not in experiment["platforms"]:
                yield f"unknown {platform}"
                return
            key = (platform, *_key(budget), *sorted((name, *_key(limits[name])) for name in limits))
            if key in seen:
                yield "a budget twice"
            seen.add(key)
            yield from _units(config, platform, budget)
        for name, limit in limits.items():
            if name not in config["platforms"] and name not in COUNTS:
                yield f"unknown {name}"
            else:
                yield from _units(config, name, limit)
            if name in on:
                yield f"limit on {name} itself"
    if set(experiment["platforms"]) - {entry[0] for entry in seen}:
        yield "no budget"


def _key(budget: Config) -> tuple[str, float]:
    kind = next(kind for kind in BUDGETS if kind in budget)
    return kind, float(budget[kind])


def _units(config: Config, name: str, budget: Config) -> Iterator[str]:
    measured = "count" if name in COUNTS else metric(config["platforms"][name])
    assert measured in WORDS
    if any(kind in budget and unit != measured for kind, unit in UNITS.items()):
        yield "unit"


def _eap(config: Config) -> Iterator[str]:
    study = config["eap"]
    if not study:
        return
    experiments = {one["name"]: one for one in config["experiments"]}
    own = experiments.get(study["experiment"])
    platform = config["platforms"].get(study["platform"], {})
    if own is None or platform.get("kind") != "eyeriss" or study["class_arm"] not in study["arms"]:
        yield "a name of eap"
    elif config["datasets"][own["dataset"]]["kind"] in PIXELS:
        yield "pixels"
    elif max(study["classes"]) > config["networks"][own["network"]]["classes"]:
        yield "classes of eap"
    if set(study["dense"]["networks"]) - set(config["networks"]):
        yield "networks of eap"


def _studies(config: Config) -> Iterator[str]:
    for study in config["evolution"].values():
        platform = config["platforms"].get(study["platform"], {"kind": None})
        able = platform["kind"] in ("eyeriss", "gtx1080ti", "jetson_tx2")
        if not able or metric(platform) != "energy_j":
            yield "platform of a study"
        dataset = config["datasets"].get(study["dataset"])
        if dataset is None or dataset["kind"] in PIXELS:
            yield "data of a study"


def _sampled(config: Config) -> set[str]:
    """Names of the platforms on which networks are sampled."""
    experiments, energy = config["experiments"], config["energy"]
    found = set(energy["platforms"]) if energy["networks"] else set()
    found |= {name for one in experiments for name in one["platforms"]}
    return found | {n for one in experiments for b in one["budgets"] for n in b.get("limits", ())}


def idle(config: Config, path: Path) -> bool:
    """Whether a run has no use for what is at `path`: entries that nothing names, and defaults
    that everything replaces.
    """
    experiments, eap, studies = config["experiments"], config["eap"], config["evolution"].values()
    energy, sampled = config["energy"], _sampled(config)
    section, *rest = path
    if section == "datasets":
        return rest[0] not in {one["dataset"] for one in (*experiments, *studies)}
    if section == "networks":
        used = {one["network"] for one in experiments} | set(eap and eap["dense"]["networks"])
        return rest[0] not in used | set(energy["networks"] if energy["platforms"] else ())
    if section == "platforms":
        used = sampled | {one["platform"] for one in studies} | {eap.get("platform")}
        own = rest[0] not in sampled and rest[-1] in ("samples", "test_samples")
        return rest[0] not in used or own
    if section == "methods":
        return rest[0] not in {name for one in experiments for name in one["methods"]}
    if section == "training":
        stages = [one[stage] for one in experiments for stage in ("dense", "compression")]
        stages += [phase for one in experiments for phase in one["finetuning"]]
        stages += [one["training"] for one in studies] + ([eap["finetuning"]] if eap else [])
        return all(rest[0] in stage for stage in stages)
    if section == "energy" and rest[0] in ("samples", "test_samples"):
        return all(rest[0] in config["platforms"][name] for name in sampled)
    if section == "energy" and rest[0] == "models" and len(rest) > 1:
        model = energy["models"][rest[1]]
        methods = [config["methods"][name] for one in experiments for name in one["methods"]]
        used = {one["energy_model"] for one in experiments}
        used |= {method.get("energy_model") for method in methods}
        everywhere = energy["networks"] and energy["platforms"]
        return not everywhere and f"{model['model']}_{model['fit']}" not in used
    if section == "energy" and rest[0] == "sweeps" and len(rest) > 1:
        on = [one for one in experiments if set(one["platforms"]) & set(energy["platforms"])]
        swept = {one["network"] for one in on}
        swept |= set(energy["networks"] if energy["platforms"] else ())
        return energy["sweeps"][rest[1]]["network"] not in swept
    return False
