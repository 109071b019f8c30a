"""The INA3221 power monitors of the Jetson TX2 and its successors (Xavier, Orin).

A monitor measures the voltage of three rails and that across a shunt in each. It is read through
the kernel's driver (sysfs: `ina3221x`, an iio device, on JetPack 4; `ina3221`, a hwmon device,
since), or, where no driver holds it, through its registers on the I2C bus. Power is integrated
by the trapezoid between readings.

Sources: the drivers `drivers/hwmon/ina3221.c` of Linux and `drivers/staging/iio/meter/ina3221.c`
of NVIDIA's Linux 4.9 for registers, files and configurations; the device trees of Linux
(tegra186-p3310, tegra186-p2771, tegra234-p3701, tegra234-p3767) for rails and shunts.
"""

import errno
import logging
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from ecc.errors import UserError
from ecc.measuring.interface import (
    Clock,
    EnergyMeter,
    Found,
    Reading,
    SensorError,
    Status,
    SystemClock,
)
from ecc.metrics import Metric

METRIC: Metric = "energy_j"
DEVICE = "cuda:0"

logger = logging.getLogger(__name__)
T = TypeVar("T")

SHUNT_STEP_V, BUS_STEP_V = 40e-6, 8e-3
STEPS = 4095  # the last value of a register: 163.8 mV across the shunt
SHUNT_RANGE_V, BUS_RANGE_V = STEPS * SHUNT_STEP_V, 26.0  # the register would reach 32.76 V
CONFIGURATION, MAKER, DIE = 0x00, 0xFE, 0xFF
# Not in the Linux drivers; both values are those of Adafruit's and RIOT's drivers of the INA3221.
MAKER_ID, DIE_ID = 0x5449, 0x3220
RESET_CONFIGURATION = 0x7127  # three channels, 1.1 ms a conversion, no averaging, continuous
# JetPack 4 sets its own from the device tree; where that is not told, what its driver defines.
JETPACK4_CONFIGURATION = 0x7727
CONVERSIONS_S = (140e-6, 204e-6, 332e-6, 588e-6, 1.1e-3, 2.116e-3, 4.156e-3, 8.244e-3)
AVERAGES = (1, 4, 16, 64, 128, 256, 512, 1024)
MODES = ("power-down", *("a single shot",) * 3, "power-down", "shunt alone", "bus alone")

# Rail: address, channel (from 1), ohms of the shunt. Module, then its carrier, all on bus 0.
TX2 = {
    "VDD_SYS_GPU": (0x40, 1, 0.010),
    "VDD_SYS_SOC": (0x40, 2, 0.010),
    "VDD_4V0_WIFI": (0x40, 3, 0.010),
    "VDD_IN": (0x41, 1, 0.005),
    "VDD_SYS_CPU": (0x41, 2, 0.010),
    "VDD_SYS_DDR": (0x41, 3, 0.010),
    "VDD_MUX": (0x42, 1, 0.020),
}
TOTALS = ("VDD_IN", "POM_5V_IN", "VDD_MUX")  # what flows through them flows on into other rails

ATTEMPTS = 3
RETRY_S = 1e-3
# A lost arbitration, or a conversion that the driver did not wait long enough for.
PASSING = (errno.EIO, errno.EAGAIN, errno.ETIMEDOUT)
SILENT = (errno.EREMOTEIO, errno.ENXIO, errno.ETIMEDOUT, errno.ENODEV)
DENIED = (errno.EACCES, errno.EPERM)


