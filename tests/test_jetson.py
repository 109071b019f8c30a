"""The power monitors of a Jetson, against a board that is simulated register by register.

Below the meter everything is real: files in a temporary tree, and smbus2 itself, under which only
the system call is replaced by a bus with INA3221s.
"""

import errno
import json
import math
import os
import re
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import smbus2

from ecc.errors import UserError
from ecc.measuring.interface import SensorError
from ecc.platforms import jetson
from ecc.platforms.jetson import Settings, meter, period_s, probe

ROOT = Path(__file__).parents[1]
POLL_S = 0.002
TX2_MODEL = "NVIDIA Jetson TX2 Developer Kit"
ORIN_MODEL = "NVIDIA Jetson AGX Orin Developer Kit"


def wave(seconds):
    """Amperes of a GPU that begins to work after 3 s, in bursts."""
    return 0.6 + 0.2 * np.sin(7 * seconds) + 0.5 * (seconds > 3)


def steady(amperes):
    return lambda seconds: amperes + 0 * seconds


@dataclass
class Line:
    """A rail as it is: what flows, and the shunt it flows through."""

    name: str
    place: tuple[int, int]
    amperes: object
    volts: float = 19.0
    shunt_ohm: float = 0.01


@dataclass
class Board:
    """INA3221s: every period their registers take the means of the period that ends."""

    lines: list[Line]
    model: str = TX2_MODEL
    configuration: int = 0x7127
    time: float = 100.0
    wrong: dict = field(default_factory=dict)  # registers that are not what they should be
    listeners: list = field(default_factory=list)

    def now(self):
        return self.time

    def sleep(self, seconds):
        before = self.time // period_s(self.configuration)
        self.time += seconds
        if self.time // period_s(self.configuration) != before:
            self.publish()

    def publish(self):
        for listener in self.listeners:
            listener()

    def steps(self, line):
        """The shunt's and the bus voltage's registers, in steps."""
        period = period_s(self.configuration)
        first = (math.floor(self.time / period) - 1) * period
        during = first + period * (np.arange(8) + 0.5) / 8
        shunt = line.amperes(during).mean() * line.shunt_ohm / 40e-6
        return int(np.clip(round(shunt), -4096, 4095)), round(line.volts / 8e-3)

    def word(self, address, register):
        """The 16 bits of a register; None where no chip has the address."""
        if address not in {line.place[0] for line in self.lines}:
            return None
        known = {0x00: self.configuration, 0xFE: 0x5449, 0xFF: 0x3220} | self.wrong
        if register in known:
            return known[register]
        for line in self.lines:
            if line.place == (address, (register + 1) // 2):
                return self.steps(line)[1 - register % 2] << 3 & 0xFFFF
        return 0

    def joules(self, begin, end, *names):
        seconds = np.linspace(begin, end, 200_001)
        watts = sum(line.volts * line.amperes(seconds) for line in self.lines if line.name in names)
        return np.trapezoid(watts, seconds)


def tx2(gpu=wave, **changes):
    lines = [
        Line("VDD_SYS_GPU", (0x40, 1), gpu),
        Line("VDD_SYS_SOC", (0x40, 2), steady(0.1)),
        Line("VDD_4V0_WIFI", (0x40, 3), steady(0.004), 3.8),
        Line("VDD_IN", (0x41, 1), steady(0.88), shunt_ohm=0.005),
        Line("VDD_SYS_CPU", (0x41, 2), lambda t: 0.3 + 0.1 * np.cos(2 * t)),
        Line("VDD_SYS_DDR", (0x41, 3), steady(0.2), 5.0),
    ]
    return Board(lines, **changes)


def orin(**changes):
    lines = [
        Line("VDD_GPU_SOC", (0x40, 1), wave, 19.0, 0.002),
        Line("VDD_CPU_CV", (0x40, 2), steady(0.5), 19.0, 0.002),
        Line("VIN_SYS_5V0", (0x40, 3), steady(0.7), 5.0, 0.002),
        Line("VDDQ_VDD2_1V8AO", (0x41, 2), steady(0.1), 5.0, 0.002),
    ]
    return Board(lines, ORIN_MODEL, **changes)


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else f"{content}\n".encode())


class Files:
    """Files as the driver shows them; written where they change."""

    def __init__(self):
        self.known = {}

    def __setitem__(self, path, value):
        if self.known.get(path) != value:
            self.known[path] = value
            path.write_text(f"{value}\n")


def describe(board, root):
    put(root / "proc/device-tree/model", board.model.encode() + b"\0")


