"""NVML against a fake of the C library: what it tells, whom it tells it of, and every fault."""

# ruff: noqa: N802, N815 (the fake has the names of the C library)

import ctypes
import logging
import math
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pynvml
import pytest

from ecc.errors import UserError
from ecc.measuring.interface import SensorError
from ecc.platforms import nvml

# Codes as C has them: what one card does not tell, and what says that nothing works any more.
ABSENT = (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
DENIED = pynvml.NVML_ERROR_NO_PERMISSION
DEAD = (
    pynvml.NVML_ERROR_UNINITIALIZED,
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
    pynvml.NVML_ERROR_TIMEOUT,
    pynvml.NVML_ERROR_GPU_IS_LOST,
    pynvml.NVML_ERROR_RESET_REQUIRED,
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    pynvml.NVML_ERROR_UNKNOWN,
    31,  # newer than the bindings
)
INSTANT, AVERAGE = "field 186", "field 185"
PERIOD_S = 0.1
MJ = 1e-3


class Clock:
    """Moves where somebody waits."""

    def __init__(self):
        self.seconds = 1000.0

    def now(self):
        return self.seconds

    def sleep(self, seconds):
        self.seconds += seconds


@dataclass
class Gpu:
    """A board. `watts` by the second; `period_s` is that of the counter, 0 for one that flows."""

    name: str = "NVIDIA H200"
    uuid: str = "GPU-11111111-aaaa-bbbb-cccc-000000000001"
    pci: tuple[int, int, int] = (0, 0x1A, 0)
    watts: object = 300.0
    period_s: float = PERIOD_S
    start_j: float = 5e6
    mig: int = 0
    reasons: int = 0
    limit_mw: int = 700_000
    value_type: int = pynvml.NVML_VALUE_TYPE_UNSIGNED_INT
    codes: dict[str, int] = field(default_factory=dict)  # of this board alone

    def power_w(self, seconds):
        return self.watts(seconds) if callable(self.watts) else self.watts

    def energy_mj(self, seconds):
        if self.period_s:
            seconds = math.floor(seconds / self.period_s + 1e-9) * self.period_s
        return int((self.start_j + self.watts * (seconds - 1000.0)) / MJ)


class Function:
    """A function of the library: takes what ctypes gives it, returns a code."""

    def __init__(self, name, body, library):
        self.name, self.body, self.library = name, body, library

    def __call__(self, *arguments):
        self.library.called.append(self.name)
        if self.name in self.library.stuck:
            self.library.release.wait()
        if code := self.library.codes.get(self.name, 0):
            return code
        return self.body(*[getattr(part, "_obj", part) for part in arguments]) or 0


class Library:
    """libnvidia-ml as the bindings call it: pointers are written to, return values are codes.

    `codes` are faults by function, or by field; `missing` are functions this driver lacks.
    """

    def __init__(self, clock, gpus):
        self.clock, self.gpus = clock, gpus
        self.codes, self.missing, self.stuck = {}, set(), set()
        self.called, self.open, self.release = [], 0, threading.Event()

    def __getattr__(self, name):
        if name in self.missing or not hasattr(type(self), f"_{name}"):
            raise AttributeError(name)
        return Function(name, getattr(self, f"_{name}"), self)

    def gpu(self, handle):
        return self.gpus[ctypes.c_void_p.from_buffer(handle).value // 0x1000 - 1]

    def point(self, handle, index):
        gpu = self.gpus[index]
        ctypes.c_void_p.from_buffer(handle).value = 0x1000 * (index + 1)
        return gpu.codes.get("handle", 0)

    def _nvmlInitWithFlags(self, flags):
        self.open += 1

    def _nvmlShutdown(self):
        assert self.open > 0
        self.open -= 1

    def _nvmlErrorString(self, code):
        return b"an error\nof a newer driver"

    def _nvmlSystemGetDriverVersion(self, text, size):
        text.value = b"580.65.06"

    def _nvmlSystemGetNVMLVersion(self, text, size):
        text.value = b"13.580.65.06"

    def _nvmlDeviceGetCount_v2(self, count):
        count.value = len(self.gpus)

    def _nvmlDeviceGetHandleByIndex_v2(self, index, handle):
        if index.value >= len(self.gpus):
            return pynvml.NVML_ERROR_INVALID_ARGUMENT
        return self.point(handle, index.value)

    def _nvmlDeviceGetHandleByUUID(self, uuid, handle):
        uuids = [gpu.uuid for gpu in self.gpus]
        if uuid.value.decode() not in uuids:
            return pynvml.NVML_ERROR_NOT_FOUND
        return self.point(handle, uuids.index(uuid.value.decode()))

    def _nvmlDeviceGetHandleByPciBusId_v2(self, place, handle):
        places = ["{:08x}:{:02x}:{:02x}.0".format(*gpu.pci) for gpu in self.gpus]
        if place.value.decode() not in places:
            return pynvml.NVML_ERROR_NOT_FOUND
        return self.point(handle, places.index(place.value.decode()))

    def _nvmlDeviceGetName(self, handle, text, size):
        text.value = self.gpu(handle).name.encode()

    def _nvmlDeviceGetUUID(self, handle, text, size):
        text.value = self.gpu(handle).uuid.encode()

    def _nvmlDeviceGetVbiosVersion(self, handle, text, size):
        text.value = b"96.00.B9.00.01"

    def _nvmlDeviceGetPciInfo_v3(self, handle, info):
        info.domain, info.bus, info.device = self.gpu(handle).pci

    def _nvmlDeviceGetMigMode(self, handle, current, pending):
        current.value = pending.value = self.gpu(handle).mig
        return self.gpu(handle).codes.get("mig", 0)

    def _nvmlDeviceGetCudaComputeCapability(self, handle, major, minor):
        major.value, minor.value = 9, 0

    def _nvmlDeviceGetEccMode(self, handle, current, pending):
        current.value, pending.value = 1, 0

    def _nvmlDeviceGetPersistenceMode(self, handle, state):
        state.value = 0

    def _nvmlDeviceGetApplicationsClock(self, handle, kind, clock):
        clock.value = {pynvml.NVML_CLOCK_SM: 1980, pynvml.NVML_CLOCK_MEM: 3201}[kind.value]

    def _nvmlDeviceGetClockInfo(self, handle, kind, clock):
        clock.value = {pynvml.NVML_CLOCK_SM: 1755}[kind.value]

    def _nvmlDeviceGetTemperature(self, handle, sensor, temperature):
        temperature.value = 61

    def _nvmlDeviceGetTemperatureV(self, handle, told):
        if (told.version, told.sensorType) != (pynvml.nvmlTemperature_v1, 0):
            return pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH
        told.temperature = 62

    def _nvmlDeviceGetCurrentClocksEventReasons(self, handle, reasons):
        reasons.value = self.gpu(handle).reasons

    _nvmlDeviceGetCurrentClocksThrottleReasons = _nvmlDeviceGetCurrentClocksEventReasons

    def _nvmlDeviceGetEnforcedPowerLimit(self, handle, limit):
        limit.value = self.gpu(handle).limit_mw

    def _nvmlDeviceGetTotalEnergyConsumption(self, handle, total):
        total.value = self.gpu(handle).energy_mj(self.clock.now())
        return self.gpu(handle).codes.get("counter", 0)

    def _nvmlDeviceGetPowerUsage(self, handle, power):
        power.value = round(self.gpu(handle).power_w(self.clock.now()) / MJ)
        return self.gpu(handle).codes.get("usage", 0)

    def _nvmlDeviceGetFieldValues(self, handle, count, values):
        gpu = self.gpu(handle)
        for value in values[: count.value]:
            name = f"field {value.fieldId}"
            assert name in (INSTANT, AVERAGE)
            value.nvmlReturn = self.codes.get(name, gpu.codes.get(name, 0))
            if value.nvmlReturn:
                value.value.ullVal = 123  # rubbish, which a code says not to read
                continue
            value.valueType = gpu.value_type
            # What does not belong to the type is not written.
            ctypes.memset(ctypes.byref(value.value), 0xAB, ctypes.sizeof(value.value))
            power = gpu.power_w(self.clock.now()) / MJ
            if value.valueType == pynvml.NVML_VALUE_TYPE_DOUBLE:
                value.value.dVal = power
            elif value.valueType == pynvml.NVML_VALUE_TYPE_UNSIGNED_INT:
                value.value.uiVal = round(power)
            elif value.valueType == pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG:
                value.value.ullVal = round(power)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def install(monkeypatch, clock):
    """Puts the boards behind the real bindings, with no torch and no variables about."""

    def put(*gpus):
        library = Library(clock, list(gpus))
        monkeypatch.setattr(pynvml, "CDLL", lambda name: library)
        monkeypatch.setattr(pynvml, "nvmlLib", None)
        monkeypatch.setattr(pynvml, "_nvmlLib_refcount", 0)
        monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        return library

    monkeypatch.setitem(sys.modules, "torch", torch_of([]))
    for variable in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(variable, raising=False)
    return put


def torch_of(gpus):
    """As much of torch as says which GPUs it sees, in its order."""

    def properties(number):
        domain, bus, device = gpus[number].pci
        places = {"pci_domain_id": domain, "pci_bus_id": bus, "pci_device_id": device}
        return SimpleNamespace(uuid=gpus[number].uuid.removeprefix("GPU-"), **places)

    cuda = SimpleNamespace(
        is_available=lambda: bool(gpus),
        device_count=lambda: len(gpus),
        get_device_properties=properties,
    )
    return SimpleNamespace(cuda=cuda)


def opened(clock, sensor="auto", device="cuda:0", **places):
    return nvml.meter(nvml.Settings(sensor), device, clock, **places)


def fault(call, *, match=""):
    """The one line of the SensorError that a call ends in."""
    with pytest.raises(SensorError) as caught:
        call()
    line = str(caught.value)
    assert match in line
    assert line == " ".join(line.split())
    return line


def watched(meter, clock, seconds, every=0.002):
    readings = [meter.read()]
    while readings[-1].seconds - readings[0].seconds < seconds:
        clock.sleep(every)
        readings.append(meter.read())
    return readings


# --- what is read ---


def test_counter_tells_the_joules_of_the_board_in_steps_of_its_period(install, clock):
    install(Gpu(watts=312.5))
    with closing(opened(clock, "counter")) as meter:
        readings = watched(meter, clock, 3.0)
        assert meter.stepped
        assert meter.settle_s == 0
        assert meter.metric == "energy_j"
        assert meter.name == "NVML energy counter of NVIDIA H200"
    totals = [reading.total for reading in readings]
    assert totals[-1] - totals[0] == pytest.approx(312.5 * 3.0, abs=312.5 * PERIOD_S)
    steps = np.diff(totals)
    assert steps[steps > 0] == pytest.approx(31.25, abs=0.002)
    assert (steps > 0).sum() == 30


def ramp(seconds):
    """50 W, then from 1001 s on 50 W more in every second."""
    return 50 + 50 * max(0.0, seconds - 1001)


@pytest.mark.parametrize("sensor", ["instant", "average"])
@pytest.mark.parametrize("every", [0.002, 0.1])
def test_integrated_power_is_the_energy_of_a_ramp(install, clock, sensor, every):
    install(Gpu(watts=ramp))
    with closing(opened(clock, sensor)) as meter:
        readings = watched(meter, clock, 3.0, every)
        assert not meter.stepped
        assert math.isnan(meter.power_w())
    passed = readings[-1].seconds - readings[0].seconds
    true_j = 50 * passed + 25 * (passed - 1) ** 2
    assert readings[-1].total - readings[0].total == pytest.approx(true_j, rel=1e-3)


def test_a_jump_of_power_is_shared_between_the_readings_beside_it(install, clock):
    install(Gpu(watts=lambda seconds: 100 if seconds < 1001 else 500))
    with closing(opened(clock, "instant")) as meter:
        first = meter.read()
        clock.sleep(2.0)
        assert meter.read().total - first.total == pytest.approx(600)


def test_every_sensor_says_how_long_it_tells_of_what_ran_before(install, clock):
    install(Gpu())
    settles = {}
    for sensor in ("counter", "instant", "average"):
        with closing(opened(clock, sensor)) as meter:
            settles[sensor] = meter.settle_s
    assert settles["counter"] == 0
    assert settles["instant"] >= 0.025 + 0.1
    assert settles["average"] >= 1.0


@pytest.mark.parametrize(
    "value_type",
    [
        pynvml.NVML_VALUE_TYPE_DOUBLE,
        pynvml.NVML_VALUE_TYPE_UNSIGNED_INT,
        pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG,
    ],
)
def test_fields_are_read_by_their_own_type(install, clock, value_type):
    install(Gpu(watts=287.0, value_type=value_type))
    with closing(opened(clock)) as meter:
        assert meter.power_w() == pytest.approx(287.0)


def test_a_field_of_an_unknown_type_is_not_told(install, clock):
    install(Gpu(value_type=pynvml.NVML_VALUE_TYPE_COUNT))
    with closing(opened(clock)) as meter:
        assert math.isnan(meter.power_w())
    fault(lambda: opened(clock, "instant"), match="unknown type")


@pytest.mark.parametrize("code", [*ABSENT, DENIED, pynvml.NVML_ERROR_INVALID_ARGUMENT])
def test_auto_takes_the_best_sensor_and_says_why(install, clock, caplog, code):
    caplog.set_level(logging.INFO, logger="ecc")
    library = install(Gpu())
    names = []
    for lost in ("", "nvmlDeviceGetTotalEnergyConsumption", INSTANT, AVERAGE):
        library.codes[lost] = code
        with closing(opened(clock)) as meter:
            names.append(meter.name.removesuffix(" of NVIDIA H200"))
    averaged = "NVML averaged power"
    assert names == ["NVML energy counter", "NVML instant power", averaged, averaged]
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 4
    assert "energy counter" in lines[0]
    reason = "may not read" if code == DENIED else "no energy counter"
    assert all(reason in line for line in lines[1:])
    library.codes["nvmlDeviceGetPowerUsage"] = code
    fault(lambda: opened(clock), match="NVIDIA H200: ")
    assert library.open == 0


def test_average_is_the_power_usage_where_there_is_no_field(install, clock):
    library = install(Gpu(watts=lambda seconds: 210.0, codes={AVERAGE: 3}))
    with closing(opened(clock, "average")) as meter:
        meter.read()
    assert "nvmlDeviceGetPowerUsage" in library.called


def test_a_sensor_that_is_lacking_names_the_next(install, clock):
    lacking = {"counter": 3, INSTANT: 3, AVERAGE: 3, "usage": 3}
    library = install(Gpu(codes=lacking))
    advice = "this GPU has no energy counter, use power polling (sensor: instant)"
    fault(lambda: opened(clock, "counter"), match=advice)
    fault(lambda: opened(clock, "instant"), match="use sensor: average")
    fault(lambda: opened(clock, "average"), match="latency")
    assert library.open == 0


@pytest.mark.parametrize("watts", [0.0, (2**32 - 1) * MJ])
def test_power_that_no_gpu_takes_is_no_reading(install, clock, watts):
    gpu = Gpu()
    install(gpu)
    with closing(opened(clock, "instant")) as meter, closing(opened(clock)) as counter:
        gpu.watts = watts
        fault(meter.read, match="0 W" if watts == 0 else "no value")
        assert math.isnan(counter.power_w())


def test_a_counter_without_a_value_is_none(install, clock, monkeypatch):
    install(Gpu())
    monkeypatch.setattr(Gpu, "energy_mj", lambda self, seconds: 2**64 - 1)
    fault(lambda: opened(clock, "counter"), match="no energy counter")


def test_a_counter_that_falls_was_reset(install, clock):
    gpu = Gpu()
    install(gpu)
    with closing(opened(clock)) as meter:
        clock.sleep(1.0)
        meter.read()
        gpu.start_j = 0.0
        fault(meter.read, match="reloaded")


# --- beside the energy ---


@pytest.mark.parametrize(
    ("reasons", "throttled", "capped"),
    [
        ("GpuIdle", (), False),
        ("ApplicationsClocksSetting", (), False),
        ("SyncBoost", (), False),
        ("DisplayClockSetting", (), False),
        ("None", (), False),
        ("SwPowerCap", (), True),
        ("HwSlowdown", ("hardware slowdown",), False),
        ("SwThermalSlowdown", ("heat (software)",), False),
        ("HwThermalSlowdown", ("heat (hardware)",), False),
        ("HwPowerBrakeSlowdown", ("power brake",), False),
        ("All", ("hardware slowdown", "heat (software)", "heat (hardware)", "power brake"), True),
    ],
)
@pytest.mark.parametrize("old", [False, True])
def test_throttling_is_what_slows_the_gpu_against_its_will(
    install, clock, reasons, throttled, capped, old
):
    library = install(Gpu(reasons=getattr(pynvml, f"nvmlClocksEventReason{reasons}")))
    if old:
        new = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetTemperatureV")
        library.missing.update(new)
    with closing(opened(clock)) as meter:
        status = meter.status()
    assert (status.throttled, status.capped) == (throttled, capped)
    assert status.clock_mhz == 1755
    assert status.temperature_c == (61 if old else 62)
    assert not any("+" in name or "," in name for name in status.throttled)


@pytest.mark.parametrize("code", [*ABSENT, DENIED])
def test_what_a_gpu_does_not_tell_beside_its_energy_is_empty(install, clock, code):
    library = install(Gpu(reasons=0xFF))
    with closing(opened(clock)) as full:
        told = full.provenance()
    for name in dir(Library):
        optional = name.startswith(("_nvmlDeviceGet", "_nvmlSystemGet"))
        if optional and not any(
            part in name for part in ("Handle", "Count", "Energy", "Mig", "FieldValues")
        ):
            library.codes[name[1:]] = code
    with closing(opened(clock)) as meter:
        status, lacking = meter.status(), meter.provenance()
        assert meter.limit_w == math.inf
        assert meter.read().total > 0
    assert math.isnan(status.temperature_c)
    assert math.isnan(status.clock_mhz)
    assert (status.throttled, status.capped) == ((), False)
    assert lacking.keys() == told.keys()
    assert {name for name, value in lacking.items() if value is not None} == {
        "sensor",
        "gpu",
        "application_clocks_mhz",
        "mig",
    }


def test_provenance_is_plain_and_names_no_single_card(install, clock):
    gpu = Gpu()
    install(gpu)
    with closing(opened(clock)) as meter:
        told = meter.provenance()
    assert told == {
        "sensor": "NVML energy counter",
        "gpu": "NVIDIA H200",
        "compute_capability": "9.0",
        "driver": "580.65.06",
        "nvml": "13.580.65.06",
        "vbios": "96.00.B9.00.01",
        "power_limit_w": 700.0,
        "application_clocks_mhz": {"sm": 1980, "memory": 3201},
        "persistence_mode": False,
        "ecc": True,
        "mig": False,
    }


def test_limit_leaves_room_for_peaks_above_the_power_limit(install, clock):
    install(Gpu(limit_mw=350_000))
    with closing(opened(clock)) as meter:
        assert 350 < meter.limit_w <= 2 * 350
    install(Gpu(limit_mw=0))
    with closing(opened(clock)) as meter:
        assert meter.limit_w == math.inf


def test_nothing_of_the_card_is_changed_and_nvml_is_closed_once(install, clock):
    library = install(Gpu())
    for sensor in ("auto", "counter", "instant", "average"):
        meter = opened(clock, sensor)
        watched(meter, clock, 0.2)
        meter.power_w(), meter.status(), meter.provenance()
        meter.close()
        meter.close()
        assert library.open == 0
    nvml.probe()
    assert library.open == 0
    verbs = {name.removeprefix("nvml").removeprefix("Device") for name in library.called}
    verbs = {name.removeprefix("System") for name in verbs}
    assert all(name.startswith(("Get", "Init", "Shutdown", "ErrorString")) for name in verbs)


# --- faults ---


def campaign(clock, sensor):
    """Everything that is done with a meter."""
    with closing(opened(clock, sensor)) as meter:
        for _ in range(3):
            clock.sleep(0.1)
            meter.read()
        return meter.name, meter.power_w(), meter.status(), meter.provenance(), meter.limit_w


def calls(install, clock, sensor, monkeypatch, visible):
    """The functions of the library that a campaign uses, by running one."""
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    library = install(Gpu())
    campaign(clock, sensor)
    return list(dict.fromkeys(library.called))


USED = (
    "nvmlInitWithFlags",
    "nvmlDeviceGetCount_v2",
    "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetPciInfo_v3",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetName",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetEnforcedPowerLimit",
    "nvmlDeviceGetTemperatureV",
    "nvmlDeviceGetClockInfo",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetCudaComputeCapability",
    "nvmlDeviceGetEccMode",
    "nvmlSystemGetDriverVersion",
    "nvmlSystemGetNVMLVersion",
    "nvmlDeviceGetVbiosVersion",
    "nvmlDeviceGetApplicationsClock",
    "nvmlDeviceGetPersistenceMode",
)
# Without these there is no answer at all; the rest may be lacking.
VITAL = {
    "auto": {*USED[:3], "nvmlDeviceGetUUID"},
    "counter": {*USED[:3], "nvmlDeviceGetUUID", "nvmlDeviceGetTotalEnergyConsumption"},
    "instant": {*USED[:3], "nvmlDeviceGetUUID", "nvmlDeviceGetFieldValues"},
    "average": {*USED[:3], "nvmlDeviceGetUUID"},
}


def test_the_faults_below_are_put_into_every_call_that_is_used(install, clock, monkeypatch):
    used = set()
    for sensor in VITAL:
        for visible in ("", "GPU-1"):
            used |= set(calls(install, clock, sensor, monkeypatch, visible))
    assert used == {*USED, "nvmlShutdown"}


@pytest.mark.parametrize("sensor", list(VITAL))
@pytest.mark.parametrize("function", USED)
def test_a_fault_at_any_call_is_one_line_or_no_reading(
    install, clock, monkeypatch, sensor, function
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1")
    library = install(Gpu())
    campaign(clock, sensor)
    met = function in library.called
    for code in (*DEAD, *ABSENT, DENIED):
        library.codes = {function: code}
        lost = met and code in DEAD
        lost |= function in VITAL[sensor]
        lost |= function == "nvmlDeviceGetMigMode" and code == DENIED
        if lost:
            fault(lambda: campaign(clock, sensor))
        else:
            expected = "counter" if sensor == "auto" else sensor
            if sensor == "auto" and function == "nvmlDeviceGetTotalEnergyConsumption":
                expected = "instant"
            name, *_ = campaign(clock, sensor)
            assert name.startswith(f"NVML {nvml.WORDS[expected]} of ")
        assert library.open == 0


@pytest.mark.parametrize("sensor", ["counter", "instant", "average"])
@pytest.mark.parametrize("code", [*DEAD, *ABSENT, DENIED])
def test_a_sensor_that_dies_while_it_is_read_is_an_error(install, clock, sensor, code):
    library = install(Gpu())
    with closing(opened(clock, sensor)) as meter:
        meter.read()
        names = ("nvmlDeviceGetTotalEnergyConsumption", INSTANT, AVERAGE, "nvmlDeviceGetPowerUsage")
        library.codes = dict.fromkeys(names, code)
        fault(meter.read)
        if code in DEAD:
            library.codes = dict.fromkeys(
                ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetClockInfo"), code
            )
            fault(meter.status)
    assert library.open == 0


def test_what_was_measured_survives_a_library_that_does_not_close(install, clock):
    library = install(Gpu())
    meter = opened(clock)
    library.codes["nvmlShutdown"] = pynvml.NVML_ERROR_UNKNOWN
    meter.close()
    meter.close()
    assert library.called.count("nvmlShutdown") == 1


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "modprobe nvidia"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "differ in version"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "/dev/nvidia*"),
        (pynvml.NVML_ERROR_GPU_IS_LOST, "lost"),
        (pynvml.NVML_ERROR_UNKNOWN, "unknown error"),
        (pynvml.NVML_ERROR_GPU_NOT_FOUND, "no GPU"),
        (31, "newer driver"),
    ],
)
def test_errors_of_the_driver_say_what_to_do(install, clock, code, words):
    install(Gpu()).codes["nvmlInitWithFlags"] = code
    fault(lambda: opened(clock), match=words)


