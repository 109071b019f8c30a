"""NVIDIA GPUs by NVML: the energy counter of the board, or its power, integrated between readings.

The counter (Volta and newer) holds the millijoules since the driver was loaded. Power is told as
field 186, an average over some 25 ms that moves every 100 ms, and as an average over 1 s: field 185
or, before Ampere and on the A100, nvmlDeviceGetPowerUsage. All are of the whole board, whoever
uses it, and no setting of the card is ever changed.

Which GPU cuda:N is, torch knows best: where it is loaded and sees the GPU, its UUID decides, or its
place on the PCI bus. Elsewhere N counts the entries of CUDA_VISIBLE_DEVICES (indices, UUIDs and
their beginnings) as CUDA does, and without them the GPUs in PCI order. CUDA itself begins with the
fastest unless CUDA_DEVICE_ORDER is PCI_BUS_ID, so GPUs that differ need that variable there.

Sources: nvml.h and the bindings of nvidia-ml-py (names, units, return codes); the CUDA programming
guide, 5.2 (visible devices); Yang, Adamek, Armour, SC24 (windows and periods of the sensors).
"""

import importlib
import logging
import math
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, Literal, get_args

from ecc.errors import UserError
from ecc.measuring.interface import Clock, EnergyMeter, Found, Reading, SensorError, Status
from ecc.metrics import Metric

METRIC: Metric = "energy_j"
DEVICE = "cuda:0"

logger = logging.getLogger(__name__)

Sensor = Literal["counter", "instant", "average"]
WORDS: dict[Sensor, str] = {
    "counter": "energy counter",
    "instant": "instant power",
    "average": "averaged power",
}
# Instant power tells of the 25 ms before its last update, which is up to 100 ms ago; the average
# of 1 s before an update as long ago. The counter's steps are cut at their edges.
SETTLE_S: dict[Sensor, float] = {"counter": 0.0, "instant": 0.15, "average": 1.1}
LATENCY = "choose the platform kind latency, or on a Jetson that of jetson"
LACKS: dict[Sensor, str] = {
    "counter": "this GPU has no energy counter, use power polling (sensor: instant)",
    "instant": "this GPU or its driver does not tell instant power, use sensor: average",
    "average": f"this GPU or its driver does not tell its power, {LATENCY}",
}
MARGIN = 1.5  # on the power limit, which peaks exceed and the sensor adds its error to
PATIENCE_S = 30.0  # for a list of GPUs: without persistence mode each takes seconds to wake

FIELD_AVERAGE, FIELD_INSTANT = 185, 186
# Members of the union `value` of a field, by its valueType.
MEMBERS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
NOT_AVAILABLE = (2**32 - 1, 2**64 - 1)  # NVML_VALUE_NOT_AVAILABLE, as 32 and 64 bits

# Bits of nvmlDeviceGetCurrentClocksEventReasons. An idle GPU, clocks that were set, and a group of
# boards that keep step slow nothing down against their will.
POWER_CAP = 0x04
THROTTLES = {
    0x08: "hardware slowdown",
    0x20: "heat (software)",
    0x40: "heat (hardware)",
    0x80: "power brake",
}

NO_PERMISSION, NOT_LOADED, LIBRARY_NOT_FOUND, NO_FUNCTION = 4, 9, 12, 13
# Return codes of a question that this card, driver or user gets no answer to, while others get
# one: invalid argument (a field that is newer than the driver), not supported, no permission, not
# found, function not found, corrupted infoROM, no data, no ECC of a virtual GPU, another version
# of a structure, deprecated, not ready.
UNTOLD = (2, 3, NO_PERMISSION, 6, NO_FUNCTION, 14, 21, 22, 25, 26, 27)
ADVICE = {
    1: "NVML was closed: open the sensor again",
    NO_PERMISSION: "this user may not read the GPU: ask for access to /dev/nvidia*, or run as root",
    8: "the GPU lacks external power: check its cables",
    NOT_LOADED: "the NVIDIA driver is not loaded: run 'sudo modprobe nvidia', and see dmesg",
    10: "the NVIDIA driver did not answer in time: see dmesg for an Xid, and start again",
    15: "the GPU is lost, it fell off the bus: see dmesg for its Xid, and reboot",
    16: "the GPU must be reset: run 'sudo nvidia-smi --gpu-reset', or reboot",
    18: "NVIDIA's driver and library differ in version, as after an update: reboot",
    28: "the NVIDIA driver finds no GPU: see nvidia-smi -L, and lspci",
    999: "NVML met an unknown error: see nvidia-smi, and dmesg for an Xid",
}