def divided(whole, part):
    """The quotient of C, which drops what is behind the point."""
    return int(math.copysign(abs(whole) // part, whole))


def iio(board, root, numbers=(0, 1), told=True):
    """JetPack 4: milliwatts as the driver computes them, channels from 0."""
    describe(board, root)
    addresses = sorted({line.place[0] for line in board.lines})
    folders = {
        address: root / f"sys/bus/i2c/drivers/ina3221x/0-{address:04x}/iio:device{number}"
        for address, number in zip(addresses, numbers, strict=True)
    }
    for address, folder in folders.items():
        put(folder / "name", "ina3221x")
        put(folder / "running_mode", 1)
        if told:
            tree = folder.parent / "of_node"
            put(tree / "ti,continuous-config", struct.pack(">I", board.configuration))
            for line in board.lines:
                if line.place[0] == address:
                    channel = tree / f"channel@{line.place[1] - 1}"
                    put(channel / "reg", struct.pack(">I", line.place[1] - 1))
                    ohm = struct.pack(">I", round(line.shunt_ohm * 1e3))
                    put(channel / "ti,shunt-resistor-mohm", ohm)

    files = Files()

    def update():
        for line in board.lines:
            folder, channel = folders[line.place[0]], line.place[1] - 1
            shunt, bus = board.steps(line)
            doubled = divided(shunt * 40 * 2, round(line.shunt_ohm * 1e3))
            milliamperes = divided(doubled + (1 if shunt > 0 else -1), 2)
            files[folder / f"rail_name_{channel}"] = line.name
            files[folder / f"in_voltage{channel}_input"] = bus * 8
            files[folder / f"in_power{channel}_input"] = divided(bus * 8 * milliamperes, 1000)

    update()
    board.listeners.append(update)
    return folders


def hwmon(board, root, numbers=(0, 1), labels=True, driver=True):
    """Mainline and JetPack 5 and later: millivolts and milliamperes, channels from 1."""
    describe(board, root)
    addresses = sorted({line.place[0] for line in board.lines})
    parent = root / ("sys/bus/i2c/drivers/ina3221" if driver else "sys/devices/3160000.i2c/i2c-0")
    folders = {
        address: parent / f"0-{address:04x}/hwmon/hwmon{number}"
        for address, number in zip(addresses, numbers, strict=True)
    }
    for number, folder in zip(numbers, folders.values(), strict=True):
        put(folder / "name", "ina3221")
        put(folder / "update_interval", 7)
        put(folder / "samples", 1)
        put(folder / "in7_label", "sum of shunt voltages")
        put(folder / "in7_input", 0)
        for channel in (1, 2, 3):
            put(folder / f"in{channel}_enable", 0)
            put(folder / f"in{channel}_input", 0)
            put(folder / f"curr{channel}_input", 0)
        link = root / f"sys/class/hwmon/hwmon{number}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(folder)

    files = Files()

    def update():
        for line in board.lines:
            folder, channel = folders[line.place[0]], line.place[1]
            shunt, bus = board.steps(line)
            if labels:
                files[folder / f"in{channel}_label"] = line.name
            files[folder / f"in{channel}_enable"] = 1
            files[folder / f"shunt{channel}_resistor"] = round(line.shunt_ohm * 1e6)
            files[folder / f"in{channel}_input"] = bus * 8
            files[folder / f"curr{channel}_input"] = round(shunt * 40e-3 / line.shunt_ohm)

    update()
    board.listeners.append(update)
    return folders


@dataclass
class Bus:
    """The system call under smbus2: I2C of a board, the kernel's claim on addresses, faults."""

    board: Board
    owned: tuple = ()
    faults: dict = field(default_factory=dict)  # number of the call (-1: every one) -> errno
    calls: int = 0
    forced: bool = False
    address: int = -1

    def ioctl(self, _, request, argument):
        if request == smbus2.smbus2.I2C_FUNCS:
            return
        if request in (smbus2.smbus2.I2C_SLAVE, smbus2.smbus2.I2C_SLAVE_FORCE):
            self.forced = request == smbus2.smbus2.I2C_SLAVE_FORCE
            if argument in self.owned and not self.forced:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            self.address = argument
            return
        assert request == smbus2.smbus2.I2C_SMBUS
        assert argument.read_write == smbus2.smbus2.I2C_SMBUS_READ  # nothing is ever written
        assert argument.size == smbus2.smbus2.I2C_SMBUS_WORD_DATA
        self.board.time += 0.2e-3
        self.calls += 1
        fault = self.faults.get(self.calls, self.faults.get(-1))
        word = self.board.word(self.address, argument.command)
        if word is None:
            fault = errno.EREMOTEIO
        if fault:
            raise OSError(fault, os.strerror(fault))
        high, low = (
            word >> 8,
            word & 0xFF,
        )  # on the wire; the kernel takes the first for the low one
        argument.data.contents.word = high | low << 8


@pytest.fixture
def i2c(monkeypatch, tmp_path):
    """A function that puts a board behind /dev/i2c-0 and gives its bus."""

    def attach(board, root=tmp_path, **changes):
        describe(board, root)
        put(root / "dev/i2c-0", b"")
        bus = Bus(board, **changes)
        monkeypatch.setattr(smbus2.smbus2, "ioctl", bus.ioctl)
        return bus

    return attach


@pytest.fixture
def attached(i2c, tmp_path):
    """A function that shows a board in one of the three ways, and gives its meter."""

    def make(board, access, **settings):
        {"iio": iio, "hwmon": hwmon, "i2c": lambda board, _: i2c(board)}[access](board, tmp_path)
        return meter(Settings(**settings), "cuda:0", board, tmp_path)

    return make


@pytest.fixture
def broken_files(monkeypatch):
    """A function that makes reads of a file fail: {number of the read (-1: every one): errno}."""

    def break_(name, faults):
        real, calls = Path.read_bytes, []

        def read(path):
            if path.name != name:
                return real(path)
            calls.append(path)
            fault = faults.get(len(calls), faults.get(-1))
            if fault:
                raise OSError(fault, os.strerror(fault), str(path))
            return real(path)

        monkeypatch.setattr(Path, "read_bytes", read)
        return calls

    return break_


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def measured(sensor, board, seconds):
    """Readings at the pace of the protocol."""
    readings = [sensor.read()]
    while readings[-1].seconds < readings[0].seconds + seconds:
        board.sleep(POLL_S)
        readings.append(sensor.read())
    return readings


ACCESSES = ("iio", "hwmon", "i2c")


# --- energy ---


@pytest.mark.parametrize("access", ACCESSES)
def test_energy_of_a_known_wave_is_that_of_its_integral(attached, access):
    board = tx2(lambda seconds: wave(seconds - 100))
    sensor = attached(board, access)
    readings = measured(sensor, board, 6)
    begin, end = readings[0], readings[-1]
    truth = board.joules(begin.seconds, end.seconds, "VDD_SYS_GPU")
    assert end.total - begin.total == pytest.approx(truth, rel=0.005)
    assert not sensor.stepped
    assert sensor.metric == "energy_j"
    assert math.isnan(sensor.power_w())


def test_ways_to_the_same_board_agree_within_their_resolution(i2c, tmp_path):
    board = tx2()
    roots = {access: tmp_path / access for access in ACCESSES}
    iio(board, roots["iio"])
    hwmon(board, roots["hwmon"])
    i2c(board, roots["i2c"])
    rails = ("GPU", "SOC", "CPU", "DDR")
    sensors = [meter(Settings(rails=rails), "cuda:0", board, root) for root in roots.values()]
    watts = []
    for _ in range(200):
        board.sleep(0.01)
        board.time = math.ceil(board.time / 0.0066) * 0.0066 + 1e-4  # registers stay as they are
        board.publish()
        before = board.time
        watts.append([sum(rail.power_w() for rail in sensor._rails) for sensor in sensors])
        board.time = before
    watts = np.array(watts)
    assert np.ptp(watts[:, 0]) > 5
    # Milliwatts are cut off, for each of four rails.
    np.testing.assert_allclose(watts, watts[:, [2]] * np.ones(3), atol=4e-3)


def test_energy_between_two_readings_is_a_trapezoid(attached):
    change = 200.0
    board = tx2(lambda seconds: np.where(seconds < change, 5.0, 0.5), time=change - 1)
    sensor = attached(board, "hwmon")
    first = sensor.read()
    board.sleep(2)
    second = sensor.read()
    assert (first.total, second.seconds - first.seconds) == (0, 2)
    assert second.total == pytest.approx((5.0 * 19 + 0.5 * 19) / 2 * 2, rel=1e-3)


@pytest.mark.parametrize("access", ACCESSES)
def test_current_that_flows_back_counts_down(attached, access):
    board = tx2(steady(-0.4))
    readings = measured(attached(board, access), board, 0.5)
    elapsed = readings[-1].seconds - readings[0].seconds
    assert readings[-1].total == pytest.approx(-0.4 * 19.0 * elapsed, rel=1e-3)
    assert (np.diff([reading.total for reading in readings]) < 0).all()


@pytest.mark.parametrize("access", ACCESSES)
def test_rails_add_up(attached, access):
    board = tx2(steady(0.8))
    sensor = attached(board, access, rails=["GPU", "VDD_SYS_SOC", "ddr"])
    readings = measured(sensor, board, 0.3)
    elapsed = readings[-1].seconds - readings[0].seconds
    watts = 0.8 * 19 + 0.1 * 19 + 0.2 * 5
    assert readings[-1].total / elapsed == pytest.approx(watts, rel=2e-3)
    assert "VDD_SYS_GPU + VDD_SYS_SOC + VDD_SYS_DDR" in sensor.name


@pytest.mark.parametrize("offset", np.linspace(0, 0.0066, 5, endpoint=False))
@pytest.mark.parametrize("access", ACCESSES)
def test_after_settling_nothing_is_left_of_what_ran_before(attached, access, offset):
    change = 200 + offset
    board = tx2(lambda seconds: np.where(seconds < change, 5.0, 0.5), time=change - 1)
    sensor = attached(board, access)
    (rail,) = sensor._rails
    board.sleep(change - board.time)
    assert rail.power_w() == pytest.approx(5.0 * 19, rel=1e-3)
    board.sleep(change + sensor.settle_s - board.time)
    assert rail.power_w() == pytest.approx(0.5 * 19, rel=1e-3)


@pytest.mark.parametrize("configuration", [0x7127, 0x7C07, 0x7727, 0x4007, 0x71C7])
def test_update_period_is_that_of_the_configuration(i2c, tmp_path, configuration):
    board = tx2(configuration=configuration)
    i2c(board)
    sensor = meter(Settings(), "cuda:0", board, tmp_path)
    known = {0x7127: 6.6e-3, 0x7C07: 0.43008, 0x7727: 0.4224, 0x4007: 0.28e-3}
    known[0x71C7] = 3 * (8.244e-3 + 0.14e-3)  # bus and shunt differ
    about = sensor.provenance()
    assert about["update_period_s"] == pytest.approx(known[configuration])
    assert sensor.settle_s == 2 * about["update_period_s"]


@pytest.mark.parametrize(
    ("interval", "samples", "seconds"),
    [
        (7, 1, 7.5e-3),  # 6.6 ms, rounded by the driver
        (0, 1, 0.5e-3),
        (422, 64, 0.4225),  # as kernels count that take the averaging in
        (7, 64, 7.5e-3 * 64),  # as newer ones count
        (None, None, 6.6e-3),  # before there were such files: the reset value
    ],
)
def test_update_period_of_hwmon_is_never_too_short(tmp_path, interval, samples, seconds):
    board = tx2()
    for folder in hwmon(board, tmp_path).values():
        for name, value in (("update_interval", interval), ("samples", samples)):
            put(folder / name, value) if value is not None else (folder / name).unlink()
    assert meter(Settings(), "cuda:0", board, tmp_path).settle_s == pytest.approx(2 * seconds)


@pytest.mark.parametrize("told", [True, False])
def test_update_period_of_iio_is_that_of_the_device_tree(tmp_path, told):
    board = tx2(configuration=0x7C07)
    iio(board, tmp_path, told=told)
    sensor = meter(Settings(), "cuda:0", board, tmp_path)
    rail = sensor.provenance()["rails"]["VDD_SYS_GPU"]
    assert sensor.settle_s == pytest.approx(2 * (0.43008 if told else 0.4224))
    assert rail["update_period"] == ("device tree" if told else "assumed")
    assert rail["shunt_ohm"] == (0.01 if told else None)
    assert math.isinf(sensor.limit_w) != told


# --- rails ---


@pytest.mark.parametrize("numbers", [(0, 1), (5, 2), (11, 10)])
@pytest.mark.parametrize("show", [iio, hwmon])
def test_numbers_of_devices_mean_nothing(tmp_path, show, numbers):
    board = tx2(steady(1.0))
    show(board, tmp_path, numbers)
    sensor = meter(Settings(rails=("GPU", "DDR")), "cuda:0", board, tmp_path)
    readings = measured(sensor, board, 0.1)
    elapsed = readings[-1].seconds - readings[0].seconds
    assert readings[-1].total / elapsed == pytest.approx(19 + 1, rel=2e-3)


def test_monitor_is_found_by_its_name_without_its_driver(tmp_path):
    board = tx2(steady(1.0))
    hwmon(board, tmp_path, (4, 3), driver=False)
    put(tmp_path / "sys/class/hwmon/hwmon9/name", "ina219")
    put(tmp_path / "sys/class/hwmon/hwmon9/curr1_input", 1)
    names = [found.what for found in probe(tmp_path)]
    assert len(names) == 6
    assert meter(Settings(), "cuda:0", board, tmp_path)._rails[0].power_w() == pytest.approx(19)


def test_linked_folders_are_one_monitor(tmp_path):
    board = tx2()
    for folder in iio(board, tmp_path).values():
        (folder.parent / "iio_device").symlink_to(folder.name)
    assert len(probe(tmp_path)) == 6


def test_unlabelled_channels_are_known_on_the_tx2_alone(tmp_path):
    board = tx2(steady(1.0))
    hwmon(board, tmp_path, labels=False)
    sensor = meter(Settings(), "cuda:0", board, tmp_path)
    assert sensor._rails[0].power_w() == pytest.approx(19)
    for model in ("NVIDIA Jetson TX2 NX Developer Kit", ORIN_MODEL):
        put(tmp_path / "proc/device-tree/model", model)
        with pytest.raises(SensorError, match=r"no rail GPU here.*0-0040\.1, 0-0040\.2") as error:
            meter(Settings(), "cuda:0", board, tmp_path)
        one_line(error)
    meter(Settings(rails=("0-0040.1",)), "cuda:0", board, tmp_path)


def test_orin_shows_its_connected_channels(tmp_path):
    board = orin()
    folders = hwmon(board, tmp_path)
    put(folders[0x41] / "in3_label", "NC")
    put(folders[0x41] / "in3_enable", 1)
    names = [found.what for found in probe(tmp_path)]
    assert len(names) == 4
    for line, name in zip(board.lines, names, strict=True):
        assert f": {line.name} (" in name
    sensor = meter(Settings(), "cuda:0", board, tmp_path)
    assert "VDD_GPU_SOC" in sensor.name
    assert ORIN_MODEL in sensor.name
    assert sensor.limit_w == pytest.approx(0.1638 / 0.002 * 26)


@pytest.mark.parametrize(
    ("rails", "gpu"),
    [
        (("VDD_SYS_GPU", "VDD_SYS_SOC", "VDD_IN"), "VDD_SYS_GPU"),
        (("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), "VDD_GPU_SOC"),
        (("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"), "VDD_CPU_GPU_CV"),
        (("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"), "GPU"),
        (("POM_5V_IN", "POM_5V_GPU", "POM_5V_CPU"), "POM_5V_GPU"),
        (("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"), "VDD_GPU"),
    ],
)
def test_short_name_is_the_rail_of_the_gpu_on_every_board(tmp_path, caplog, rails, gpu):
    caplog.set_level("INFO")
    places = [(0x40 + index // 3, 1 + index % 3) for index in range(len(rails))]
    board = Board([Line(n, place, steady(0.1)) for n, place in zip(rails, places, strict=True)])
    hwmon(board, tmp_path, range(len({address for address, _ in places})))
    sensor = meter(Settings(), "cuda:0", board, tmp_path)
    assert list(sensor.provenance()["rails"]) == [gpu]
    assert (f"rail GPU is {gpu} on this board" in caplog.text) == (gpu != "GPU")


@pytest.mark.parametrize(
    ("rails", "says"),
    [
        (("FAN",), "no rail FAN here: name one of VDD_SYS_GPU, VDD_SYS_SOC"),
        (("SYS",), "rail SYS may be VDD_SYS_GPU or VDD_SYS_SOC"),
        (("GPU", "VDD_SYS_GPU"), "GPU and VDD_SYS_GPU are one rail here, VDD_SYS_GPU"),
        (("GPU", "VDD_IN"), "VDD_IN contains the other rails"),
        (("IN", "DDR"), "VDD_IN contains the other rails"),
    ],
)
@pytest.mark.parametrize("access", ACCESSES)
def test_rails_that_cannot_be_summed_are_refused(attached, access, rails, says):
    with pytest.raises(SensorError, match=says) as error:
        attached(tx2(), access, rails=rails)
    one_line(error)


def test_all_of_the_board_may_be_measured_alone(attached):
    board = tx2()
    readings = measured(attached(board, "hwmon", rails=("VDD_IN",)), board, 0.1)
    elapsed = readings[-1].seconds - readings[0].seconds
    assert readings[-1].total / elapsed == pytest.approx(0.88 * 19, rel=2e-3)


# --- faults ---


@pytest.mark.parametrize("call", range(1, 13))
@pytest.mark.parametrize("fault", [errno.EIO, errno.EAGAIN, errno.ETIMEDOUT])
def test_fault_in_passing_on_the_bus_costs_nothing(i2c, tmp_path, caplog, call, fault):
    board = tx2(steady(1.0))
    i2c(board, faults={call: fault})
    sensor = meter(Settings(rails=("GPU", "CPU", "DDR")), "cuda:0", board, tmp_path)
    board.lines[4].amperes = steady(0.5)
    readings = measured(sensor, board, 0.02)
    assert sensor.provenance()["reads_repeated"] == 1
    assert [os.strerror(fault) in record.message for record in caplog.records] == [True]
    del readings[:2]  # registers still tell of before
    watts = np.diff([r.total for r in readings]) / np.diff([r.seconds for r in readings])
    assert watts[4:] == pytest.approx(19 + 0.5 * 19 + 1, rel=2e-3)


@pytest.mark.parametrize("call", range(1, 11))
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (errno.EBUSY, "the kernel driver owns 0x4. on .*use access: sysfs, or set force: true"),
        (errno.EREMOTEIO, "nothing answers at 0x4. on .*: check bus and addresses"),
        (errno.ENXIO, "nothing answers at 0x4. on .*: check bus and addresses"),
        (errno.EACCES, "may not be opened: run as root, or join its group"),
        (errno.EINVAL, "0x4. on .*: register 0x.. cannot be read"),
    ],
)
def test_fault_on_the_bus_is_one_line_and_invents_no_reading(
    i2c, tmp_path, files_open, call, fault, says
):
    board = tx2(steady(1.0))
    i2c(board, faults={call: fault})
    sensor, readings, errors = None, [], []
    for _ in range(6):
        try:
            if sensor is None:
                sensor = meter(Settings(rails=("GPU", "VDD_SYS_DDR")), "cuda:0", board, tmp_path)
            readings.append(sensor.read())
        except SensorError as error:
            errors.append(str(error))
            assert files_open() == (sensor is not None)
        board.sleep(POLL_S)
    assert (len(errors), len(readings)) == (1, 5)
    assert re.search(says, errors[0])
    assert "\n" not in errors[0]
    for reading in readings:
        since = reading.seconds - readings[0].seconds
        assert reading.total == pytest.approx(20 * since, rel=2e-3)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (errno.EIO, "cannot be read"),
        (errno.EAGAIN, "cannot be read"),
        (errno.ETIMEDOUT, "nothing answers at 0x40"),
    ],
)
def test_fault_that_stays_is_tried_three_times(i2c, tmp_path, fault, says):
    board = tx2()
    bus = i2c(board)
    sensor = meter(Settings(), "cuda:0", board, tmp_path)
    before, bus.faults, started = bus.calls, {-1: fault}, board.time + 3 * 0.2e-3
    with pytest.raises(SensorError, match=says) as error:
        sensor.read()
    one_line(error)
    assert bus.calls == before + 3
    assert board.time - started >= 2e-3  # not at once


FILES = [("iio", "in_power0_input"), ("hwmon", "in1_input"), ("hwmon", "curr1_input")]


@pytest.mark.parametrize("call", range(1, 5))
@pytest.mark.parametrize("fault", [errno.EIO, errno.EAGAIN, errno.ETIMEDOUT])
@pytest.mark.parametrize(("access", "name"), FILES)
def test_fault_of_a_file_in_passing_costs_nothing(
    attached, broken_files, access, name, call, fault
):
    board = tx2(steady(1.0))
    broken_files(name, {call: fault})
    readings = measured(sensor := attached(board, access), board, 0.02)
    assert sensor.provenance()["reads_repeated"] == 1
    assert readings[-1].total == pytest.approx(19 * (readings[-1].seconds - readings[0].seconds))


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (errno.EIO, "cannot be read .Input/output error.: see dmesg"),
        (errno.ENODEV, "the INA3221 does not answer"),
        (errno.EREMOTEIO, "the INA3221 does not answer"),
        (errno.EACCES, "may not be read: run as root, or grant it .sudo chmod a.r "),
        (errno.ENOENT, "is missing: the driver of the INA3221 was unloaded"),
        (errno.ENODATA, "its channel is switched off: echo 1 . sudo tee "),
    ],
)
@pytest.mark.parametrize(("access", "name"), FILES)
def test_dead_file_is_named_in_one_line(attached, broken_files, access, name, fault, says):
    board = tx2(steady(1.0))
    sensor = attached(board, access)
    sensor.read()
    calls = broken_files(name, {-1: fault})
    board.sleep(POLL_S)
    with pytest.raises(SensorError, match=says) as error:
        sensor.read()
    assert name in one_line(error)
    assert len(calls) == (3 if fault == errno.EIO else 1)