@dataclass(frozen=True)
class Settings:
    """Which rails are summed, and how they are reached.

    `access`: "auto" takes sysfs where the kernel's driver shows rails, else I2C.
    `rails`: names as the board has them, or a short one: GPU is VDD_SYS_GPU on the TX2,
    VDD_GPU_SOC on the AGX Orin, VDD_CPU_GPU_CV on the Orin NX and the Xavier NX.
    For I2C alone: `bus`; `addresses`, (address, channel from 1) of each rail; `shunts_ohm`, the
    shunt of each rail; `force`, which reads although the kernel's driver holds the address.
    """

    access: Literal["auto", "sysfs", "i2c"] = "auto"
    rails: Sequence[str] = ("GPU",)
    bus: int = 0
    addresses: Mapping[str, Sequence[int]] = field(
        default_factory=lambda: {rail: place[:2] for rail, place in TX2.items()}
    )
    shunts_ohm: Mapping[str, float] = field(
        default_factory=lambda: {rail: place[2] for rail, place in TX2.items()}
    )
    force: bool = False

    def __post_init__(self) -> None:
        if self.access not in ("auto", "sysfs", "i2c"):
            raise UserError(f"access is {self.access!r}: use auto, sysfs or i2c")
        if isinstance(self.rails, str) or not self.rails or len({*self.rails}) < len(self.rails):
            raise UserError(f"rails are {self.rails!r}: give a list of different names")
        if isinstance(self.bus, bool) or not isinstance(self.bus, int) or self.bus < 0:
            raise UserError(f"bus is {self.bus!r}: give the number N of /dev/i2c-N")
        if not isinstance(self.force, bool):
            raise UserError(f"force is {self.force!r}: give true or false")
        for rail, place in self.addresses.items():
            if not _is_place(place):
                raise UserError(
                    f"addresses of {rail} are {place!r}: give [address from 0x40 to 0x43, "
                    "channel from 1 to 3]"
                )
        for rail, ohm in self.shunts_ohm.items():
            if not isinstance(ohm, int | float) or not 0 < ohm < math.inf:
                raise UserError(f"shunts_ohm of {rail} is {ohm}: give ohms above zero, as 0.01")


def _is_place(place: Any) -> bool:
    """Whether this is an address that an INA3221 can have, and one of its channels."""
    if not isinstance(place, Sequence) or [*map(type, place)] != [int, int]:
        return False
    address, channel = map(int, place)
    return 0x40 <= address <= 0x43 and 1 <= channel <= 3


def meter(settings: Settings, device: str, clock: Clock, root: Path = Path("/")) -> EnergyMeter:
    """Raises SensorError, one line, where a rail is not there or may not be read."""
    patience = _Patience(clock)
    board = _board(root)
    found: list[_Rail] = []
    if settings.access != "i2c":
        found = _sysfs_rails(root, board, patience)
        if not found and (settings.access == "sysfs" or not _is_jetson(root, board)):
            raise SensorError(_absent(root, board))
    if found:
        chosen = _choose(settings.rails, [rail.name for rail in found])
        by_name = {rail.name: rail for rail in found}
        return _Meter([by_name[name] for name in chosen], "sysfs", device, root, patience)
    return _over_i2c(settings, device, root, board, patience)


def probe(root: Path = Path("/")) -> list[Found]:
    """The rails that sysfs shows; else what is lacking. Never raises."""
    what = "INA3221 power monitor of a Jetson"
    try:
        board = _board(root)
        rails = _sysfs_rails(root, board, _Patience(SystemClock()))
        if rails:
            return [Found(f"{what}: {rail.name} ({rail.where})", _lacks(rail)) for rail in rails]
        bus = root / "dev/i2c-0"
        if _is_tx2(board) and bus.exists():
            usable = os.access(bus, os.R_OK | os.W_OK)
            return [Found(f"{what} ({bus})", "" if usable else _denied(bus))]
        return [Found(what, _absent(root, board))]
    except (OSError, SensorError) as error:
        return [Found(what, str(error))]