NEEDED = (
    "NVMLError",
    "NVML_FI_DEV_POWER_INSTANT",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetTotalEnergyConsumption",
)


@dataclass(frozen=True)
class Settings:
    """`sensor`: what is read; auto is the counter, or else instant power, or else the average."""

    sensor: Literal["auto", "counter", "instant", "average"] = "auto"

    def __post_init__(self) -> None:
        if self.sensor not in ("auto", *get_args(Sensor)):
            raise UserError(f"sensor '{self.sensor}': choose auto, {', '.join(get_args(Sensor))}")


class _UntoldError(SensorError):
    """One question without an answer, on a GPU that answers others."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class _Library:
    """NVML, opened: whatever is asked is answered, or ends in a SensorError of one line."""

    def __init__(self, root: Path) -> None:
        self._nvml, self._root = _module(), root
        self("nvmlInit")
        self._opened = True

    def __call__(self, function: str, *arguments: Any) -> Any:
        """Raises _UntoldError where only this is not answered, else SensorError."""
        if not hasattr(self._nvml, function):  # bindings that are older or newer than it
            raise self.error(NO_FUNCTION, function)
        try:
            return getattr(self._nvml, function)(*arguments)
        except self._nvml.NVMLError as error:
            raise self.error(error.value, function) from None

    def asked(self, function: str, *arguments: Any) -> Any:
        """The answer, or None where there is none."""
        try:
            return self(function, *arguments)
        except _UntoldError:
            return None

    def error(self, code: int, asked: str) -> SensorError:
        """What the return code of a question says, and what to do about it."""
        if code == LIBRARY_NOT_FOUND:
            return SensorError(_no_driver(self._root))
        said = ADVICE.get(code, f"NVML says '{self._nvml.NVMLError(code)}': see nvidia-smi -q")
        message = " ".join(f"{said} ({asked})".split())
        return _UntoldError(message, code) if code in UNTOLD else SensorError(message)

    def close(self) -> None:
        """What was measured is whole, whether NVML closes well or not."""
        if self._opened:
            self._opened = False
            with suppress(SensorError):
                self("nvmlShutdown")


class _Board:
    """One GPU, by its handle."""

    def __init__(self, library: _Library, handle: Any) -> None:
        self._library, self._handle = library, handle
        self.name = str(self.told("nvmlDeviceGetName") or "an NVIDIA GPU")

    def told(self, function: str, *arguments: Any) -> Any:
        return self._library.asked(function, self._handle, *arguments)

    def read(self, sensor: Sensor) -> float:
        """Joules of the counter since any moment, or watts. Raises SensorError."""
        if sensor == "counter":
            return self._number("nvmlDeviceGetTotalEnergyConsumption")
        if sensor == "instant":
            return self._positive(self._field(FIELD_INSTANT))
        try:
            watts = self._field(FIELD_AVERAGE)
        except _UntoldError:
            watts = self._number("nvmlDeviceGetPowerUsage")
        return self._positive(watts)

    def status(self) -> Status:
        """Raises SensorError where the GPU is dead; what it does not tell is NaN, or empty."""
        temperature = self.told("nvmlDeviceGetTemperatureV", 0)  # the GPU's own sensor
        if temperature is None:  # a driver that is older than this function
            temperature = self.told("nvmlDeviceGetTemperature", 0)
        clock = self.told("nvmlDeviceGetClockInfo", 1)  # of the multiprocessors
        reasons = self.told("nvmlDeviceGetCurrentClocksEventReasons")
        if reasons is None:
            reasons = self.told("nvmlDeviceGetCurrentClocksThrottleReasons") or 0
        return Status(
            temperature_c=math.nan if temperature is None else float(temperature),
            clock_mhz=math.nan if clock is None else float(clock),
            throttled=tuple(name for bit, name in THROTTLES.items() if reasons & bit),
            capped=bool(reasons & POWER_CAP),
        )

    def limit_w(self) -> float:
        """The power limit in force; infinity where it is not told."""
        limit_mw = self.told("nvmlDeviceGetEnforcedPowerLimit")
        return limit_mw / 1e3 if limit_mw else math.inf

    def provenance(self) -> dict[str, Any]:
        """None is what the driver does not tell."""
        capability = self.told("nvmlDeviceGetCudaComputeCapability")
        ecc, mig = self.told("nvmlDeviceGetEccMode"), self.told("nvmlDeviceGetMigMode")
        limit_w = self.limit_w()
        return {
            "gpu": self.name,
            "compute_capability": capability and "{}.{}".format(*capability),
            "driver": self._library.asked("nvmlSystemGetDriverVersion"),
            "nvml": self._library.asked("nvmlSystemGetNVMLVersion"),
            "vbios": self.told("nvmlDeviceGetVbiosVersion"),
            "power_limit_w": limit_w if math.isfinite(limit_w) else None,
            "application_clocks_mhz": {
                "sm": self.told("nvmlDeviceGetApplicationsClock", 1),
                "memory": self.told("nvmlDeviceGetApplicationsClock", 2),
            },
            "persistence_mode": _switch(self.told("nvmlDeviceGetPersistenceMode")),
            "ecc": _switch(ecc and ecc[0]),
            "mig": _switch(mig and mig[0]),
        }

    def refuse_slices(self) -> None:
        """Raises SensorError where the GPU is cut into slices (MIG), or where that is hidden."""
        try:
            current, _ = self._library("nvmlDeviceGetMigMode", self._handle)
        except _UntoldError as error:
            if error.code == NO_PERMISSION:
                raise
            return  # a GPU that cannot be cut
        if current:
            raise _sliced(self.name)

    def _field(self, field: int) -> float:
        """Watts of a field, which has a return code and a type of its own."""
        value = self._library("nvmlDeviceGetFieldValues", self._handle, [field])[0]
        if value.nvmlReturn:
            raise self._library.error(value.nvmlReturn, f"field {field}")
        if value.valueType >= len(MEMBERS):
            raise _UntoldError(f"{self.name}: field {field} has an unknown type", 0)
        told = getattr(value.value, MEMBERS[value.valueType])
        return self._checked(told, f"field {field}")

    def _number(self, function: str) -> float:
        return self._checked(self._library(function, self._handle), function)

    def _checked(self, told: float, asked: str) -> float:
        """Joules or watts of what was told in thousandths."""
        if told in NOT_AVAILABLE:
            raise _UntoldError(f"{self.name} says that it has no value ({asked})", 3)
        return told / 1e3

    def _positive(self, watts: float) -> float:
        if not 0 < watts < math.inf:
            raise _UntoldError(
                f"{self.name} tells {watts:g} W, which no GPU takes that is on: use another sensor",
                0,
            )
        return watts


class _Meter:
    """A board and the sensor that is read, which is open until `close`."""

    sensor: Sensor

    def __init__(self, library: _Library, board: _Board, clock: Clock) -> None:
        self._library, self._board, self._clock = library, board, clock
        self._limit_w = MARGIN * board.limit_w()

    @property
    def name(self) -> str:
        return f"NVML {WORDS[self.sensor]} of {self._board.name}"

    @property
    def metric(self) -> Metric:
        return METRIC

    @property
    def stepped(self) -> bool:
        return self.sensor == "counter"

    @property
    def settle_s(self) -> float:
        return SETTLE_S[self.sensor]

    @property
    def limit_w(self) -> float:
        return self._limit_w

    def power_w(self) -> float:
        return math.nan

    def status(self) -> Status:
        return self._board.status()

    def provenance(self) -> dict[str, Any]:
        return {"sensor": f"NVML {WORDS[self.sensor]}", **self._board.provenance()}

    def close(self) -> None:
        self._library.close()

    def _told(self) -> tuple[float, float]:
        """What the sensor says, and the clock in the middle of the question."""
        begin = self._clock.now()
        value = self._board.read(self.sensor)
        return (begin + self._clock.now()) / 2, value


class _Counter(_Meter):
    """The counter; instant power is the second way, where it is told."""

    sensor = "counter"

    def __init__(self, library: _Library, board: _Board, clock: Clock) -> None:
        super().__init__(library, board, clock)
        self._last_j = self._told()[1]

    def read(self) -> Reading:
        seconds, joules = self._told()
        if joules < self._last_j:
            raise SensorError(
                f"{self.name} fell from {self._last_j:.3f} to {joules:.3f} J: the driver was "
                "reloaded or the GPU reset; start again, and what was measured stays"
            )
        self._last_j = joules
        return Reading(seconds, joules)

    def power_w(self) -> float:
        try:
            return self._board.read("instant")
        except _UntoldError:
            return math.nan


class _Integrated(_Meter):
    """Power, by the trapezoid between readings."""

    def __init__(self, library: _Library, board: _Board, clock: Clock, sensor: Sensor) -> None:
        super().__init__(library, board, clock)
        self.sensor = sensor
        self._total_j = 0.0
        self._seconds, self._watts = self._told()

    def read(self) -> Reading:
        seconds, watts = self._told()
        self._total_j += (seconds - self._seconds) * (watts + self._watts) / 2
        self._seconds, self._watts = seconds, watts
        return Reading(seconds, self._total_j)


def meter(settings: Settings, device: str, clock: Clock, root: Path = Path("/")) -> EnergyMeter:
    """The sensor of the torch device `device`; raises SensorError where it cannot be read."""
    number = _number(device)
    library = _Library(root)
    try:
        board = _Board(library, _handle(library, number))
        board.refuse_slices()
        sensor, lacks = _choose(board, settings.sensor)
        if settings.sensor == "auto":
            why = "; ".join(lacks) or "it is the best of its sensors"
            logger.info("%s: reading its %s: %s", board.name, WORDS[sensor], why)
        if sensor == "counter":
            return _Counter(library, board, clock)
        return _Integrated(library, board, clock, sensor)
    except BaseException:
        library.close()
        raise


def probe(root: Path = Path("/")) -> list[Found]:
    """Every GPU and what can be read of it; a driver that does not answer is given up."""
    found: list[Found] = []
    # A dead GPU can hold a call for ever, which nothing can end.
    asking = Thread(target=lambda: found.extend(_found(root)), daemon=True)
    asking.start()
    asking.join(PATIENCE_S)
    silent = f"the NVIDIA driver did not answer in {PATIENCE_S:g} s: see dmesg for an Xid, reboot"
    return list(found) or [Found("NVIDIA GPUs (NVML)", silent)]


def _found(root: Path) -> list[Found]:
    try:
        library = _Library(root)
        try:
            count = int(library("nvmlDeviceGetCount"))
            found = [_found_one(library, index) for index in range(count)]
        finally:
            library.close()
    except Exception as error:  # a list of sensors is whole whatever one of them does
        return [Found("NVIDIA GPUs (NVML)", _one_line(error))]
    return found or [Found("NVIDIA GPUs (NVML)", "no GPU here that NVML knows")]


def _found_one(library: _Library, index: int) -> Found:
    what = f"GPU {index}"
    try:
        board = _Board(library, library("nvmlDeviceGetHandleByIndex", index))
        what = f"{what}, {board.name}"
        board.refuse_slices()
        sensor, _ = _choose(board, "auto")
    except Exception as error:
        return Found(what, _one_line(error))
    return Found(f"{what}: {WORDS[sensor]}")


def _choose(board: _Board, wanted: str) -> tuple[Sensor, list[str]]:
    """The sensor that is read, and why the better ones are not. Raises SensorError."""
    candidates: Sequence[Sensor] = [
        sensor for sensor in get_args(Sensor) if wanted in ("auto", sensor)
    ]
    lacks = []
    for sensor in candidates:
        try:
            board.read(sensor)
        except _UntoldError as error:
            plain = error.code not in (0, NO_PERMISSION)
            lacks.append(LACKS[sensor] if plain else str(error))
        else:
            return sensor, lacks
    raise SensorError(f"{board.name}: {lacks[-1]}")


# --- which GPU ---


def _number(device: str) -> int:
    kind, _, number = device.partition(":")
    if kind != "cuda" or not (number or "0").isdecimal():
        raise SensorError(f"NVML measures NVIDIA GPUs (cuda:0), not {device}: choose rapl")
    return int(number or 0)


def _handle(library: _Library, number: int) -> Any:
    """The handle of cuda:number; raises SensorError where there is no such GPU."""
    seen = _seen_by_torch(number)
    if seen is None:
        return _by_environment(library, number)
    places = (
        ("nvmlDeviceGetHandleByUUID", f"GPU-{str(seen.uuid).removeprefix('GPU-')}"),
        (
            "nvmlDeviceGetHandleByPciBusId",
            f"{seen.pci_domain_id:08x}:{seen.pci_bus_id:02x}:{seen.pci_device_id:02x}.0",
        ),
    )
    for function, place in places:
        try:
            return library(function, place)
        except _UntoldError as error:
            if error.code == NO_PERMISSION:
                raise
    raise SensorError(
        f"NVML does not know the GPU that torch calls cuda:{number}: compare nvidia-smi -L with "
        "CUDA_VISIBLE_DEVICES"
    )


def _seen_by_torch(number: int) -> Any:
    """What torch knows of cuda:number; None where it is not loaded or sees no GPU."""
    torch = sys.modules.get("torch")
    try:
        if torch is None or not torch.cuda.is_available():
            return None
        if number < torch.cuda.device_count():
            return torch.cuda.get_device_properties(number)
    except (RuntimeError, AssertionError):  # CUDA does not start: NVML may say why
        return None
    raise _no_such(number, torch.cuda.device_count())


def _by_environment(library: _Library, number: int) -> Any:
    handles = _in_pci_order(library)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = range(len(handles)) if visible is None else _visible(library, handles, visible)
    if number >= len(chosen):
        raise _no_such(number, len(chosen))
    # A UUID says which GPU is meant, an index only where CUDA counts as NVML does.
    entries = (visible or "").split(",")
    index = visible is None or not entries[number].strip().startswith("GPU-")
    if index and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        names = {_Board(library, handle).name for handle in handles}
        if len(names) > 1:
            raise SensorError(
                f"the GPUs differ ({', '.join(sorted(names))}), and CUDA begins with the fastest: "
                f"set CUDA_DEVICE_ORDER=PCI_BUS_ID, so that it is known which one is cuda:{number}"
            )
    return handles[chosen[number]]


def _in_pci_order(library: _Library) -> list[Any]:
    """All GPUs that this user may open, which are those that CUDA counts."""
    placed = []
    for index in range(int(library("nvmlDeviceGetCount"))):
        try:
            handle = library("nvmlDeviceGetHandleByIndex", index)
        except _UntoldError as error:
            if error.code != NO_PERMISSION:
                raise
            continue
        pci = library.asked("nvmlDeviceGetPciInfo", handle)
        place = (0, 0, 0) if pci is None else (pci.domain, pci.bus, pci.device)
        placed.append((place, index, handle))
    if not placed:
        raise SensorError(
            "the NVIDIA driver knows no GPU that this user may open: see nvidia-smi -L and "
            "/dev/nvidia*, and in a container whether it was given one"
        )
    return [handle for *_, handle in sorted(placed, key=lambda entry: entry[:2])]


def _visible(library: _Library, handles: Sequence[Any], value: str) -> list[int]:
    """Places in `handles` of the entries of CUDA_VISIBLE_DEVICES, up to the first that is wrong.

    As with CUDA, one that is named twice makes none of them visible.
    """
    uuids: list[str] | None = None
    chosen: list[int] = []
    for entry in (part.strip() for part in value.split(",")):
        if entry.startswith("MIG-"):
            raise _sliced("CUDA_VISIBLE_DEVICES")
        if entry.startswith("GPU-"):
            if uuids is None:
                uuids = [library("nvmlDeviceGetUUID", handle) for handle in handles]
            matches = [place for place, uuid in enumerate(uuids) if uuid.startswith(entry)]
        else:
            matches = [int(entry)] if entry.isdecimal() and int(entry) < len(handles) else []
        if len(matches) != 1:
            break
        chosen += matches
    return chosen if len(set(chosen)) == len(chosen) else []


def _no_such(number: int, count: int) -> SensorError:
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    why = "" if told is None else f" (CUDA_VISIBLE_DEVICES={told})"
    return SensorError(
        f"no cuda:{number} here, CUDA sees {count} GPUs{why}: choose another device, or make it "
        "visible"
    )


# --- words ---


def _module() -> Any:
    """The bindings; raises SensorError where they are missing or another package hides them."""
    try:
        module = importlib.import_module("pynvml")
    except ModuleNotFoundError:
        raise SensorError("the package nvidia-ml-py is missing: pip install nvidia-ml-py") from None
    except Exception as error:
        raise _hidden(f"cannot be imported ({_one_line(error)})") from None
    lacking = [name for name in NEEDED if not hasattr(module, name)]
    if lacking:
        raise _hidden(f"has no {lacking[0]} ({getattr(module, '__file__', 'no file')})")
    return module


def _hidden(why: str) -> SensorError:
    return SensorError(
        f"the module pynvml {why}, an old package pynvml hides it: pip uninstall -y pynvml, then "
        "pip install --force-reinstall nvidia-ml-py"
    )


def _no_driver(root: Path) -> str:
    if (root / "proc/driver/nvidia/version").exists():
        return (
            "no NVIDIA driver found beside that of the kernel, libnvidia-ml.so.1 is missing: "
            "start the container with its GPUs (--gpus all), or add the library's folder to "
            "LD_LIBRARY_PATH"
        )
    return (
        "no NVIDIA driver found (libnvidia-ml.so.1): install it, so that nvidia-smi works, or "
        f"{LATENCY}"
    )


def _sliced(what: str) -> SensorError:
    return SensorError(
        f"{what}: MIG is enabled: NVML tells the board's energy, not the slice's: have it disabled "
        "(sudo nvidia-smi -mig 0), or choose the platform kind latency"
    )


def _switch(state: int | None) -> bool | None:
    return None if state is None else bool(state)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