@pytest.mark.parametrize("content", [b"", b"abc\n", b"12 mW\n", b"1.5\n", b"\xff\xfe", b"1\n2\n"])
@pytest.mark.parametrize(("access", "name"), FILES)
def test_garbage_names_the_file(attached, tmp_path, access, name, content):
    board = tx2()
    sensor = attached(board, access)
    (file,) = [path for path in tmp_path.glob(f"sys/bus/**/{name}") if "0040" in str(path)]
    put(file, content)
    with pytest.raises(SensorError, match="not a whole number") as error:
        sensor.read()
    assert str(file) in one_line(error)


@pytest.mark.parametrize(("access", "name"), FILES)
def test_file_that_vanishes_is_named(attached, tmp_path, access, name):
    sensor = attached(tx2(), access)
    (file,) = [path for path in tmp_path.glob(f"sys/bus/**/{name}") if "0040" in str(path)]
    file.unlink()
    with pytest.raises(SensorError, match="is missing") as error:
        sensor.read()
    assert str(file) in one_line(error)


def test_switched_off_channel_names_the_file_to_write(attached, broken_files):
    broken_files("in1_input", {-1: errno.ENODATA})
    with pytest.raises(SensorError, match=r"sudo tee .*hwmon0/in1_enable$"):
        attached(tx2(), "hwmon")


