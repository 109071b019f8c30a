"""Configurations at random: those of the project, changed at one place or two.

A case is the files that a user would write. What has to come of it is told by the oracle of the
merged configuration (`tests.fuzz.oracle`), and where a change is wrong by itself, such as a key
that stands twice, by the change.
"""

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path as File
from typing import Any

import yaml
from hypothesis import HealthCheck, Phase, given, seed as seeded, settings, strategies as st

from ecc import config

from . import oracle
from .schema import Draw, Path, Place, Schema, outside

ROOT = File(__file__).parents[2]
DEFAULT = "config.yaml"
# The smoke configuration has everything in it, and its plan is small.
BASES: list[tuple[str, ...]] = [
    *[("smoke",)] * 8,
    *[(), ("eap",), ("evolution",), ("eap", "evolution", "complete"), ("methods",), ("gpu",)],
    *[("cpu",), ("jetson",), ("cifar",), ("paper",), ("iterations",), ("ablation",)],
]
MERGE = "<<"
SECTIONS = ("datasets", "networks", "platforms", "methods")
GOOD_NAMES = ["a", "x_9", "nnm" * 16, "n" * 19]
BAD_NAMES = ["My Net", "a/b", "../up", "a.b", "", "Ü", "Alexnet", "a" * 51, "n" * 20, "1a", "a-b"]
BAD_NAMES += ["a\n", "_a"]


class Raw(str):
    """Text that is written as it is, without quotes."""


class Pairs(list[tuple[Any, Any]]):
    """A mapping as its pairs, of which two may have the same key."""


class Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return not isinstance(data, dict) or not data


def _raw(dumper: Dumper, text: Raw) -> yaml.Node:
    tag = dumper.resolve(yaml.ScalarNode, str(text), (True, False))
    return yaml.ScalarNode(tag, str(text))


def _pairs(dumper: Dumper, pairs: Pairs) -> yaml.Node:
    nodes = [(dumper.represent_data(key), dumper.represent_data(value)) for key, value in pairs]
    return yaml.MappingNode("tag:yaml.org,2002:map", nodes)


Dumper.add_representer(Raw, _raw)
Dumper.add_representer(Pairs, _pairs)

# What people and editors write in place of what is meant.
ODD: list[Any] = [
    *[None, True, False, "", "text", "12", "1e-3", -1, 0, 0.5, 3.0, 10**30, 1e308, 1e-320, -0.0],
    *[Raw("1e-3"), Raw("yes"), Raw("on"), Raw("No"), Raw("010"), Raw("1:30"), Raw("08"), Raw("~")],
    *[Raw("2020-01-01"), Raw(".nan"), Raw(".inf"), Raw("-.inf"), Raw("0x10"), Raw("1_000")],
    *[[], {}, [[]], [None], {"a": 1}, {1: 2}, "ü", "a" * 300, "a b", "a/b", "../up", "a.b", "A"],
    *["two\nlines", "\x00", "{seed}", "<results>", "torchvision", date(2020, 1, 1)],
]

# Overlays that are no YAML, or no mapping. Snakemake reads them, and ends in words of its own.
BROKEN = [
    *("energy:\n\tsamples: 5\n", "", "- a\n", "hello\n", "null\n", "seed: *unknown\n", "a: [1\n"),
    *("seed: !!python/object/apply:os.system ['touch ran']\n", "seed: 1\n---\nseed: 2\n", "\0\1"),
    *("seed: {<<: 3}\n", "? [1, 2]\n: 3\n", "a: 'b\n", "%YAML 9\n", "a: b: c\n"),
]


@dataclass(frozen=True)
class Case:
    """`files` by name, config.yaml first; `paths` are the places that were changed.

    `refused`: whether it has to be. `effective`: whether a plan has to differ from that of `base`.
    `broken`: an overlay is no YAML.
    """

    base: tuple[str, ...]
    files: dict[str, str]
    paths: tuple[Path, ...]
    what: str
    refused: bool
    effective: bool
    broken: bool = False

    @property
    def overlays(self) -> list[str]:
        return [name for name in self.files if name != DEFAULT]


