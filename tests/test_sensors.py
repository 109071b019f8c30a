"""Every sensor keeps the contract of sensors, and the machine is listed in words."""

import math
import resource
import subprocess
import sys
from dataclasses import fields, is_dataclass
from inspect import signature
from pathlib import Path

import pytest

from ecc.measuring.interface import Found, SensorError, Status
from ecc.metrics import METRICS
from ecc.platforms import PLATFORMS, SENSORS, __main__ as command, latency

ROOT = Path(__file__).parents[1]


class Clock:
    """Moves where somebody waits."""

    def __init__(self):
        self.seconds = 100.0

    def now(self):
        return self.seconds

    def sleep(self, seconds):
        self.seconds += seconds


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "ecc.platforms", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("kind", SENSORS)
def test_sensor_keeps_the_contract(kind):
    module = SENSORS[kind]
    assert module.METRIC in METRICS
    assert module.DEVICE.split(":")[0] in ("cpu", "cuda")
    assert is_dataclass(module.Settings)
    settings = module.Settings()
    assert settings == module.Settings(
        **{field.name: getattr(settings, field.name) for field in fields(settings)}
    )
    with pytest.raises(AttributeError):
        settings.another = 1
    assert list(signature(module.meter).parameters)[:4] == ["settings", "device", "clock", "root"]
    assert signature(module.meter).parameters["root"].default == Path("/")
    assert signature(module.probe).parameters["root"].default == Path("/")


@pytest.mark.parametrize("kind", SENSORS)
@pytest.mark.parametrize("there", [True, False])
def test_probe_tells_something_and_never_raises(kind, there, tmp_path):
    found = SENSORS[kind].probe(tmp_path if there else tmp_path / "missing")
    assert found
    for entry in found:
        assert isinstance(entry, Found)
        assert entry.what.strip()
        assert "\n" not in entry.what + entry.lacks


@pytest.mark.parametrize("kind", ["jetson", "rapl"])
def test_sensor_that_is_not_there_is_one_line(kind, tmp_path):
    module = SENSORS[kind]
    with pytest.raises(SensorError) as error:
        module.meter(module.Settings(), module.DEVICE, Clock(), tmp_path)
    assert "\n" not in str(error.value)
    assert all(entry.lacks for entry in module.probe(tmp_path))


def test_listing_names_every_platform_and_what_is_lacking(tmp_path, capsys):
    assert command.main([], root=tmp_path) == 0
    text = capsys.readouterr().out
    rows = [line.split(maxsplit=2) for line in text.splitlines() if line.startswith("  ")]
    usable = {row[0]: row[1] for row in rows if len(row) > 1 and row[1] in ("yes", "no")}
    assert {*SENSORS, *PLATFORMS} <= set(usable)
    assert usable["rapl"] == usable["jetson"] == "no"
    assert usable["latency"] == "yes"
    assert {usable[name] for name in PLATFORMS} == {"yes"}
    assert "no RAPL here, as in most virtual machines" in text
    assert "the platform kind latency needs no sensor" in text
    assert [line for line in text.splitlines() if line and line[0] != " "] == [
        "Sensors",
        "Emulated platforms",
        "Recorded campaigns",
    ]


def test_columns_of_the_listing_are_aligned(tmp_path):
    lines = command.listing(tmp_path).splitlines()
    places = {
        line.index(f" {word} ", len(line.split()[0]) + 2)
        for line in lines
        for word in ("yes", "no")
        if line.startswith("  ") and line.split()[1:2] == [word]
    }
    assert len(places) == 1


def test_listing_is_fast_and_does_without_torch():
    started = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = (
        "import sys; from ecc.platforms.__main__ import main; main([]); "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert ended.ru_utime - started.ru_utime < 2  # importing torch alone takes longer


def test_listing_of_this_machine_ends_well():
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    assert "rapl" in done.stdout
    assert "latency" in done.stdout


def test_check_of_the_clock_tells_its_period(capsys):
    assert command.main(["check", "latency"], clock=Clock()) == 0
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert told["period"].startswith("0.2 ms")
    assert told["readings"].endswith("in 3.0 s")
    assert told["sensor"].startswith("clock")
    assert {"temperature", "clock", "throttled"} <= told.keys()
    assert "power" not in told


def test_check_of_a_lacking_sensor_is_one_line_and_exit_code_one(tmp_path, capsys):
    assert command.main(["check", "rapl"], root=tmp_path, clock=Clock()) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("no RAPL here")
    assert told.err.count("\n") == 1


def test_check_of_an_unknown_sensor_lists_the_known_ones():
    done = run("check", "wattmeter")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"no sensor 'wattmeter': known are {', '.join(SENSORS)}\n"


class Meter(latency.Latency):
    """A counter of joules that moves every `period_s`, at 50 W."""

    name = "some counter"
    metric = "energy_j"
    limit_w = 75.0
    period_s = 0.1
    closed = False

    def read(self):
        now = self.clock.now()
        updated = math.floor(now / self.period_s) * self.period_s if self.period_s else 0.0
        return latency.Reading(now, 50 * updated)

    def status(self):
        return Status(61.5, math.nan, ("heat",))

    def close(self):
        self.closed = True


@pytest.fixture
def meter(monkeypatch):
    opened = Meter("cpu", Clock(), None)
    monkeypatch.setattr(SENSORS["rapl"], "meter", lambda *_: opened)
    return opened


def test_check_tells_period_power_and_status(meter, capsys):
    assert command.main(["check", "rapl"], clock=meter.clock) == 0
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert told["period"].startswith("100.0 ms")
    assert 48 < float(told["power"].removesuffix(" W")) < 52
    assert (told["instant"], told["limit"]) == ("unknown", "75.0 W")
    assert (told["temperature"], told["clock"]) == ("61.5 °C", "unknown")
    assert (told["throttled"], told["capped"]) == ("heat", "no")
    assert meter.closed


def test_check_of_a_counter_that_stands_still_fails_and_closes_it(meter, capsys):
    meter.period_s = 0.0
    assert command.main(["check", "rapl"], clock=meter.clock) == 1
    assert capsys.readouterr().err == "some counter: the counter did not move in 3 s\n"
    assert meter.closed


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_clock_as_a_meter_takes_a_second_in_a_second(device, tmp_path):
    clock = Clock()
    meter = latency.meter(latency.Settings(), device, clock, tmp_path)
    first = meter.read()
    clock.sleep(2.5)
    last = meter.read()
    assert last.total - first.total == last.seconds - first.seconds == 2.5
    assert meter.metric == latency.METRIC == "latency_s"
    assert not meter.stepped
    assert (meter.settle_s, meter.limit_w) == (0, math.inf)
    assert math.isnan(meter.power_w())
    assert meter.provenance()["device"] == device


def test_board_names_a_processor_that_has_no_name(tmp_path):
    path = tmp_path / "proc/device-tree/model"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"Some Board\0")
    assert "Some Board" in latency.meter(latency.Settings(), "cpu", Clock(), tmp_path).name


def test_clock_tells_the_status_of_the_processor_and_of_no_gpu(tmp_path):
    path = tmp_path / "proc/cpuinfo"
    path.parent.mkdir()
    path.write_text("model name : Some CPU\ncpu MHz : 1800\n")
    processor = latency.meter(latency.Settings(), "cpu", Clock(), tmp_path)
    gpu = latency.meter(latency.Settings(), "cuda:0", Clock(), tmp_path)
    assert processor.status().clock_mhz == 1800
    assert math.isnan(gpu.status().clock_mhz)
    assert "Some CPU" in processor.name
    assert "cuda:0" in gpu.name