def test_no_driver(install, clock, monkeypatch, tmp_path):
    install(Gpu())

    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(pynvml, "CDLL", missing)
    fault(lambda: opened(clock, root=tmp_path), match="no NVIDIA driver found")
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").write_text("NVRM version: 580.65.06")
    fault(lambda: opened(clock, root=tmp_path), match="--gpus all")
    assert "no NVIDIA driver found" in nvml.probe(tmp_path)[0].lacks


def test_bindings_that_are_missing_old_or_broken(install, clock, monkeypatch, tmp_path):
    install(Gpu())
    monkeypatch.setitem(sys.modules, "pynvml", None)
    fault(lambda: opened(clock), match="pip install nvidia-ml-py")
    old = SimpleNamespace(**vars(pynvml))
    del old.NVML_FI_DEV_POWER_INSTANT  # as pynvml 11 had them
    monkeypatch.setitem(sys.modules, "pynvml", old)
    fault(lambda: opened(clock), match="pip uninstall -y pynvml")
    (tmp_path / "pynvml.py").write_text("try:\n    pass\nexcept OSError, error:\n    pass\n")
    monkeypatch.delitem(sys.modules, "pynvml")
    monkeypatch.syspath_prepend(tmp_path)
    fault(lambda: opened(clock), match="cannot be imported")
    assert "cannot be imported" in nvml.probe()[0].lacks