@dataclass
class World:
    """The documents of a configuration while they are changed."""

    base: tuple[str, ...]
    documents: dict[str, Any]
    schema: Schema
    cached: tuple[Any, list[Place]]  # as long as nothing was changed
    changed: set[str] = field(default_factory=set)
    paths: list[Path] = field(default_factory=list)
    what: list[str] = field(default_factory=list)
    wrong: bool = False  # whatever the oracle says
    valid: bool = False  # the change is meant to keep the configuration valid
    effective: bool = False

    @property
    def merged(self) -> Any:
        return merged(self.documents) if self.changed else self.cached[0]

    @property
    def places(self) -> list[Place]:
        return self.schema.places(self.merged) if self.changed else self.cached[1]

    def owner(self, path: Path) -> str:
        """The last file that has something at `path`."""
        return [name for name in self.documents if has(self.documents[name], path)][-1]

    def put(self, path: Path, value: Any, *, drop: bool = False) -> None:
        """Changes the file that decides what is at `path`, or where it is to be."""
        there = [name for name, document in self.documents.items() if has(document, path)]
        name = there[-1] if there else self.owner(path[:-1])
        parent = at(self.documents[name], path[:-1])
        before = parent[path[-1]] if has(parent, path[-1:]) else "nothing"
        if drop:
            del parent[path[-1]]
        else:
            parent[path[-1]] = value
        self.note(name, path, f"{_brief(before)} -> {'nothing' if drop else _brief(value)}")

    def note(self, name: str, path: Path, what: str) -> None:
        self.changed.add(name)
        self.paths.append(path)
        self.what.append(f"{name}: {'.'.join(map(str, path))}: {what}")


def merged(documents: dict[str, Any]) -> Any:
    whole: Any = {}
    for document in documents.values():
        whole = config.merge(whole, plain(document))
    return whole


def plain(value: Any) -> Any:
    """What YAML makes of a document that is written with marks."""
    if isinstance(value, Raw):
        return value if value == MERGE else yaml.safe_load(str(value))
    if isinstance(value, Pairs):
        given = {plain(key): plain(entry) for key, entry in value}
        return {**given.pop(MERGE, {}), **given}
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list) else value


def at(value: Any, path: Path) -> Any:
    for key in path:
        value = value[key]
    return value


def has(value: Any, path: Path) -> bool:
    try:
        at(value, path)
    except (KeyError, IndexError, TypeError):
        return False
    return True


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:80]}.."


# Changes: each draws a place, and returns whether it found one.


def _any(draw: Draw, places: list[Place]) -> Place:
    """Sections are of very different sizes: first one of them, then a place in it."""
    section = draw(st.sampled_from(sorted({place.path[0] for place in places})))
    return draw(st.sampled_from([place for place in places if place.path[0] == section]))


def _scalars(world: World) -> list[Place]:
    return [
        place
        for place in world.places
        if place.path and place.rules and not isinstance(place.value, dict | list)
    ]


def _mappings(world: World) -> list[Place]:
    return [place for place in world.places if isinstance(place.value, dict)]


def _below_root(world: World) -> list[Place]:
    return [place for place in world.places if place.path]


def _names(merged: Any) -> dict[str, list[str]]:
    """What references may say, by the key that they stand at."""
    names = {key: sorted(merged[key]) for key in SECTIONS}
    models = [f"{model['model']}_{model['fit']}" for model in merged["energy"]["models"]]
    singular = {key.removesuffix("s"): names[key] for key in SECTIONS if key != "methods"}
    experiments = [experiment["name"] for experiment in merged["experiments"]]
    return {**names, **singular, "energy_model": models, "experiment": experiments}