# --- registers ---


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        (0, "power-down"),
        (1, "a single shot"),
        (2, "a single shot"),
        (3, "a single shot"),
        (4, "power-down"),
        (5, "shunt alone"),
        (6, "bus alone"),
    ],
)
def test_registers_that_are_not_updated_are_stale(i2c, tmp_path, mode, says):
    board = tx2()
    i2c(board)
    sensor = meter(Settings(), "cuda:0", board, tmp_path)
    board.configuration = 0x7120 | mode
    for attempt in (sensor.read, lambda: meter(Settings(), "cuda:0", board, tmp_path)):
        with pytest.raises(SensorError, match=rf"the registers are stale.*say {says}") as error:
            attempt()
        assert "0x40 on" in one_line(error)


def test_disabled_channel_is_refused_and_the_others_are_not(i2c, tmp_path):
    board = tx2(configuration=0x3127)
    i2c(board)
    with pytest.raises(SensorError, match="channel 1 is disabled") as error:
        meter(Settings(), "cuda:0", board, tmp_path)
    one_line(error)
    sensor = meter(Settings(rails=("SOC",)), "cuda:0", board, tmp_path)
    assert sensor.provenance()["update_period_s"] == pytest.approx(4.4e-3)


def test_configuration_may_not_change_while_measuring(i2c, tmp_path):
    board = tx2()
    i2c(board)
    sensor = meter(Settings(), "cuda:0", board, tmp_path)
    board.configuration = 0x7C07
    with pytest.raises(SensorError, match="changed from 0x7127 to 0x7c07") as error:
        sensor.read()
    one_line(error)


