"""A device with a sensor as a platform: every measurement is a campaign (`ecc.measuring`)."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecc.errors import UserError
from ecc.measuring import campaign
from ecc.measuring.interface import Buildable, Rig, Settings, SystemClock
from ecc.measuring.journal import WINDOWS, read as read_windows, read_provenance
from ecc.metrics import Metric
from ecc.platforms.interface import Array, Campaign, checked_widths
from ecc.structure import Structure


@dataclass(frozen=True)
class Measured:
    """A device that is measured here and now, by the `protocol` of a campaign.

    `open` gives the sensor, the device and their clock when the first window is needed, and raises
    SensorError where one of them is lacking. `about` goes into the provenance of campaigns.
    """

    name: str
    metric: Metric
    open: Callable[[], Rig]
    protocol: Settings = field(default_factory=Settings)
    about: Mapping[str, Any] = field(default_factory=dict)
    emulated: bool = False

    @property
    def description(self) -> str:
        return f"{self.name} (measured)"

    def measure(
        self,
        network: Buildable,
        widths: ArrayLike,
        *,
        seed: int,
        first: int = 0,
        journal: Path | None = None,
    ) -> Array:
        """See `Platform.measure`; `seed` decides the order, and nothing depends on `first`.

        Without `journal` a killed measurement begins anew.
        """
        checked = checked_widths(network.structure, widths)
        with tempfile.TemporaryDirectory() as folder:
            frame = campaign.run(
                self.open,
                network,
                checked,
                settings=self.protocol,
                seed=seed,
                folder=journal or Path(folder),
                about={"platform": self.name, **self.about},
            )
        values: Array = frame[self.metric].to_numpy(dtype=np.float64)
        return values

    def sampled(self, structure: Structure) -> None:
        return None

    def known(self, structure: Structure, widths: ArrayLike) -> NDArray[np.bool_]:
        return np.ones(len(np.asarray(widths)), dtype=bool)

    def check(self) -> dict[str, Any]:
        """What there is to measure with; raises UserError where a campaign could not begin."""
        return campaign.check(self.open, self.protocol)

    def campaign(self, structure: Structure, journal: Path) -> Campaign:
        """What is in the folder `journal`."""
        return Campaign(
            read_windows(journal / WINDOWS, len(structure.groups)),
            read_provenance(journal / campaign.PROVENANCE, "delete or move its folder"),
        )


def by_sensor(kind: str, module: ModuleType) -> Callable[..., Measured]:
    """A factory of platforms that read the sensor of a module: (name, **settings) -> Measured.

    Settings of the sensor and of the run (`ecc.measuring.torch_runner.RunSettings`) stand beside
    each other; `protocol` holds those of the campaign.
    """

    def make(name: str, *, protocol: Mapping[str, Any] | None = None, **settings: Any) -> Measured:
        own = {entry.name for entry in fields(module.Settings)}
        device = settings.pop("device", module.DEVICE)
        sensor = module.Settings(**{key: settings.pop(key) for key in own & set(settings)})

        def open_rig() -> Rig:
            from ecc.measuring.torch_runner import RunSettings, TorchRunner  # imports torch

            clock = SystemClock()
            try:
                run = RunSettings(device=device, **settings)
            except TypeError as error:
                raise UserError(f"platform {name}: {error}") from error
            meter = module.meter(sensor, device, clock)  # first: it knows best what is lacking
            try:
                return Rig(meter, TorchRunner(run, clock), clock)
            except UserError:
                meter.close()
                raise

        try:
            steps = Settings(**(protocol or {}))
            campaign.check_settings(steps)
        except (TypeError, UserError) as error:
            raise UserError(f"platform {name}: protocol: {error}") from error
        about = {"kind": kind, "device": device, **settings}
        return Measured(name, module.METRIC, open_rig, steps, about)

    return make