class _Patience:
    """Reads again what fails in passing, and says so in the log: times 1, 2, 4, 8, ... alone."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.retries = 0

    def __call__(self, read: Callable[[], T], where: str) -> T:
        for _ in range(ATTEMPTS - 1):
            try:
                return read()
            except OSError as error:
                if error.errno not in PASSING:
                    raise
                self.retries += 1
                if self.retries & (self.retries - 1) == 0:
                    logger.warning(
                        "%s: %s, read again (%d so far)", where, error.strerror, self.retries
                    )
                self.clock.sleep(RETRY_S)
        return read()


class _Rail(Protocol):
    """A rail as any access reads it. Ohms and seconds are NaN where they cannot be told."""

    @property
    def name(self) -> str: ...
    @property
    def where(self) -> str: ...
    @property
    def shunt_ohm(self) -> float: ...
    @property
    def period_s(self) -> float: ...
    @property
    def about(self) -> dict[str, Any]: ...

    def power_w(self) -> float:
        """Negative where current flows back. Raises SensorError."""
        ...

    def bus_v(self) -> float: ...


class _Meter:
    """Rails, summed, as a counter of joules from the first reading on."""

    metric: Metric = METRIC
    stepped = False

    def __init__(
        self,
        rails: Sequence[_Rail],
        access: str,
        device: str,
        root: Path,
        patience: _Patience,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self._rails, self._access, self._device, self._root = rails, access, device, root
        self._patience, self._clock, self._close = patience, patience.clock, close
        self._board = _board(root)
        self._zone = _gpu_zone(root)
        self._frequency = _gpu_frequency(root)
        self._alert = _gpu_alert(root)
        self._total = 0.0
        self._last: tuple[float, float] | None = None  # seconds and watts of the last reading
        for rail in rails:
            rail.power_w()  # what is wrong shows before a campaign begins
        self._volts = {rail.name: rail.bus_v() for rail in rails}

    @property
    def name(self) -> str:
        rails = " + ".join(rail.name for rail in self._rails)
        return f"INA3221 ({self._access}), {rails} of {self._board or 'an unknown board'}"

    @property
    def settle_s(self) -> float:
        """A register holds the mean of one period for the whole of the next one."""
        return 2 * self._period_s

    @property
    def limit_w(self) -> float:
        """The end of the sensor's range: 163.8 mV across each shunt, at 26 V."""
        ranges = [SHUNT_RANGE_V / rail.shunt_ohm * BUS_RANGE_V for rail in self._rails]
        return math.inf if any(map(math.isnan, ranges)) else sum(ranges)

    @property
    def _period_s(self) -> float:
        return max(rail.period_s for rail in self._rails)

    def read(self) -> Reading:
        """The time is the middle of reading all rails; nothing counts unless all are read."""
        begin = self._clock.now()
        power = sum(rail.power_w() for rail in self._rails)
        seconds = (begin + self._clock.now()) / 2
        if self._last is not None:
            self._total += (power + self._last[1]) / 2 * (seconds - self._last[0])
        self._last = seconds, power
        return Reading(seconds, self._total)

    def power_w(self) -> float:
        return math.nan

    def status(self) -> Status:
        alert = _glance(self._alert / "cur_state") > 0 if self._alert else False
        return Status(
            temperature_c=_glance(self._zone / "temp") / 1e3 if self._zone else math.nan,
            clock_mhz=_glance(self._frequency) / 1e6 if self._frequency else math.nan,
            throttled=("gpu-throttle-alert",) if alert else (),
        )

    def provenance(self) -> dict[str, Any]:
        return {
            "sensor": "INA3221",
            "board": self._board or "unknown",
            "kernel": os.uname().release,
            "device": self._device,
            "access": self._access,
            "rails": {rail.name: self._about(rail) for rail in self._rails},
            "update_period_s": self._period_s,
            "power_mode": _power_mode(self._root),
            "reads_repeated": self._patience.retries,
        }

    def close(self) -> None:
        self._close()

    def _about(self, rail: _Rail) -> dict[str, Any]:
        """The resolution is that of the current, at the bus voltage of the start."""
        volts = self._volts[rail.name]
        numbers = {
            "shunt_ohm": rail.shunt_ohm,
            "bus_v": volts,
            "resolution_w": SHUNT_STEP_V / rail.shunt_ohm * volts,
        }
        plain = {key: None if math.isnan(value) else value for key, value in numbers.items()}
        return {"where": rail.where, **plain, **rail.about}


# --- sysfs ---