@pytest.mark.parametrize("amperes", [16.38, 50.0, -16.4, -50.0])
@pytest.mark.parametrize("access", ["hwmon", "i2c"])
def test_register_at_its_end_is_no_reading(attached, access, amperes):
    with pytest.raises(SensorError, match="at the end of its range") as error:
        attached(tx2(steady(amperes)), access)
    assert "VDD_SYS_GPU" in one_line(error)


@pytest.mark.parametrize("amperes", [-16.376, 16.376])
@pytest.mark.parametrize("access", ["hwmon", "i2c"])
def test_register_before_its_end_is_a_reading(attached, access, amperes):
    (rail,) = attached(tx2(steady(amperes)), access)._rails
    assert rail.power_w() == pytest.approx(amperes * 19)


@pytest.mark.parametrize("amperes", [-16.38 + 0.005, -0.004, 0.0, 0.004, 16.3])
def test_registers_are_signed_and_big_endian(i2c, tmp_path, amperes):
    board = tx2(steady(amperes))
    i2c(board)
    (rail,) = meter(Settings(), "cuda:0", board, tmp_path)._rails
    steps = round(amperes / 0.004)
    assert rail.power_w() == pytest.approx(steps * 0.004 * 19.0)


@pytest.mark.parametrize("word", [0xFFFF, 0x7FF8, 0x8000])
def test_impossible_voltage_is_no_reading(i2c, tmp_path, word):
    board = tx2()
    i2c(board)
    sensor = meter(Settings(), "cuda:0", board, tmp_path)
    board.wrong = {0x02: word}
    with pytest.raises(SensorError, match="which an INA3221 cannot measure") as error:
        sensor.read()
    one_line(error)