def redraw(draw: Draw, world: World) -> None:
    """Another value within the bounds."""
    places = [
        place
        for place in _scalars(world)
        if place.every("enum") or place.types & {"boolean", "integer", "number"}
    ]
    place = _any(draw, places)
    for _ in range(5):  # there may be no other
        value = world.schema.value(draw, place.path, place.rules, _names(world.merged))
        if value != place.value:
            break
    world.effective = value != place.value and not oracle.idle(world.merged, place.path)
    world.put(place.path, value)


def refer(draw: Draw, world: World) -> None:
    """Another name, of something that is there or is not."""
    places = [place for place in _scalars(world) if place.types == {"string"}]
    place = _any(draw, places)
    names = [name for known in _names(world.merged).values() for name in known]
    world.put(place.path, draw(st.sampled_from([*names, "nothing_of_this_name"])))


def retype(draw: Draw, world: World) -> None:
    """Something else altogether."""
    place = _any(draw, _below_root(world))
    world.put(place.path, copy.deepcopy(draw(st.sampled_from(ODD))))


def exceed(draw: Draw, world: World) -> None:
    """A number beyond the bounds."""
    places = [place for place in _scalars(world) if place.types & {"integer", "number"}]
    place = _any(draw, places)
    world.put(place.path, draw(st.sampled_from(outside(place))))
    world.wrong = True


def drop(draw: Draw, world: World) -> None:
    """Without a key, or an entry of a list."""
    world.put(_any(draw, _below_root(world)).path, None, drop=True)


def add(draw: Draw, world: World) -> None:
    """With a key more that may be there."""
    places = [place for place in _mappings(world) if set(place.known or {}) - set(place.value)]
    place = _any(draw, [place for place in places if place.path])
    key = draw(st.sampled_from(sorted(set(place.known or {}) - set(place.value))))
    path = (*place.path, key)
    nodes = world.schema.nodes(place.rules, key)
    world.put(path, world.schema.value(draw, path, nodes, _names(world.merged)))


def invent(draw: Draw, world: World) -> None:
    """With an entry more, all of it drawn."""
    section = draw(st.sampled_from(SECTIONS))
    place = next(place for place in _mappings(world) if place.path == (section,))
    nodes = world.schema.nodes(place.rules, "drawn_entry")
    path = (section, "drawn_entry")
    world.put(path, world.schema.value(draw, path, nodes, _names(world.merged)))


def misspell(draw: Draw, world: World) -> None:
    """A key with a letter more, less or swapped, or as others write it."""
    places = [place for place in _mappings(world) if place.known and set(place.value)]
    place = _any(draw, [place for place in places if place.path])
    key = draw(st.sampled_from(sorted(place.value)))
    spelt = draw(st.sampled_from(list(_misspelt(key))))
    if spelt in (place.known or {}):
        spelt += "x"
    path = (*place.path, key)
    parent = at(world.documents[world.owner(path)], place.path)
    value = parent[key]
    world.put(path, None, drop=True)
    world.put((*place.path, spelt), value)
    world.wrong = True


def _misspelt(key: str) -> Iterator[str]:
    yield key[1:] or "x"
    yield key + key[-1]
    yield key[:-2] + key[-2:][::-1] + ("" if len(set(key[-2:])) > 1 else "x")
    yield key.capitalize()
    yield key.upper()
    yield key + " "
    yield (key.replace("_", "-") if "_" in key else key + "-")
    yield key.replace("a", "\u0430") if "a" in key else key + "\u200b"  # a Cyrillic letter


def unknown(draw: Draw, world: World) -> None:
    """A key that nothing has, at any depth."""
    places = [place for place in _mappings(world) if place.known is not None]
    place = draw(st.sampled_from(places))
    key = draw(st.sampled_from(["unknown", "comment", "x y", "Ü", "", "a\nb", 7, None, True, 1.5]))
    world.put((*place.path, key), draw(st.sampled_from([1, "text", {}, None])))
    world.wrong = True