@dataclass(frozen=True)
class _Iio:
    """A rail of JetPack 4: milliwatts, channels from 0; see `_sysfs_rails`."""

    folder: Path
    channel: int
    name: str
    patience: _Patience

    @property
    def where(self) -> str:
        return str(self.folder / f"in_power{self.channel}_input")

    @cached_property
    def shunt_ohm(self) -> float:
        for node in self.folder.parent.glob("of_node/*/reg"):
            if _cell(node) == self.channel:
                return _cell(node.with_name("ti,shunt-resistor-mohm")) / 1e3
        return math.nan

    @cached_property
    def period_s(self) -> float:
        """Of the continuous mode; in the triggered one every reading is a conversion of its own."""
        told = self._told
        return period_s(JETPACK4_CONFIGURATION if math.isnan(told) else int(told))

    @property
    def about(self) -> dict[str, Any]:
        mode = _glance(self.folder / "running_mode")
        return {
            "update_period": "assumed" if math.isnan(self._told) else "device tree",
            "continuous": None if math.isnan(mode) else bool(mode),
        }

    @cached_property
    def _told(self) -> float:
        return _cell(self.folder.parent / "of_node/ti,continuous-config")

    def power_w(self) -> float:
        return _whole(Path(self.where), self.patience) / 1e3

    def bus_v(self) -> float:
        return _whole(self.folder / f"in_voltage{self.channel}_input", self.patience) / 1e3


@dataclass(frozen=True)
class _Hwmon:
    """A rail of the mainline driver: millivolts and milliamperes, channels from 1.

    In NVIDIA's Linux 5.10 the driver waits in every read until the next conversion is ready.
    """

    folder: Path
    channel: int
    name: str
    patience: _Patience

    @property
    def where(self) -> str:
        return f"{self.folder}/in{self.channel}_input x curr{self.channel}_input"

    @cached_property
    def shunt_ohm(self) -> float:
        ohm = _glance(self.folder / f"shunt{self.channel}_resistor") / 1e6
        return ohm if ohm > 0 else math.nan

    @cached_property
    def period_s(self) -> float:
        """At most: whole milliseconds, in which newer kernels do not count the averaging."""
        interval_s = (_glance(self.folder / "update_interval") + 0.5) / 1e3
        samples = _glance(self.folder / "samples")
        if math.isnan(interval_s) or math.isnan(samples):
            return period_s(RESET_CONFIGURATION)
        counted = interval_s > 3 * 2 * CONVERSIONS_S[-1] + 1e-3
        return interval_s if counted else interval_s * samples

    @property
    def about(self) -> dict[str, Any]:
        return {}

    def power_w(self) -> float:
        volts = self.bus_v()
        current = self.folder / f"curr{self.channel}_input"
        milliamperes = _whole(current, self.patience)
        if abs(milliamperes) + 0.5 >= SHUNT_RANGE_V / self.shunt_ohm * 1e3:  # it rounds
            raise SensorError(_saturated(f"{current} ({self.name})"))
        return volts * milliamperes / 1e3

    def bus_v(self) -> float:
        return _whole(self.folder / f"in{self.channel}_input", self.patience) / 1e3


def _sysfs_rails(root: Path, board: str, patience: _Patience) -> list[_Rail]:
    """All rails that the kernel's drivers show, in the order of addresses and channels.

    The numbers of iio and hwmon devices change from boot to boot, so the monitors are searched
    for by driver and by name. A channel without a label is named by its place, on the TX2 by
    what is known to be there. Raises SensorError where a name may not be read.
    """
    drivers = root / "sys/bus/i2c/drivers"
    devices = [
        *drivers.glob("ina3221*/*-*/iio*device*"),
        *drivers.glob("ina3221*/*-*/hwmon/hwmon*"),
        *(
            folder
            for folder in (root / "sys/class/hwmon").glob("hwmon*")
            if _word(folder / "name") == "ina3221"
        ),
    ]
    rails: dict[tuple[str, int], _Rail] = {}
    for folder in devices:
        place = _place(folder)
        for channel in (1, 2, 3):
            key = place or str(folder.resolve()), channel
            if key in rails:
                continue
            if os.path.exists(folder / f"in_power{channel - 1}_input"):
                label = _label(folder / f"rail_name_{channel - 1}", patience)
                name = label or _unlabelled(board, place or folder.name, channel)
                rails[key] = _Iio(folder, channel - 1, name, patience)
            elif os.path.exists(folder / f"curr{channel}_input"):
                label = _label(folder / f"in{channel}_label", patience)
                if label == "" and _glance(folder / f"in{channel}_enable") == 0:
                    continue  # nothing is connected there
                name = label or _unlabelled(board, place or folder.name, channel)
                rails[key] = _Hwmon(folder, channel, name, patience)
    connected = {key: rail for key, rail in rails.items() if rail.name != "NC"}
    return [connected[key] for key in sorted(connected)]