@pytest.mark.parametrize("wrong", [{0xFE: 0x4954}, {0xFF: 0x2260}, {0xFE: 0xFFFF, 0xFF: 0xFFFF}])
def test_another_chip_is_refused(i2c, tmp_path, wrong):
    i2c(board := tx2(wrong=wrong))
    with pytest.raises(SensorError, match=r"0x40 on .* is no INA3221") as error:
        meter(Settings(), "cuda:0", board, tmp_path)
    one_line(error)


def test_address_of_the_kernel_is_read_by_force_alone(i2c, tmp_path):
    board = tx2()
    bus = i2c(board, owned=(0x40,))
    with pytest.raises(SensorError, match=r"the kernel driver owns 0x40 on .*force: true") as error:
        meter(Settings(access="i2c"), "cuda:0", board, tmp_path)
    one_line(error)
    assert not bus.forced
    meter(Settings(access="i2c", force=True), "cuda:0", board, tmp_path).read()
    assert bus.forced


def test_missing_bus_names_its_module(tmp_path):
    describe(board := tx2(), tmp_path)
    with pytest.raises(SensorError, match=r"dev/i2c-3 is missing.*modprobe i2c-dev") as error:
        meter(Settings(bus=3), "cuda:0", board, tmp_path)
    one_line(error)


