"""An emulated device read by a simulated sensor: the whole of measuring, without hardware.

Emulated, not measured: the energies are those of an emulated device, the clock, the counter with
its period, lag, drift and noise are made up (`ecc.measuring.simulated`), and no time passes.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecc.errors import UserError
from ecc.measuring.campaign import check_settings
from ecc.measuring.interface import Buildable, Settings
from ecc.measuring.simulated import Simulation, rig
from ecc.platforms.emulated import EmulatedDevice
from ecc.platforms.gtx1080ti import GTX1080TI
from ecc.platforms.jetson_tx2 import JETSON_TX2
from ecc.platforms.measured import Measured

DEVICES: dict[str, EmulatedDevice] = {"gtx1080ti": GTX1080TI, "jetson_tx2": JETSON_TX2}


class Simulated(Measured):
    """A measured platform all of whose parts are simulated."""

    @property
    def description(self) -> str:
        return DEVICES[self.about["device"]].description.replace("emulated", "simulated")


def simulated(
    name: str,
    *,
    device: str = "gtx1080ti",
    protocol: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Simulated:
    """`device` is one of DEVICES, `settings` those of `Simulation`.

    Raises UserError for an unknown device or setting.
    """
    if device not in DEVICES:
        raise UserError(f"simulated device '{device}' is unknown: known are {', '.join(DEVICES)}")
    emulated = DEVICES[device]
    try:
        simulation = Simulation(**{"idle_w": emulated.static_w / 2, **settings})
        steps = Settings(**(protocol or {}))
        check_settings(steps)
    except (TypeError, UserError) as error:
        raise UserError(f"platform {name}: {error}") from error

    def cost(network: Buildable, widths: NDArray[np.int64]) -> tuple[float, float]:
        rows = widths[None]
        energy_j = float(emulated.energy(network.structure, rows)[0])
        latency_s = float(emulated.latency(network.structure, rows)[0])
        return energy_j, latency_s * simulation.batch

    about = {"kind": "simulated", "device": device}
    opened = partial(rig, simulation, cost)
    return Simulated(name, "energy_j", opened, steps, about, emulated=True)