def _place(folder: Path) -> str:
    """Bus and address as the kernel writes them, as in 0-0040; empty where they are not told."""
    device = (folder / "device").resolve()
    for part in reversed((*folder.resolve().parts, device.name)):
        if re.fullmatch(r"\d+-00[0-9a-f]{2}", part):
            return part
    return ""


def _unlabelled(board: str, place: str, channel: int) -> str:
    if _is_tx2(board):
        for rail, (address, number, _) in TX2.items():
            if place == f"0-{address:04x}" and number == channel:
                return rail
    return f"{place}.{channel}"


def _label(path: Path, patience: _Patience) -> str:
    return _text(path, patience).strip() if os.path.exists(path) else ""


def _text(path: Path, patience: _Patience) -> str:
    """Raises SensorError, one line that names the file."""
    try:
        return patience(path.read_bytes, str(path)).decode("ascii", "replace")
    except OSError as error:
        raise SensorError(_file_error(path, error)) from None


def _whole(path: Path, patience: _Patience) -> int:
    text = _text(path, patience)
    try:
        return int(text)
    except ValueError:
        raise SensorError(
            f"{path} holds {text.strip()[:40]!r}, not a whole number: is it the file of an INA3221?"
        ) from None


def _file_error(path: Path, error: OSError) -> str:
    if error.errno in DENIED:
        return _denied(path)
    if error.errno == errno.ENOENT:
        return f"{path} is missing: the driver of the INA3221 was unloaded; start again"
    if error.errno == errno.ENODATA:
        enable = re.sub(r"(in|curr)(\d)_input$", r"in\2_enable", str(path))
        return f"{path} has no data, its channel is switched off: echo 1 | sudo tee {enable}"
    if error.errno in SILENT:
        return (
            f"{path} cannot be read, the INA3221 does not answer ({error.strerror}): try a reboot"
        )
    return f"{path} cannot be read ({error.strerror}): see dmesg"


def _denied(path: Path) -> str:
    if path.name.startswith("i2c-"):
        return (
            f"{path} may not be opened: run as root, or join its group (sudo usermod -aG i2c $USER)"
        )
    return f"{path} may not be read: run as root, or grant it (sudo chmod a+r {path})"


def _lacks(rail: _Rail) -> str:
    try:
        rail.power_w()
    except SensorError as error:
        return str(error)
    return ""


# --- I2C ---


class _Chip:
    """The registers of one INA3221, which are read and never written."""

    def __init__(self, bus: Any, device: Path, address: int, patience: _Patience) -> None:
        self._bus, self._device, self._address, self._patience = bus, device, address, patience
        self.where = f"{address:#04x} on {device}"
        ids = self.word(MAKER), self.word(DIE)
        if ids != (MAKER_ID, DIE_ID):
            told = " and ".join(f"{number:#06x}" for number in ids)
            raise SensorError(
                f"{self.where} is no INA3221, its IDs are {told}: check bus and addresses"
            )
        self.configuration = self.word(CONFIGURATION)

    def word(self, register: int) -> int:
        """The 16 bits of a register. Raises SensorError."""
        try:
            swapped = self._patience(
                lambda: int(self._bus.read_word_data(self._address, register)), self.where
            )
        except OSError as error:
            raise SensorError(self._error(error, register)) from None
        # SMBus takes the first byte for the low one, and the INA3221 sends the high one first.
        return int.from_bytes(swapped.to_bytes(2, "little"), "big")

    def steps(self, register: int) -> int:
        """The number of a voltage register: signed, in its upper 13 bits."""
        word = self.word(register)
        return (word - 0x10000 if word & 0x8000 else word) >> 3

    def check(self, channel: int) -> None:
        """Raises SensorError where the registers are not those of a running conversion."""
        now = self.word(CONFIGURATION)
        mode = now & 0b111
        if mode != 0b111:
            raise SensorError(
                f"{self.where}: the registers are stale, the mode bits say {MODES[mode]} "
                f"(configuration {now:#06x}): use access: sysfs, whose driver runs it"
            )
        if not now >> (15 - channel) & 1:
            raise SensorError(
                f"{self.where}: channel {channel} is disabled (configuration {now:#06x}): "
                "use access: sysfs, or another rail"
            )
        if now != self.configuration:
            raise SensorError(
                f"{self.where}: the configuration changed from {self.configuration:#06x} to "
                f"{now:#06x} while measuring: stop what writes to it"
            )

    def _error(self, error: OSError, register: int) -> str:
        if error.errno == errno.EBUSY:
            return f"the kernel driver owns {self.where}: use access: sysfs, or set force: true"
        if error.errno in SILENT:
            return f"nothing answers at {self.where} ({error.strerror}): check bus and addresses"
        if error.errno in DENIED:
            return _denied(self._device)
        return (
            f"{self.where}: register {register:#04x} cannot be read ({error.strerror}): see dmesg"
        )