def test_closed_bus_says_how_to_open_it(i2c, tmp_path, monkeypatch):
    board = tx2()
    i2c(board)

    def refuse(path, flags):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(SensorError, match=r"dev/i2c-0 may not be opened.*usermod -aG i2c") as error:
        meter(Settings(), "cuda:0", board, tmp_path)
    one_line(error)


def test_missing_package_is_named(i2c, tmp_path, monkeypatch):
    i2c(board := tx2())
    monkeypatch.setitem(sys.modules, "smbus2", None)
    with pytest.raises(SensorError, match="smbus2 is missing: pip install smbus2"):
        meter(Settings(), "cuda:0", board, tmp_path)


def test_bus_is_closed_with_the_meter(i2c, tmp_path, files_open):
    i2c(board := tx2())
    sensor = meter(Settings(), "cuda:0", board, tmp_path)
    assert files_open() == 1
    sensor.close()
    assert files_open() == 0


# --- access ---


def test_sysfs_comes_first(attached, i2c, tmp_path):
    board = tx2()
    bus = i2c(board)
    hwmon(board, tmp_path)
    sensor = meter(Settings(), "cuda:0", board, tmp_path)
    assert sensor.provenance()["access"] == "sysfs"
    assert bus.calls == 0
    forced = meter(Settings(access="i2c"), "cuda:0", board, tmp_path)
    assert forced.provenance()["access"] == "i2c"
    assert bus.calls > 0


def test_bus_of_another_computer_is_left_alone(i2c, tmp_path):
    board = tx2(model="A computer")
    bus = i2c(board)
    with pytest.raises(SensorError, match="this is no Jetson") as error:
        meter(Settings(), "cuda:0", board, tmp_path)
    one_line(error)
    assert bus.calls == 0


def test_jetson_without_a_driver_says_so(tmp_path):
    describe(board := orin(), tmp_path)
    with pytest.raises(SensorError, match=r"no driver shows an INA3221.*modprobe ina3221") as error:
        meter(Settings(access="sysfs"), "cuda:0", board, tmp_path)
    one_line(error)


def test_shunts_of_the_tx2_are_not_taken_for_another_board(i2c, tmp_path):
    board = orin()
    bus = i2c(board)
    with pytest.raises(SensorError, match=r"is no TX2.*give addresses and shunts_ohm") as error:
        meter(Settings(), "cuda:0", board, tmp_path)
    one_line(error)
    put(tmp_path / "etc/nv_tegra_release", "# R32")
    (tmp_path / "proc/device-tree/model").unlink()
    with pytest.raises(SensorError, match="an unknown board is no TX2") as error:
        meter(Settings(), "cuda:0", board, tmp_path)
    one_line(error)
    assert bus.calls == 0
    places = {"VDD_GPU_SOC": [0x40, 1], "VDD_CPU_CV": [0x40, 2]}
    with pytest.raises(SensorError, match="shunt of VDD_GPU_SOC is not known") as error:
        meter(Settings(addresses=places), "cuda:0", board, tmp_path)
    one_line(error)
    settings = Settings(addresses=places, shunts_ohm={"VDD_GPU_SOC": 0.002})
    (rail,) = meter(settings, "cuda:0", board, tmp_path)._rails
    assert rail.power_w() == pytest.approx(19 * wave(board.time), rel=0.02)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"access": "spi"}, "access is 'spi'"),
        ({"rails": "GPU"}, "rails are 'GPU'"),
        ({"rails": ()}, "rails are"),
        ({"rails": ("GPU", "GPU")}, "rails are"),
        ({"bus": -1}, "bus is -1"),
        ({"bus": True}, "bus is True"),
        ({"force": "yes"}, "force is 'yes'"),
        ({"addresses": {"GPU": (0x50, 1)}}, "addresses of GPU"),
        ({"addresses": {"GPU": (0x40, 0)}}, "addresses of GPU"),
        ({"addresses": {"GPU": "0x40"}}, "addresses of GPU"),
        ({"addresses": {"GPU": 0x40}}, "addresses of GPU"),
        ({"shunts_ohm": {"GPU": 0}}, "shunts_ohm of GPU"),
        ({"shunts_ohm": {"GPU": math.nan}}, "shunts_ohm of GPU"),
        ({"shunts_ohm": {"GPU": "10m"}}, "shunts_ohm of GPU"),
    ],
)
def test_impossible_settings_are_refused(wrong, says):
    with pytest.raises(UserError, match=says) as error:
        Settings(**wrong)
    one_line(error)


