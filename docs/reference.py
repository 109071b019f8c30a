"""Writes docs/reference/config.md, every key of the configuration, from its schema.

    .venv/bin/python docs/reference.py         after a change of configs/schema.yaml or of a default

Defaults come from config.yaml and the library. What stands above the first section is kept.
"""

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from ecc import config, data, energy, methods, networks, platforms
from ecc.finegrained.rounds import Settings as Arm
from ecc.measuring.interface import Settings as Protocol
from ecc.measuring.simulated import Simulation
from ecc.measuring.torch_runner import RunSettings

Entry = dict[str, Any]  # a part of the schema
ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/reference/config.md"
SCHEMA, VALUES = config.load(ROOT / "configs/schema.yaml"), config.load(ROOT / "config.yaml")
TRAINING = SCHEMA["properties"]["training"]["properties"]
LIMITS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most"}
LIMITS |= {"exclusiveMaximum": "below", "multipleOf": "a multiple of"}


def keywords(function: Callable[..., Any]) -> Entry:
    given = inspect.signature(function).parameters.values()
    return {entry.name: entry.default for entry in given if entry.kind is entry.KEYWORD_ONLY}


# What the library takes for keys that are left out, by the schema's definition of them.
LIBRARY: dict[str, Any] = {
    **{name: keywords(module.build) for name, module in networks.ARCHITECTURES.items()},
    **{name: kind.defaults for name, kind in data.DATASETS.items()},
    **{
        name: asdict(RunSettings(device=module.DEVICE)) | asdict(module.Settings())
        for name, module in platforms.SENSORS.items()
    },
    "emulated": {"metric": "energy"},
    "simulated": {**asdict(Simulation()), "device": "gtx1080ti", "idle_w": None},  # by the device
    "protocol": asdict(Protocol()),
    "bilinear_adam": keywords(energy.FITS["bilinear_graph", "adam"]),
    "bilinear_nnls": keywords(energy.FITS["bilinear_graph", "nnls"]),
    "mlp": keywords(energy.FITS["mlp1", "adam"]),
    "lookup": keywords(energy.FITS["lookup", "nnls"]),
    **{name: asdict(module.Settings()) for name, module in methods.METHODS.items()},
    "eap_arm": asdict(Arm()),
    "eap_study": {"seeds": config.eap_seeds({"eap": {}})},
    "experiment": {"closing_rounds": 0},
    "energy.sweeps[]": {"step": 1},
}


def resolved(entry: Entry) -> Entry:
    """An entry with what it refers to, whose name is its `def`; its own words come first."""
    if "$ref" not in entry:
        return entry
    path = entry["$ref"].removeprefix("#/").split("/")
    return {**resolved(reduce(getitem, path, SCHEMA)), **entry, "def": path[-1]}


def code(value: Any) -> str:
    """A value as YAML has it, the number of its entries where that is long, or nothing."""
    if value is None or value == float("inf"):
        return ""
    text = json.dumps(value, default=list).replace('"', "")
    return f"`{text}`" if 0 < len(text) < 40 else f"{len(value)} entries" if value else '`""`'


def allowed(entry: Entry) -> str:
    """Type and range in words."""
    entry = {**entry, **entry.get("else", {})}
    if "enum" in entry:
        return ", ".join(map(code, entry["enum"]))
    text = "a name" if entry.get("def") == "name" else config.WORDS[entry["type"]]
    if "items" in entry:
        count = entry["minItems"] if "maxItems" in entry else "each"
        return f"{text}, {count}: {allowed(resolved(entry['items']))}"
    return ", ".join([text, *(f"{LIMITS[key]} {entry[key]}" for key in LIMITS if key in entry)])


def below(path: str, entry: Entry) -> Iterator[tuple[str, Entry]]:
    """Path and entry of the mapping with keys of its own that `entry` is or holds, if any."""
    if "properties" in entry or "allOf" in entry:
        yield path.lstrip("."), entry
    elif isinstance(inner := entry.get("additionalProperties"), dict):
        yield from below(f"{path}.<name>", resolved(inner))
    elif "items" in entry:
        yield from below(f"{path}[]", resolved(entry["items"]))


def defaults(path: str, entry: Entry) -> dict[str, str]:
    """What holds where a key is left out; after it, the value of config.yaml's own entry."""
    if path in ("", "energy", "training"):
        return {key: code(value) for key, value in (VALUES[path] if path else VALUES).items()}
    name = entry.get("def", path)
    own = VALUES.get(path.removesuffix(".<name>"), {}).get(name, {})
    library = LIBRARY.get(name, {}).items()
    found = {key: dict.fromkeys([code(value), code(own.get(key, value))]) for key, value in library}
    needed = entry.get("required") or entry.get("then", {}).get("required", ())
    required = dict.fromkeys(needed, "required")
    return {key: ", ".join(values) for key, values in found.items()} | required


def table(path: str, entry: Entry, skip: Entry, prefix: str = "") -> str:
    """A row for every key that is not in `skip`, its name after the `prefix`."""
    told = defaults(path, entry)
    rows = ["| Key | Type, range | Default | What it is |", "|---|---|---|---|"]
    trained = path != "training" and TRAINING.items() <= entry["properties"].items()
    for key, value in entry["properties"].items():
        if key not in skip and not (trained and key in TRAINING):
            value = resolved(value)
            what = allowed(value)
            for to, _ in below(f"{path}.{key}", value):
                what += f": [{to.replace('<', '&lt;')}](#{re.sub(r'[^a-z_]', '', to)})"
            cells = (f"`{prefix}{key}`", what, told.get(key, ""), value["description"])
            rows.append(f"| {' | '.join(cells)} |")
    if trained:
        rows.append("| all of [training](#training) | | as there | In place of what is there. |")
    return "\n".join(rows)


def sections(path: str, entry: Entry, done: set[str]) -> Iterator[str]:
    """A section and those of the mappings below it, each once."""
    done.add(path)
    heading = f"`{path}`" if path else "Top level"
    parts = [entry]
    yield f"\n## {heading}\n{table(path, entry, {})}\n"
    for part in entry.get("allOf", ()):  # keys of one kind of entries, or of its options
        then = part["then"]
        options = then.get("properties", {}).get("options")
        own = resolved(options or then)
        given = (own, {}, "options.") if options else (own, entry["properties"])
        if own["properties"].keys() - given[1].keys():
            yield f"\n### {heading}, {own['def']}\n{table(path, *given)}\n"
        parts.append(own)
    for part in parts:
        for key, value in part["properties"].items():
            for found, inner in below(f"{path}.{key}", resolved(value)):
                if found not in done:
                    yield from sections(found, inner, done)


def page() -> str:
    head = PAGE.read_text().split("\n## ")[0]
    return f"{head.rstrip()}\n" + "".join(sections("", SCHEMA, set()))


if __name__ == "__main__":
    PAGE.write_text(page())