@dataclass(frozen=True)
class _I2c:
    """A rail by the registers of its monitor; channels from 1."""

    chip: _Chip
    channel: int
    name: str
    shunt_ohm: float

    @property
    def where(self) -> str:
        return f"{self.chip.where}, channel {self.channel}"

    @property
    def period_s(self) -> float:
        return period_s(self.chip.configuration)

    @property
    def about(self) -> dict[str, Any]:
        return {"configuration": f"{self.chip.configuration:#06x}"}

    def power_w(self) -> float:
        self.chip.check(self.channel)
        steps = self.chip.steps(2 * self.channel - 1)
        if abs(steps) >= STEPS:
            raise SensorError(_saturated(f"{self.where} ({self.name})"))
        return self.bus_v() * steps * SHUNT_STEP_V / self.shunt_ohm

    def bus_v(self) -> float:
        steps = self.chip.steps(2 * self.channel)
        if not 0 <= steps < STEPS:
            raise SensorError(
                f"{self.where} ({self.name}) tells {steps * BUS_STEP_V:.3f} V, which an INA3221 "
                "cannot measure: check the wiring and the address"
            )
        return steps * BUS_STEP_V


def _over_i2c(
    settings: Settings, device: str, root: Path, board: str, patience: _Patience
) -> _Meter:
    standard = settings.addresses == Settings().addresses
    if standard and not _is_tx2(board) and (board or settings.access == "auto"):
        raise SensorError(
            f"{board or 'an unknown board'} is no TX2, whose addresses are the defaults: "
            "load its driver (sudo modprobe ina3221), or give addresses and shunts_ohm"
        )
    chosen = _choose(settings.rails, list(settings.addresses))
    for name in chosen:
        if name not in settings.shunts_ohm:
            raise SensorError(f"the shunt of {name} is not known: give it in shunts_ohm")
    path = root / f"dev/i2c-{settings.bus}"
    bus = _open(path, settings.force)
    try:
        places = {name: tuple(settings.addresses[name]) for name in chosen}
        used = dict.fromkeys(address for address, _ in places.values())
        chips = {address: _Chip(bus, path, address, patience) for address in used}
        rails = [
            _I2c(chips[address], channel, name, settings.shunts_ohm[name])
            for name, (address, channel) in places.items()
        ]
        return _Meter(rails, "i2c", device, root, patience, bus.close)
    except BaseException:
        bus.close()
        raise


def _open(path: Path, force: bool) -> Any:
    try:
        import smbus2
    except ImportError:
        raise SensorError("the package smbus2 is missing: pip install smbus2") from None
    try:
        return smbus2.SMBus(str(path), force=force)
    except OSError as error:
        if error.errno == errno.ENOENT:
            reason = "is missing: load its module (sudo modprobe i2c-dev), or give another bus"
            raise SensorError(f"{path} {reason}") from None
        if error.errno in DENIED:
            raise SensorError(_denied(path)) from None
        raise SensorError(f"{path} cannot be opened ({error.strerror}): give another bus") from None


def period_s(configuration: int) -> float:
    """Seconds between two updates of the registers: all conversions of all channels, averaged."""
    channels = (configuration >> 12 & 0b111).bit_count()
    bus, shunt = (CONVERSIONS_S[configuration >> shift & 0b111] for shift in (6, 3))
    return channels * (bus + shunt) * AVERAGES[configuration >> 9 & 0b111]


def _saturated(where: str) -> str:
    return (
        f"{where} is at the end of its range ({SHUNT_RANGE_V * 1e3:.1f} mV across the shunt): "
        "the current is larger than what can be measured"
    )