def test_bindings_without_a_newer_function_are_enough(install, clock, monkeypatch):
    install(Gpu())
    monkeypatch.delattr(pynvml, "nvmlDeviceGetTemperatureV")
    with closing(opened(clock)) as meter:
        assert meter.status().temperature_c == 61


@pytest.mark.parametrize("visible", [None, "MIG-5c89852c-d268-c3f3-1b07-005d5ae1dc3f"])
def test_slices_have_no_sensor_of_their_own(install, clock, monkeypatch, visible):
    library = install(Gpu(mig=1))
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    for sensor in ("auto", "instant"):
        words = "MIG is enabled: NVML tells the board's energy, not the slice's"
        fault(lambda sensor=sensor: opened(clock, sensor), match=words)
    assert library.open == 0


def test_settings_name_the_sensors():
    with pytest.raises(UserError, match="counter, instant, average"):
        nvml.Settings("power")


# --- which GPU ---


def four():
    """Boards whose order in NVML is not that of the PCI bus; the watts tell them apart."""
    places = [(0, 0x88, 0), (0, 0x1A, 0), (1, 0x05, 0), (0, 0x1A, 1)]
    names = ["aaaa", "aabb", "bbbb", "cccc"]
    return [
        Gpu(uuid=f"GPU-{name}0000-0000-0000-0000-00000000000{place}", pci=pci, watts=100.0 + place)
        for place, (name, pci) in enumerate(zip(names, places, strict=True))
    ]