def twice(draw: Draw, world: World) -> None:
    """A key that stands twice."""
    places = [place for place in _mappings(world) if place.value]
    place = draw(st.sampled_from(places))
    name = world.owner(place.path)
    own = at(world.documents[name], place.path)
    if not own:
        return unknown(draw, world)
    key = draw(st.sampled_from(sorted(own, key=str)))
    value = draw(st.sampled_from([own[key], 1, None]))
    pairs = Pairs([*own.items(), (key, copy.deepcopy(value))])
    if place.path:
        at(world.documents[name], place.path[:-1])[place.path[-1]] = pairs
    else:
        world.documents[name] = pairs
    world.note(name, (*place.path, key), "stands twice")
    world.wrong = True
    return None


def rename(draw: Draw, world: World) -> None:
    """An entry, and all that names it."""
    section = draw(st.sampled_from(SECTIONS))
    old = draw(st.sampled_from(sorted(world.merged[section])))
    bad = draw(st.booleans())
    new = draw(st.sampled_from(BAD_NAMES if bad else GOOD_NAMES))
    for name, document in world.documents.items():
        world.documents[name] = _renamed(document, section, old, new)
        world.changed.add(name)
    world.paths += [(section, new), (section, old)]
    world.what.append(f"{section}.{old} is called {new!r} everywhere")
    world.wrong = bad


def _renamed(value: Any, section: str, old: str, new: str, path: Path = ()) -> Any:
    if isinstance(value, dict):
        limits = section == "platforms" and path[-1:] == ("limits",)
        own = path == (section,) or limits
        return {
            new if own and key == old else key: _renamed(entry, section, old, new, (*path, key))
            for key, entry in value.items()
        }
    if isinstance(value, list):
        return [_renamed(entry, section, old, new, (*path, i)) for i, entry in enumerate(value)]
    keys = [key for key in path if isinstance(key, str)]
    refers = keys and keys[0] not in SECTIONS and keys[-1] in (section, section.removesuffix("s"))
    return new if refers and value == old else value


def repeat(draw: Draw, world: World) -> None:
    """An entry of a list, once more."""
    lists = [place for place in _below_root(world) if isinstance(place.value, list)]
    places = [place for place in lists if place.value]
    place = _any(draw, places)
    entry = copy.deepcopy(draw(st.sampled_from(place.value)))
    world.put(place.path, [*place.value, entry])


def swap(draw: Draw, world: World) -> None:
    """Two parts in each other's place."""
    one, other = (draw(st.sampled_from(_below_root(world))) for _ in range(2))
    shared = min(len(one.path), len(other.path))
    if one.path[:shared] == other.path[:shared]:
        return retype(draw, world)
    world.put(one.path, copy.deepcopy(other.value))
    world.put(other.path, copy.deepcopy(one.value))
    return None


def shuffle(draw: Draw, world: World) -> None:
    """The keys in another order: the same configuration."""
    place = draw(st.sampled_from([place for place in _mappings(world) if len(place.value) > 1]))
    name = world.owner(place.path)
    own = at(world.documents[name], place.path)
    items = draw(st.permutations(list(own.items())))
    own.clear()
    own.update(items)
    world.note(name, place.path, "in another order")
    world.valid = True


def alias(draw: Draw, world: World) -> None:
    """A mapping by an anchor and a merge key: the same configuration."""
    places = [place for place in _mappings(world) if place.path and place.value]
    place = _any(draw, places)
    name = world.owner(place.path)
    parent = at(world.documents[name], place.path[:-1])
    own = parent[place.path[-1]]
    key = draw(st.sampled_from(sorted(own, key=str))) if own else None
    if key is None:
        return shuffle(draw, world)
    rest = {k: v for k, v in own.items() if k != key}
    parent[place.path[-1]] = Pairs([(Raw(MERGE), rest), (key, own[key])])
    world.note(name, place.path, "by a merge key")
    world.valid = True
    return None


