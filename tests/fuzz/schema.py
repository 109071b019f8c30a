"""What configs/schema.yaml says of every place of a configuration, and values drawn from it."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from ecc.config import LARGEST, Validator

Path = tuple[str | int, ...]
Rules = list[dict[str, Any]]
Draw = Callable[[st.SearchStrategy[Any]], Any]

# Keys that decide which other keys there are: they are drawn first.
DECIDING = ("kind", "method", "model", "fit", "architecture")
# Text whose meaning no schema knows, by its key.
TEXTS = {
    "device": ["auto", "cpu", "cuda", "cuda:1"],
    "results": ["results/drawn", "results/fuzz-1", "elsewhere"],
    "path": ["data/drawn", "data/with blanks", "/data/ü"],
    "folder": ["resources/drawn"],
    "group": ["features.0", "stem"],
    "rails": ["GPU", "CPU", "SOC"],
    "weights": ["torchvision"],
}
MANY = 2**31 - 1  # where the schema sets no bound


@dataclass(frozen=True)
class Place:
    """A value of a configuration, and all rules of the schema that apply to it."""

    path: Path
    value: Any
    rules: Rules

    def every(self, key: str) -> list[Any]:
        return [rule[key] for rule in self.rules if key in rule]

    @property
    def types(self) -> set[str]:
        return set(self.every("type"))

    @property
    def known(self) -> dict[str, Any] | None:
        """The keys that may be here, where others may not."""
        closed = [rule["properties"] for rule in self.rules if _is_closed(rule)]
        return closed[-1] if closed else None

    @property
    def required(self) -> set[str]:
        return {name for names in self.every("required") for name in names}

    @property
    def named(self) -> bool:
        """Whether its keys are names that the user chooses."""
        return any(isinstance(rule.get("additionalProperties"), dict) for rule in self.rules)


class Schema:
    def __init__(self, content: dict[str, Any]):
        self.content = content
        self.validator = Validator(content)

    def rules(self, node: Mapping[str, Any], value: Any) -> Iterator[dict[str, Any]]:
        """The rules that a node of the schema has for a value, references and branches followed."""
        if "$ref" in node:
            yield from self.rules(self._defined(node["$ref"]), value)
        for part in node.get("allOf", ()):
            yield from self.rules(part, value)
        if "if" in node:
            meant = self.validator.evolve(schema=node["if"]).is_valid(value)
            yield from self.rules(node.get("then" if meant else "else", {}), value)
        yield dict(node)

    def nodes(self, rules: Rules, key: str | int) -> Rules:
        """What the schema has for a key of a value that has `rules`, its branches not followed."""
        nodes = []
        for rule in rules:
            if isinstance(key, int):
                nodes.append(rule.get("items", {}))
            elif key in rule.get("properties", {}):
                nodes.append(rule["properties"][key])
            elif isinstance(rule.get("additionalProperties"), dict):
                nodes.append(rule["additionalProperties"])
        return nodes

    def followed(self, nodes: Rules, value: Any) -> Rules:
        return [found for node in nodes for found in self.rules(node, value)]

    def places(self, value: Any) -> list[Place]:
        """All places of a configuration, itself first."""
        return list(self._places((), value, list(self.rules(self.content, value))))

    def _places(self, path: Path, value: Any, rules: Rules) -> Iterator[Place]:
        yield Place(path, value, rules)
        inner = enumerate(value) if isinstance(value, list) else ()
        for key, entry in value.items() if isinstance(value, dict) else inner:
            below = self.followed(self.nodes(rules, key), entry)
            yield from self._places((*path, key), entry, below)

    def _defined(self, reference: str) -> dict[str, Any]:
        node: Any = self.content
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
        return dict(node)

    def value(self, draw: Draw, path: Path, nodes: Rules, names: Mapping[str, list[str]]) -> Any:
        """A value within the bounds of `nodes`; `names` are those that references may have."""
        place = Place(path, None, self.followed(nodes, ""))
        if place.every("const"):
            return place.every("const")[0]
        if enums := place.every("enum"):
            return draw(st.sampled_from([one for one in enums[0] if all(one in e for e in enums)]))
        kinds = place.types
        if "boolean" in kinds:
            return draw(st.booleans())
        if kinds & {"integer", "number"}:
            return draw(number(place))
        if "string" in kinds:
            return draw(st.sampled_from(_texts(path, names)))
        if "array" in kinds:
            return self._list(draw, place, names)
        return self._mapping(draw, path, nodes, names)

    def _list(self, draw: Draw, place: Place, names: Mapping[str, list[str]]) -> list[Any]:
        least = max([0, *place.every("minItems")])
        most = min([least + 3, *place.every("maxItems")])
        nodes = self.nodes(place.rules, 0)
        values: list[Any] = []
        for index in range(draw(st.integers(least, most))):
            value = self.value(draw, (*place.path, index), nodes, names)
            if not (True in place.every("uniqueItems") and value in values):
                values.append(value)
        return values

    def _mapping(
        self, draw: Draw, path: Path, nodes: Rules, names: Mapping[str, list[str]]
    ) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def fill(keys: list[str]) -> None:
            for key in keys:
                own = self.nodes(self.followed(nodes, found), key)
                found[key] = self.value(draw, (*path, key), own, names)

        def place() -> Place:
            return Place(path, found, self.followed(nodes, found))

        for key in DECIDING:
            if any(key in properties for properties in place().every("properties")):
                fill([key])
        others = [key for key in place().known or {} if key not in found]
        required = place().required
        fill([key for key in others if key in required or draw(st.integers(0, 2)) == 0])
        fill(sorted(place().required - set(found)))
        return found


def number(place: Place) -> st.SearchStrategy[Any]:
    """Numbers within the bounds of a place, the bounds themselves among them."""
    low = max([-math.inf, *place.every("minimum")])
    above = max([-math.inf, *place.every("exclusiveMinimum")])
    high = min([math.inf, *place.every("maximum")])
    below = min([math.inf, *place.every("exclusiveMaximum")])
    if "integer" in place.types:
        first = int(max(low, above + 1, -MANY))
        last = int(min(high, below - 1, MANY))
        step = max([1, *place.every("multipleOf")])
        odd = any("not" in rule for rule in place.rules)  # kernels
        values = st.one_of(st.integers(first, last), st.sampled_from([first, last]))
        return values.map(lambda n: n - n % step if n - n % step >= first else n + -n % step).map(
            lambda n: n + 1 - n % 2 if odd else n
        )
    ends = [end for end in (low, high) if math.isfinite(end)]
    inside = st.floats(
        max(low, above, -1e6),
        min(high, below, 1e6),
        exclude_min=above >= low,
        exclude_max=below <= high,
        allow_subnormal=False,
    )
    return st.one_of(inside, st.sampled_from(ends)) if ends else inside


def outside(place: Place) -> list[Any]:
    """Numbers just beyond the bounds of a place, and far."""
    whole = "integer" in place.types
    found: list[Any] = [LARGEST + 1, -(10**30)] if whole else [10**400, -(10**400)]
    for key, step in (("minimum", -1), ("maximum", 1)):
        for bound in place.every(key):
            found.append(bound + step if whole else bound + step * max(1e-9, abs(bound) * 1e-9))
    for key in ("exclusiveMinimum", "exclusiveMaximum"):
        found += place.every(key)
    return found


def _is_closed(rule: Mapping[str, Any]) -> bool:
    return rule.get("additionalProperties") is False


def _texts(path: Path, names: Mapping[str, list[str]]) -> list[str]:
    known = {**TEXTS, **names}
    keys = [key for key in path if isinstance(key, str)]
    return next((known[key] for key in reversed(keys) if known.get(key)), ["drawn"])