# --- rails, board, status ---


def _choose(wanted: Sequence[str], found: Sequence[str]) -> list[str]:
    """The rails of the board that are meant, each once. Raises SensorError."""
    chosen = [_match(name, found) for name in wanted]
    for index, rail in enumerate(chosen):
        if rail in chosen[:index]:
            other = wanted[chosen.index(rail)]
            raise SensorError(
                f"{other} and {wanted[index]} are one rail here, {rail}: name it once in rails"
            )
        if rail.upper() != wanted[index].upper():
            logger.info("rail %s is %s on this board", wanted[index], rail)
        if rail in TOTALS and len(chosen) > 1:
            raise SensorError(
                f"{rail} contains the other rails: measure it alone, or take it out of rails"
            )
    return chosen


def _match(wanted: str, found: Sequence[str]) -> str:
    """A rail by its name, by its name after VDD_, or by one word of its name, in this order."""
    word = wanted.upper()
    for names in (
        [name for name in found if name.upper() == word],
        [name for name in found if name.upper() == f"VDD_{word}"],
        [name for name in found if word in name.upper().split("_")],
    ):
        if len(names) == 1:
            return names[0]
        if names:
            raise SensorError(f"rail {wanted} may be {' or '.join(names)}: name one in rails")
    raise SensorError(f"no rail {wanted} here: name one of {', '.join(found)} in rails")


def _board(root: Path) -> str:
    return _word(root / "proc/device-tree/model")


def _is_tx2(board: str) -> bool:
    """Quill is the name of the TX2 in early releases; the TX2 NX is wired otherwise."""
    return ("TX2" in board or board == "quill") and "NX" not in board


def _is_jetson(root: Path, board: str) -> bool:
    known = "Jetson" in board or _is_tx2(board)
    return known or (root / "etc/nv_tegra_release").exists()


def _absent(root: Path, board: str) -> str:
    if _is_jetson(root, board):
        return (
            f"no driver shows an INA3221 on this {board or 'board'}: load it "
            "(sudo modprobe ina3221), or use access: i2c"
        )
    return "this is no Jetson: no INA3221 below /sys/bus/i2c/drivers or /sys/class/hwmon"


def _power_mode(root: Path) -> str:
    """The mode that nvpmodel has set, by its number, as in "0000"; empty where it is not told."""
    return _word(root / "var/lib/nvpmodel/status").removeprefix("pmode:")


def _gpu_zone(root: Path) -> Path | None:
    """The GPU's thermal zone: GPU-therm in NVIDIA's kernels, gpu-thermal in the mainline."""
    zones = sorted((root / "sys/class/thermal").glob("thermal_zone*"))
    return next((zone for zone in zones if _word(zone / "type").lower().startswith("gpu")), None)


def _gpu_frequency(root: Path) -> Path | None:
    """The file with the GPU's clock in hertz, named by its address and, often, its chip."""
    files = [
        *(root / "sys/class/devfreq").glob("*/cur_freq"),
        *(root / "sys/devices/gpu.0/devfreq").glob("*/cur_freq"),
    ]
    gpu = re.compile(r"\.(gm20b|gp10b|gv11b|ga10b|gpu)$")
    return next((file for file in files if gpu.search(file.parent.name)), None)


def _gpu_alert(root: Path) -> Path | None:
    """The cooling device whose state is above zero while heat slows the GPU down."""
    devices = (root / "sys/class/thermal").glob("cooling_device*")
    return next((path for path in devices if _word(path / "type") == "gpu-throttle-alert"), None)


def _word(path: Path) -> str:
    """The text of a file without its end (a zero in device trees); empty where it has none."""
    try:
        return path.read_bytes().decode("ascii", "replace").strip(" \n\0")
    except OSError:
        return ""


def _glance(path: Path) -> float:
    """The number in a file, or NaN."""
    try:
        return float(int(_word(path)))
    except ValueError:
        return math.nan


def _cell(path: Path) -> float:
    """The number in a property of the device tree, 32 bits big-endian, or NaN."""
    try:
        data = path.read_bytes()
    except OSError:
        return math.nan
    return float(int.from_bytes(data, "big")) if len(data) == 4 else math.nan