def which(clock, device="cuda:0"):
    with closing(opened(clock, "counter", device)) as meter:
        return round(meter.power_w() - 100)


@pytest.mark.parametrize(
    ("visible", "seen"),
    [
        (None, [1, 3, 0, 2]),
        ("2,0", [0, 1]),
        (" 3 , 1 ", [2, 3]),
        ("0,2,-1,1", [1, 0]),
        ("0,7,1", [1]),
        ("1,x,2", [3]),
        ("GPU-bbbb,GPU-aaaa0000-0000-0000-0000-000000000000", [2, 0]),
        ("GPU-cccc,0", [3, 1]),
        ("GPU-cc,GPU-aa,0", [3]),  # of the second there are two
        ("GPU-ffff", []),
        ("1,1", []),
        ("-1", []),
        ("", []),
    ],
)
def test_devices_are_counted_as_cuda_counts_them(install, clock, monkeypatch, visible, seen):
    library = install(*four())
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [which(clock, f"cuda:{number}") for number in range(len(seen))] == seen
    fault(lambda: opened(clock, device=f"cuda:{len(seen)}"), match=f"CUDA sees {len(seen)} GPUs")
    assert library.open == 0


@pytest.mark.parametrize("places", [True, False])
@pytest.mark.parametrize("uuids", [True, False])
def test_torch_decides_where_it_sees_the_gpus(install, clock, monkeypatch, uuids, places):
    gpus = four()
    library = install(*gpus)
    monkeypatch.setitem(sys.modules, "torch", torch_of([gpus[2], gpus[1]]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,1")  # in an order that torch knows, not NVML
    # Slices have UUIDs that NVML does not know, and virtual machines places of their own.
    if not uuids:
        library.codes["nvmlDeviceGetHandleByUUID"] = pynvml.NVML_ERROR_NOT_FOUND
    if not places:
        library.codes["nvmlDeviceGetHandleByPciBusId_v2"] = pynvml.NVML_ERROR_NOT_FOUND
    if uuids or places:
        assert [which(clock, device) for device in ("cuda:0", "cuda:1", "cuda")] == [2, 1, 2]
    else:
        fault(lambda: opened(clock), match="nvidia-smi -L")
    fault(lambda: opened(clock, device="cuda:2"), match="CUDA sees 2 GPUs")


def test_a_gpu_that_torch_sees_and_the_user_may_not_read_is_not_searched_elsewhere(
    install, clock, monkeypatch
):
    gpus = four()
    install(*gpus).codes["nvmlDeviceGetHandleByUUID"] = DENIED
    monkeypatch.setitem(sys.modules, "torch", torch_of(gpus))
    fault(lambda: opened(clock), match="may not read")


def test_a_torch_whose_cuda_does_not_start_decides_nothing(install, clock, monkeypatch):
    def broken(number):
        raise RuntimeError("CUDA driver initialization failed")

    install(*four())
    torch = torch_of(four())
    torch.cuda.get_device_properties = broken
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert which(clock) == 1


def test_gpus_that_differ_need_an_order(install, clock, monkeypatch):
    gpus = four()
    gpus[3].name = "NVIDIA T4"
    install(*gpus)
    fault(lambda: opened(clock), match="CUDA_DEVICE_ORDER=PCI_BUS_ID")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-cccc,0")
    assert which(clock) == 3
    fault(lambda: opened(clock, device="cuda:1"), match="CUDA_DEVICE_ORDER=PCI_BUS_ID")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert which(clock, "cuda:1") == 1


def test_gpus_that_the_user_may_not_open_are_not_counted(install, clock):
    gpus = four()
    gpus[1].codes["handle"] = DENIED
    install(*gpus)
    assert which(clock) == 3
    for gpu in gpus:
        gpu.codes["handle"] = DENIED
    fault(lambda: opened(clock), match="/dev/nvidia*")
    install()
    fault(lambda: opened(clock), match="no GPU")


@pytest.mark.parametrize("device", ["cpu", "cuda:x", "cuda:-1", "mps"])
def test_other_devices_are_refused(install, clock, device):
    install(Gpu())
    fault(lambda: opened(clock, device=device), match=device)


# --- the list of sensors ---


def test_probe_lists_every_gpu_and_what_it_lacks(install):
    gpus = [
        Gpu(),
        Gpu(name="Tesla P100", codes={"counter": 3, "mig": 3}),
        Gpu(name="Tesla K80", codes={"counter": 3, INSTANT: 3}),
        Gpu(name="Orin", codes={"counter": 3, INSTANT: 3, AVERAGE: 3, "usage": 3}),
        Gpu(mig=1),
        Gpu(codes={"handle": DENIED}),
        Gpu(codes={"handle": pynvml.NVML_ERROR_GPU_IS_LOST}),
    ]
    library = install(*gpus)
    found = nvml.probe()
    assert [entry.what for entry in found] == [
        "GPU 0, NVIDIA H200: energy counter",
        "GPU 1, Tesla P100: instant power",
        "GPU 2, Tesla K80: averaged power",
        "GPU 3, Orin",
        "GPU 4, NVIDIA H200",
        "GPU 5",
        "GPU 6",
    ]
    lacks = [entry.lacks for entry in found]
    assert lacks[:3] == ["", "", ""]
    words = ("jetson", "MIG is enabled", "/dev/nvidia*", "lost")
    assert all(word in said for word, said in zip(words, lacks[3:], strict=True))
    assert library.open == 0


@pytest.mark.parametrize("function", USED)
def test_probe_never_raises(install, function):
    library = install(Gpu(), Gpu())
    for code in (*DEAD, *ABSENT, DENIED):
        library.codes = {function: code}
        found = nvml.probe()
        assert found
        assert all("\n" not in entry.lacks for entry in found)
        assert library.open == 0


def test_probe_gives_a_driver_up_that_does_not_answer(install, monkeypatch):
    library = install(Gpu())
    library.stuck.add("nvmlDeviceGetName")
    monkeypatch.setattr(nvml, "PATIENCE_S", 0.05)
    try:
        (found,) = nvml.probe()
        assert "did not answer" in found.lacks
    finally:
        library.release.set()


def test_a_machine_without_gpus_is_listed_as_one(install):
    install()
    assert "no GPU" in nvml.probe()[0].lacks


def test_the_module_imports_without_torch_and_without_the_bindings():
    code = (
        "import sys; sys.modules.update(torch=None, pynvml=None); from ecc.platforms import nvml; "
        "print(nvml.probe()[0].lacks)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install nvidia-ml-py" in done.stdout, done.stderr
