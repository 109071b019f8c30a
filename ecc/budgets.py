"""Budgets: joules of one inference, given directly or relative to the dense network's energy.

Seconds, where the metric of the platform is latency. A budget may come with limits: budgets on
other platforms, or on counts (parameters, MACs, bytes), that must hold with it.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ecc.errors import UserError
from ecc.metrics import UNITS, WORDS

ABSOLUTE = {"joules": "energy_j", "seconds": "latency_s", "count": "count"}
KINDS = ("dense", "reducible", *ABSOLUTE)
ONE = rf"({'|'.join(KINDS)})-[0-9.e-]+"
PATTERN = rf"{ONE}(\+\w+-{ONE})*"  # of the label of any budget


@dataclass(frozen=True)
class Range:
    """What budgets are relative to, in the unit of `metric` ("energy_j", "latency_s", "count").

    `dense` is measured; `modelled` is what the energy model says of the dense network.
    """

    dense: float
    smallest: float
    metric: str = "energy_j"
    modelled: float = math.inf


@dataclass(frozen=True)
class Budget:
    """`dense`: a fraction of dense energy; `reducible`: of what lies between the smallest
    reachable energy and dense; `joules`, `seconds` and `count`: themselves. `limits` are further
    budgets by what they limit: the name of a platform, or of a count (`ecc.counts`).
    """

    kind: str
    value: float
    limits: tuple[tuple[str, Self], ...] = ()

    def __post_init__(self) -> None:
        if self.value <= 0 or (self.kind not in ABSOLUTE and self.value > 1):
            allowed = "above 0" if self.kind in ABSOLUTE else "above 0 and at most 1"
            raise UserError(f"{self.kind}: {self.value} must be {allowed}")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """From an entry of `budgets` in the config, such as {dense: 0.5}; see `limits` there."""
        given = [kind for kind in KINDS if kind in settings]
        if len(given) != 1:
            raise UserError(f"give exactly one of {', '.join(KINDS)}, not {dict(settings)}")
        limits = settings.get("limits", {})
        return cls(
            given[0],
            float(settings[given[0]]),
            tuple((name, cls.from_settings(limits[name])) for name in sorted(limits)),
        )

    @classmethod
    def from_label(cls, label: str) -> Self:
        own, *others = label.split("+")
        kind, _, value = own.partition("-")
        parts = [re.fullmatch(rf"(\w+)-({ONE})", other) for other in others]
        limits = tuple((part[1], cls.from_label(part[2])) for part in parts if part)
        return cls(kind, float(value), limits)

    @property
    def label(self) -> str:
        """As in paths: dense-0.5, joules-0.0247, reducible-0.3+parameters-dense-0.5."""
        # 1e+16 without its plus, which is between a budget and its limits.
        value = repr(self.value).replace("e+", "e")
        return "+".join([f"{self.kind}-{value}", *self.limit_labels])

    @property
    def limit_labels(self) -> list[str]:
        return [f"{name}-{limit.label}" for name, limit in self.limits]

    def check(self, metric: str) -> None:
        """Raises UserError where the budget is in another unit than `metric` (that of a platform,
        or "count").
        """
        if ABSOLUTE.get(self.kind, metric) != metric:
            known = next(kind for kind, of in ABSOLUTE.items() if of == metric)
            raise UserError(f"a budget in {self.kind}, where {WORDS[metric]} is measured: {known}")

    def resolve(self, found: Range) -> float:
        """The budget in joules, or in seconds or as a count by the metric of what was found.

        Raises UserError where it is below the smallest reachable energy or above dense energy.
        """
        self.check(found.metric)
        word, unit = WORDS[found.metric], f" {UNITS[found.metric]}".rstrip()
        if self.kind in ABSOLUTE:
            budget = self.value
        elif self.kind == "dense":
            budget = self.value * found.dense
        else:
            budget = found.smallest + self.value * (found.dense - found.smallest)
        if budget < found.smallest:
            raise UserError(
                f"budget {self.label} ({budget:.6g}{unit}) cannot be reached: "
                f"the smallest reachable {word} is {found.smallest:.6g}{unit} "
                f"(dense: {found.smallest / found.dense:.4g})"
            )
        if budget > found.dense:
            raise UserError(
                f"budget {self.label} is above the {word} of the dense network, "
                f"{found.dense:.6g}{unit}: nothing would be compressed"
            )
        return budget

    def resolve_limits(self, found: Mapping[str, Range]) -> dict[str, float]:
        """The limits by name, each by what was found of it; raises UserError as `resolve`."""
        limits = {}
        for name, limit in self.limits:
            try:
                limits[name] = limit.resolve(found[name])
            except UserError as error:
                raise UserError(f"limit on {name}: {error}") from error
        return limits

    def check_binding(self, own: Range, found: Mapping[str, Range]) -> None:
        """Raises UserError where, by the models, the dense network meets the budget and all limits.

        What binds by measurement alone, within the error of a model, no method can see.
        """
        others = [(limit, found[name]) for name, limit in self.limits]
        if self.resolve(own) > own.modelled and all(
            limit.resolve(other) >= other.modelled for limit, other in others
        ):
            word, unit = WORDS[own.metric], f" {UNITS[own.metric]}".rstrip()
            raise UserError(
                f"budget {self.label} ({self.resolve(own):.6g}{unit}) is above the {word} of the "
                f"dense network by the energy model, {own.modelled:.6g}{unit}: nothing would be "
                "compressed: lower it, or give it a limit that binds"
            )


def lower_bounds(full_widths: NDArray[np.int64], smallest_width: float) -> NDArray[np.int64]:
    """Smallest widths allowed (groups,): a fraction of the full ones, at least one channel."""
    bounds: NDArray[np.int64] = np.ceil(smallest_width * full_widths).astype(np.int64)
    return bounds.clip(min=1)
