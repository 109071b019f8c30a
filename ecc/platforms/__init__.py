"""Platforms: one device, sensor or emulation per file; one line each in a registry.

`PLATFORMS` are emulated and need no settings, `SENSORS` measure the machine that they run on;
`make` gives the platform of an entry of the configuration, whichever it is.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any, TypeGuard

from ecc.errors import UserError
from ecc.platforms import jetson, latency, nvml, rapl
from ecc.platforms.emulated import EmulatedDevice
from ecc.platforms.eyeriss import EYERISS, Eyeriss
from ecc.platforms.gtx1080ti import GTX1080TI
from ecc.platforms.interface import Deployed, HasStructure, Platform
from ecc.platforms.jetson_tx2 import JETSON_TX2
from ecc.platforms.measured import by_sensor
from ecc.platforms.published_tx2 import PUBLISHED_TX2
from ecc.platforms.recorded import Recorded
from ecc.platforms.simulated import simulated

__all__ = [
    "KINDS",
    "PLATFORMS",
    "SENSORS",
    "Deployed",
    "Estimator",
    "HasStructure",
    "Platform",
    "estimates",
    "get",
    "make",
]

PLATFORMS: dict[str, Platform] = {
    "eyeriss": EYERISS,
    "gtx1080ti": GTX1080TI,
    "jetson_tx2": JETSON_TX2,
    "published_tx2": PUBLISHED_TX2,
}

SENSORS: dict[str, ModuleType] = {
    "nvml": nvml,
    "jetson": jetson,
    "rapl": rapl,
    "latency": latency,
}

SIZES = ("samples", "test_samples")  # how much is sampled: not the platform's own settings


def emulated(kind: str, name: str, *, metric: str = "energy") -> Platform:
    """An emulated platform, or the times of one; raises UserError where it has no times."""
    platform = PLATFORMS[kind]
    if metric == "energy":
        return platform
    if metric != "latency" or not isinstance(platform, EmulatedDevice):
        raise UserError(f"platforms.{name}: {kind} has no {metric}: use gtx1080ti or jetson_tx2")
    title = f"latency of {platform.description}"
    return replace(platform, name=name, description=title, metric="latency_s")


# (name, **settings) -> platform
KINDS: dict[str, Callable[..., Platform]] = {
    **{kind: partial(emulated, kind) for kind in PLATFORMS},
    **{kind: by_sensor(kind, module) for kind, module in SENSORS.items()},
    "recorded": Recorded,
    "simulated": simulated,
}


def get(name: str) -> Platform:
    """The emulated platform of that name; raises UserError for an unknown one."""
    if name not in PLATFORMS:
        raise UserError(f"unknown platform '{name}': known are {', '.join(PLATFORMS)}")
    return PLATFORMS[name]


Estimator = EmulatedDevice | Eyeriss


def estimates(platform: Platform) -> TypeGuard[Estimator]:
    """Whether it tells the energy of any network, of which nothing was measured or published."""
    return isinstance(platform, Estimator) and platform.metric == "energy_j"


def make(name: str, settings: Mapping[str, Any]) -> Platform:
    """The platform of an entry of `platforms` in the configuration, by its `kind` and settings.

    No sensor is opened before it has to measure. Raises UserError for an unknown kind or setting.
    """
    own = {key: value for key, value in settings.items() if key not in ("kind", *SIZES)}
    if settings["kind"] not in KINDS:
        raise UserError(f"unknown platform '{settings['kind']}': known are {', '.join(KINDS)}")
    return KINDS[settings["kind"]](name, **own)