CHANGES: dict[Callable[[Draw, World], None], int] = {
    redraw: 6,
    add: 4,
    invent: 3,
    refer: 3,
    retype: 5,
    exceed: 3,
    drop: 3,
    misspell: 3,
    unknown: 2,
    twice: 2,
    rename: 2,
    repeat: 2,
    swap: 1,
    shuffle: 1,
    alias: 1,
}


class Configurations:
    """All cases of a seed."""

    def __init__(self, root: File = ROOT):
        self.texts = {
            file.name: file.read_text() for file in (root / DEFAULT, *root.glob("configs/*.yaml"))
        }
        content = yaml.safe_load(self.texts.pop("schema.yaml"))
        self.schema = Schema(content)
        self.documents = {name: yaml.safe_load(text) for name, text in self.texts.items()}
        self.cached = {}
        for base in dict.fromkeys(BASES):
            whole = merged({name: self.documents[name] for name in _files(base)})
            self.cached[base] = whole, self.schema.places(whole)

    def unchanged(self, base: tuple[str, ...]) -> Case:
        files = {name: self.texts[name] for name in _files(base)}
        return Case(base, files, (), "as it is", refused=False, effective=False)

    def cases(self, seed: int, count: int) -> list[Case]:
        """`count` different cases; the same for the same seed and count."""
        found: dict[str, Case] = {}
        for turn in range(count):
            if len(found) < count:  # some were the same
                self._draw(random.Random(f"{seed}/{turn}").getrandbits(32), count, found)
        return list(found.values())[:count]

    def _draw(self, seed: int, count: int, found: dict[str, Case]) -> None:
        kinds = [change for change, weight in CHANGES.items() for _ in range(weight)]

        @seeded(seed)
        @settings(
            max_examples=count + 10,
            phases=[Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.data())
        def draw_one(data: st.DataObject) -> None:
            base = data.draw(st.sampled_from(BASES))
            if data.draw(st.integers(0, 49)) == 0:
                broken = self._broken(base, data.draw(st.sampled_from(BROKEN)))
                found.setdefault(repr((broken.files, broken.base)), broken)
                return
            changes = [data.draw(st.sampled_from(kinds))]
            if data.draw(st.integers(0, 9)) == 0:
                changes.append(data.draw(st.sampled_from(kinds)))
            case = self._case(data.draw, base, changes)
            found.setdefault(repr((case.files, case.base)), case)

        draw_one()

    def _broken(self, base: tuple[str, ...], text: str) -> Case:
        files = {name: self.texts[name] for name in _files(base)} | {"mine.yaml": text}
        return Case(base, files, (), repr(text), refused=True, effective=False, broken=True)

    def _case(
        self, draw: Draw, base: tuple[str, ...], changes: list[Callable[[Draw, World], None]]
    ) -> Case:
        documents = {name: copy.deepcopy(self.documents[name]) for name in _files(base)}
        world = World(base, documents, self.schema, self.cached[base])
        for change in changes:
            # A second change is of what is whole.
            if not (world.wrong or world.valid or oracle.problems(self.schema, world.merged)):
                change(draw, world)
        texts = {
            name: yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True)
            if name in world.changed
            else self.texts[name]
            for name, document in world.documents.items()
        }
        problems = oracle.problems(self.schema, world.merged)
        misread = any(isinstance(v, Raw) and v in ("010", "1:30") for v in _leaves(documents))
        return Case(
            base,
            texts,
            tuple(world.paths),
            "; ".join(world.what) + (f" ({problems[0]})" if problems else ""),
            refused=world.wrong or misread or bool(problems),
            effective=world.effective and len(changes) == 1,
        )


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, Pairs):
        value = [entry for _, entry in value]
    if isinstance(value, list):
        for entry in value:
            yield from _leaves(entry)
    else:
        yield value


def _files(base: tuple[str, ...]) -> list[str]:
    return [DEFAULT, *(f"{name}.yaml" for name in base)]