def test_package_of_the_bus_is_imported_when_it_is_needed():
    code = "import sys, ecc.platforms.jetson; sys.exit('smbus2' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# --- status, provenance, probe ---


def heat(root, zone="GPU-therm", state=0, chip="17000000.gp10b"):
    thermal = root / "sys/class/thermal"
    for number, (name, degrees) in enumerate({"CPU-therm": 61, zone: 47.5}.items()):
        put(thermal / f"thermal_zone{number}/type", name)
        put(thermal / f"thermal_zone{number}/temp", round(degrees * 1000))
    for number, (name, value) in enumerate({"pwm-fan": 3, "gpu-throttle-alert": state}.items()):
        put(thermal / f"cooling_device{number}/type", name)
        put(thermal / f"cooling_device{number}/cur_state", value)
    put(root / "sys/class/devfreq/15340000.vic/cur_freq", 1)
    put(root / f"sys/class/devfreq/{chip}/cur_freq", 1300500000)


@pytest.mark.parametrize(
    ("zone", "chip"),
    [
        ("GPU-therm", "17000000.gp10b"),
        ("GPU-therm", "17000000.gv11b"),
        ("gpu-thermal", "17000000.ga10b"),
        ("gpu-thermal", "17000000.gpu"),
    ],
)
def test_status_is_that_of_the_gpu(attached, tmp_path, zone, chip):
    heat(tmp_path, zone, chip=chip)
    status = attached(tx2(), "hwmon").status()
    assert (status.temperature_c, status.clock_mhz) == (47.5, 1300.5)
    assert status.throttled == ()
    assert not status.capped


def test_heat_that_slows_the_gpu_down_is_told(attached, tmp_path):
    heat(tmp_path, state=1)
    assert attached(tx2(), "iio").status().throttled == ("gpu-throttle-alert",)


def test_status_that_cannot_be_read_is_nan_for_once(attached, tmp_path, broken_files):
    heat(tmp_path, state=1)
    sensor = attached(tx2(), "iio")
    broken_files("temp", {1: errno.EAGAIN})
    put(tmp_path / "sys/class/devfreq/17000000.gp10b/cur_freq", "?")
    (tmp_path / "sys/class/thermal/cooling_device1/cur_state").unlink()
    status = sensor.status()
    assert math.isnan(status.temperature_c)
    assert math.isnan(status.clock_mhz)
    assert status.throttled == ()
    assert sensor.status().temperature_c == 47.5


def test_status_of_a_bare_tree_is_unknown(attached):
    status = attached(tx2(), "i2c").status()
    assert math.isnan(status.temperature_c)
    assert math.isnan(status.clock_mhz)
    assert status.throttled == ()


@pytest.mark.parametrize("access", ACCESSES)
def test_provenance_tells_board_rails_and_resolution(attached, tmp_path, access):
    put(tmp_path / "var/lib/nvpmodel/status", "pmode:0003")
    sensor = attached(tx2(steady(1.0)), access)
    about = json.loads(json.dumps(sensor.provenance(), allow_nan=False))
    assert about["board"] == TX2_MODEL
    assert about["kernel"] == os.uname().release
    assert about["power_mode"] == "0003"
    assert about["device"] == "cuda:0"
    assert about["access"] == ("i2c" if access == "i2c" else "sysfs")
    rail = about["rails"]["VDD_SYS_GPU"]
    assert rail["resolution_w"] == pytest.approx(0.004 * 19)
    assert "0x40" in rail["where"] or "0-0040" in rail["where"]
    assert sensor.limit_w == pytest.approx(0.1638 / 0.01 * 26)


def test_probe_of_another_computer_says_what_it_is_not(tmp_path):
    (found,) = probe(tmp_path)
    assert "no Jetson" in found.lacks


def test_probe_lists_rails_and_how_to_read_them(tmp_path, broken_files):
    hwmon(tx2(), tmp_path)
    assert [found.lacks for found in probe(tmp_path)] == [""] * 6
    broken_files("curr2_input", {-1: errno.EACCES})
    lacks = [found.lacks for found in probe(tmp_path)]
    assert [bool(text) for text in lacks] == [False, True, False, False, True, False]
    assert "sudo chmod a+r" in lacks[1]


def test_probe_never_raises(tmp_path, broken_files):
    iio(tx2(), tmp_path)
    broken_files("rail_name_0", {-1: errno.EACCES})
    (found,) = probe(tmp_path)
    assert "rail_name_0 may not be read" in found.lacks


def test_probe_knows_the_bus_of_a_tx2_without_a_driver(i2c, tmp_path):
    bus = i2c(tx2())
    (found,) = probe(tmp_path)
    assert "i2c-0" in found.what
    assert found.lacks == ""
    assert bus.calls == 0


def test_sensor_is_that_of_the_gpu():
    assert (jetson.METRIC, jetson.DEVICE) == ("energy_j", "cuda:0")
