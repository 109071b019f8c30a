"""RAPL on a tree of files as Linux has it: every joule once, and one line for every fault."""

import errno
import io
import math
import os
from contextlib import closing

import pytest
from hypothesis import given, settings, strategies as st

from ecc.errors import UserError
from ecc.measuring.interface import SensorError
from ecc.platforms import rapl

UNIT_NJ = 61035  # of one step of the register, as the driver computes it: 2^-14 J
STEPS = 2**32
RANGE_UJ = (STEPS - 1) * UNIT_NJ // 1000
STEP_J = UNIT_NJ / 1e9

ZONES = {
    "intel-rapl:0": "package-0",
    "intel-rapl:0:0": "core",
    "intel-rapl:0:1": "uncore",
    "intel-rapl:0:2": "dram",
    "intel-rapl:1": "package-1",
    "intel-rapl:1:0": "core",
    "intel-rapl:1:1": "dram",
    "intel-rapl:2": "psys",
    "intel-rapl-mmio:0": "package-0",
}
PACKAGES = ("intel-rapl:0", "intel-rapl:1")
WATTS = dict(zip(ZONES, (80.0, 60.0, 5.0, 10.0, 50.0, 40.0, 8.0, 190.0, 80.0), strict=True))
CPUINFO = "processor : 0\nvendor_id : {vendor}\nmodel name : Some {vendor} CPU\ncpu MHz : 2400.5\n"


class Machine:
    """A clock, and the registers that run with it; `root` is what Linux shows of them."""

    def __init__(self, root, zones=ZONES, vendor="GenuineIntel"):
        self.root, self.seconds = root, 0.0
        self.watts = {zone: WATTS[zone] for zone in zones}
        self.steps = dict.fromkeys(zones, 1000.0)
        write(root / "proc/cpuinfo", CPUINFO.format(vendor=vendor))
        classes = root / "sys/class/powercap"
        classes.mkdir(parents=True)
        (classes / "intel-rapl").mkdir()  # the control type, which is no zone
        for zone in zones:
            kind, first, *_ = zone.split(":")
            folder = root / "sys/devices/virtual/powercap" / kind / f"{kind}:{first}" / zone
            write(folder / "name", ZONES[zone])
            write(folder / "max_energy_range_uj", RANGE_UJ)
            (classes / zone).symlink_to(folder)
        self.sleep(0)

    def now(self):
        return self.seconds

    def sleep(self, seconds):
        self.seconds += seconds
        for zone, watts in self.watts.items():
            self.steps[zone] += watts * seconds / STEP_J
            shown = int(self.steps[zone]) % STEPS * UNIT_NJ // 1000
            self.file(zone, "energy_uj").write_text(f"{shown}\n")

    def file(self, zone, name):
        return self.root / "sys/class/powercap" / zone / name

    def open(self, *domains):
        return rapl.meter(rapl.Settings(domains or ("package",)), "cpu", self, self.root)


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{value}\n")


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def close(monkeypatch, path, code=errno.EACCES):
    """Lets Linux refuse to open a file; tests may run as root, whom no permission stops."""
    plain = io.open

    def refuse(file, *arguments, **more):
        if str(file) == str(path):
            raise OSError(code, os.strerror(code), str(file))
        return plain(file, *arguments, **more)

    monkeypatch.setattr(io, "open", refuse)


def read(machine, meter, times, seconds=0.002):
    for _ in range(times):
        machine.sleep(seconds)
        meter.read()


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("domains", "watts"),
    [
        (["package"], 130),
        (["package", "dram"], 148),
        (["dram", "package"], 148),
        (["core"], 100),
        (["core", "uncore"], 105),
        (["core", "uncore", "dram"], 123),
        (["psys"], 190),
    ],
)
def test_domains_are_summed_over_sockets_and_the_twin_is_not(machine, domains, watts):
    meter = machine.open(*domains)
    first = meter.read()
    machine.sleep(1)
    last = meter.read()
    assert (last.total - first.total) / (last.seconds - first.seconds) == pytest.approx(watts, 1e-4)


spans = st.tuples(st.floats(0.001, 60), st.floats(1, 4000), st.floats(1, 4000))


@given(
    starts=st.tuples(*2 * [st.integers(0, STEPS - 1)]),
    parts=st.lists(spans, min_size=1, max_size=8),
)
@settings(max_examples=40, deadline=None)
def test_total_is_the_truth_wherever_the_counters_wrap(tmp_path_factory, starts, parts):
    machine = Machine(tmp_path_factory.mktemp("wraps"), PACKAGES)
    machine.steps = dict(zip(PACKAGES, map(float, starts), strict=True))
    machine.sleep(0)
    meter = machine.open()
    first, begin, true_j = meter.read(), machine.now(), 0.0
    assert begin == first.seconds
    for seconds, *watts in parts:
        machine.watts = dict(zip(PACKAGES, watts, strict=True))
        machine.sleep(seconds)
        true_j += seconds * sum(watts)
        reading = meter.read()
        assert reading.seconds == machine.now()
        # A wrap costs a step, because the range is that of the highest value; a reading another.
        allowed = len(PACKAGES) * STEP_J * (len(parts) + 2)
        assert reading.total - first.total == pytest.approx(true_j, abs=allowed, rel=1e-5)
    meter.close()


def test_readings_in_between_change_nothing(tmp_path):
    machine = Machine(tmp_path, PACKAGES)
    machine.steps["intel-rapl:1"] = STEPS - 50 * 0.5 / STEP_J  # wraps half a second from now
    machine.sleep(0)
    often, rarely = machine.open(), machine.open()
    before, begin = often.read().total, rarely.read().total
    for _ in range(200):
        machine.sleep(0.005)
        last = often.read().total
    assert last - before == pytest.approx(rarely.read().total - begin, abs=1e-6)
    assert last - before == pytest.approx(130, rel=1e-4)


@pytest.mark.parametrize(
    ("domains", "words"),
    [
        (["package", "core"], "package contains core"),
        (["uncore", "package", "core"], "package contains uncore, core"),
        (["psys", "package"], "psys contains package"),
        (["psys", "dram"], "psys contains dram"),
        (["package", "package"], "once"),
        (["gpu"], "unknown 'gpu', known are package, dram, core, uncore, psys"),
        ([], "give a list"),
        ("package", "give a list"),
    ],
)
def test_no_domain_is_added_twice(domains, words):
    with pytest.raises(UserError, match=words) as error:
        rapl.Settings(domains)
    assert one_line(error).startswith("domains")


@pytest.mark.parametrize("domain", rapl.DOMAINS)
def test_no_domain_stands_beside_one_that_contains_it(domain):
    for outer, inner in rapl.WITHIN.items():
        if domain in inner:
            with pytest.raises(UserError, match=f"{outer} contains {domain}"):
                rapl.Settings((domain, outer))


@pytest.mark.parametrize("zone", ["intel-rapl:0", "intel-rapl:1"])
@pytest.mark.parametrize("name", ["name", "max_energy_range_uj", "energy_uj"])
@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM])
def test_closed_file_is_named_with_the_command_that_opens_it(
    machine, monkeypatch, zone, name, code
):
    path = machine.file(zone, name)
    close(monkeypatch, path, code)
    with pytest.raises(SensorError) as error:
        machine.open()
    assert one_line(error).startswith(f"{path} may be read by root alone")
    every = machine.root / "sys/class/powercap/intel-rapl:*" / name
    assert f"'sudo chmod a+r {every}'" in str(error.value)
    monkeypatch.setattr(rapl, "WAKE_S", 0.0)  # a probe waits by the real clock
    found = rapl.probe(machine.root)
    assert str(error.value) in [entry.lacks for entry in found]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENODATA, errno.ENODEV])
@pytest.mark.parametrize("name", ["name", "max_energy_range_uj", "energy_uj"])
def test_masked_file_is_named(machine, monkeypatch, name, code):
    path = machine.file("intel-rapl:1", name)
    close(monkeypatch, path, code)
    with pytest.raises(SensorError, match=os.strerror(code)) as error:
        machine.open()
    assert one_line(error).startswith(f"{path} is there but cannot be read")
    assert "masks it" in str(error.value)
    assert "latency" in str(error.value)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENODATA, errno.ENODEV, errno.EACCES])
@pytest.mark.parametrize("call", range(10))
def test_fault_at_any_reading_is_one_line_and_leaves_no_file_open(
    machine, monkeypatch, files_open, call, code
):
    """Two readings when the counters are opened, two when they are tried, then those of windows."""
    plain, calls = os.pread, []

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) > call:
            raise OSError(code, os.strerror(code))
        return plain(*arguments)

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(SensorError, match="energy_uj") as error, closing(machine.open()) as meter:
        read(machine, meter, 10)
    one_line(error)
    assert len(calls) == call + 1
    assert files_open() == 0


@pytest.mark.parametrize("told", ["", "n/a", "1.5", str(RANGE_UJ + 1), "-5"])
def test_what_is_no_reading_is_refused(machine, told):
    meter = machine.open()
    machine.file("intel-rapl:1", "energy_uj").write_text(told)
    with pytest.raises(SensorError, match="intel-rapl:1/energy_uj says") as error:
        meter.read()
    one_line(error)


@pytest.mark.parametrize("told", ["0", "-1", "", "?"])
def test_counter_without_a_range_is_refused(machine, told):
    machine.file("intel-rapl:0", "max_energy_range_uj").write_text(told)
    with pytest.raises(SensorError, match="intel-rapl:0/max_energy_range_uj") as error:
        machine.open()
    one_line(error)


@pytest.mark.parametrize("steps", [0.0, 1000.0])
@pytest.mark.parametrize(
    ("zone", "domains"),
    [("intel-rapl:1", ("package",)), ("intel-rapl:0:2", ("package", "dram"))],
)
def test_counter_that_never_moves_is_refused_when_opened(machine, zone, domains, steps):
    machine.watts[zone], machine.steps[zone] = 0.0, steps
    machine.sleep(0)
    with pytest.raises(SensorError, match=f"{zone}/energy_uj stands still at") as error:
        machine.open(*domains)
    assert "hypervisor" in one_line(error)
    assert machine.now() < 1


def test_counter_that_dies_is_found_beside_one_that_lives(tmp_path):
    machine = Machine(tmp_path, PACKAGES)
    meter = machine.open()
    machine.watts["intel-rapl:1"] = 0.0
    with pytest.raises(SensorError, match="intel-rapl:1/energy_uj stands still") as error:
        read(machine, meter, 200, 0.02)
    one_line(error)
    assert 1 < machine.now() < 1.1


def test_idle_graphics_may_rest_beside_cores_but_not_alone(machine):
    machine.watts["intel-rapl:0:1"] = 0.0
    meter = machine.open("core", "uncore")
    first = meter.read().total
    for _ in range(5):
        machine.sleep(1)
        last = meter.read().total
    assert last - first == pytest.approx(500, rel=1e-4)
    with pytest.raises(SensorError, match="does not count uncore"):
        machine.open("uncore")


def test_counter_that_is_reset_is_no_wrap(machine):
    machine.steps["intel-rapl:0"] = STEPS / 3
    machine.sleep(0)
    meter = machine.open()
    machine.sleep(0.002)
    meter.read()
    machine.steps["intel-rapl:0"] = 0
    machine.sleep(0.002)
    with pytest.raises(SensorError, match="it was reset") as error:
        meter.read()
    one_line(error)


def test_machine_without_rapl_says_so_and_what_to_use(tmp_path):
    with pytest.raises(SensorError, match="no RAPL here, as in most virtual machines") as error:
        rapl.meter(rapl.Settings(), "cpu", Machine(tmp_path / "other"), tmp_path)
    assert "platform kind latency" in one_line(error)
    (found,) = rapl.probe(tmp_path)
    assert found.lacks == str(error.value)


def test_twin_alone_is_no_rapl(tmp_path):
    machine = Machine(tmp_path, ["intel-rapl-mmio:0"])
    with pytest.raises(SensorError, match="modprobe intel_rapl_msr"):
        machine.open()


def test_links_into_a_hidden_folder_are_those_of_a_container(machine):
    hidden = machine.root / "sys/devices/virtual/powercap"
    hidden.rename(hidden.with_name("elsewhere"))
    with pytest.raises(SensorError, match="name is missing, as in containers") as error:
        machine.open()
    assert "/sys/devices/virtual/powercap" in one_line(error)
    assert [entry.lacks for entry in rapl.probe(machine.root)] == [str(error.value)]


def test_lacking_domain_lists_those_that_are_there(tmp_path):
    machine = Machine(tmp_path, ["intel-rapl:0", "intel-rapl:0:0"])
    with pytest.raises(SensorError, match="no RAPL domain dram here: choose from package, core"):
        machine.open("package", "dram")


def test_core_of_amd_is_one_core_and_refused(tmp_path):
    machine = Machine(tmp_path, ["intel-rapl:0", "intel-rapl:0:0"], vendor="AuthenticAMD")
    with pytest.raises(SensorError, match="single core on AMD"):
        machine.open("core")
    assert machine.open().read().total > 0


def test_other_devices_are_refused(machine):
    with pytest.raises(SensorError, match="not that of cuda:0"):
        rapl.meter(rapl.Settings(), "cuda:0", machine, machine.root)


def test_limit_is_that_of_all_packages_or_infinite(machine):
    assert machine.open().limit_w == math.inf
    for zone, watts in (("intel-rapl:0", 150), ("intel-rapl:1", 120)):
        write(machine.file(zone, "constraint_0_max_power_uw"), watts * 10**6)
        write(machine.file(zone, "constraint_0_power_limit_uw"), watts * 10**6 // 2)
        write(machine.file(zone, "constraint_1_power_limit_uw"), 2 * watts * 10**6)
        write(machine.file(zone, "constraint_1_max_power_uw"), 0)
    assert machine.open().limit_w == rapl.MARGIN * 2 * 270
    assert machine.open("package", "dram").limit_w == math.inf


def test_unreadable_limit_is_none(machine, monkeypatch):
    path = machine.file("intel-rapl:0", "constraint_0_max_power_uw")
    write(path, 10**6)
    close(monkeypatch, path)
    assert machine.open().limit_w == math.inf


def test_probe_lists_every_domain(tmp_path, monkeypatch):
    monkeypatch.setattr(rapl, "WAKE_S", 0.0)
    # The clock of a probe is the real one, on which these files do not move.
    found = rapl.probe(Machine(tmp_path, ["intel-rapl:0", "intel-rapl:0:2"]).root)
    assert [entry.what for entry in found] == [
        "RAPL domain package (package-0)",
        "RAPL domain dram (dram)",
    ]
    assert all("stands still" in entry.lacks for entry in found)


def test_provenance_names_domains_and_processor(machine):
    cpus = machine.root / "sys/devices/system/cpu"
    write(machine.root / "proc/sys/kernel/osrelease", "6.1.0")
    write(cpus / "intel_pstate/no_turbo", 1)
    for cpu in range(2):
        write(cpus / f"cpu{cpu}/cpufreq/scaling_governor", "performance")
    meter = machine.open("package", "dram")
    assert meter.name == "RAPL package-0 + dram + package-1 + dram of Some GenuineIntel CPU"
    told = meter.provenance()
    names = [domain["name"] for domain in told["domains"]]
    assert names == ["package-0", "dram", "package-1", "dram"]
    assert told["domains"][3]["file"] == str(machine.file("intel-rapl:1:1", "energy_uj"))
    assert told["domains"][3]["range_j"] == pytest.approx(262143.328850)
    assert told["processor"] == "Some GenuineIntel CPU"
    assert (told["kernel"], told["governor"], told["turbo"]) == ("6.1.0", "performance", "off")


def test_what_is_not_told_is_unknown(machine):
    (machine.root / "proc/cpuinfo").unlink()
    meter = machine.open()
    status, told = meter.status(), meter.provenance()
    assert math.isnan(status.temperature_c)
    assert math.isnan(status.clock_mhz)
    assert status.throttled == ()
    assert {told[key] for key in ("processor", "kernel", "governor", "turbo")} == {"unknown"}
    assert math.isnan(meter.power_w())


@pytest.mark.parametrize(
    ("driver", "labels", "expected"),
    [
        ("coretemp", {"Package id 0": 61000, "Core 0": 99000}, 61),
        ("k10temp", {"Tctl": 81000, "Tdie": 54000}, 54),
        ("k10temp", {"Tctl": 47500}, 47.5),
        ("cpu_thermal", {"": 52000}, 52),
        ("nvme", {"Composite": 40000}, math.nan),
    ],
)
def test_temperature_is_that_of_the_package(machine, driver, labels, expected):
    folder = machine.root / "sys/class/hwmon/hwmon3"
    write(folder / "name", driver)
    for number, (label, value) in enumerate(labels.items(), 1):
        write(folder / f"temp{number}_input", value)
        if label:
            write(folder / f"temp{number}_label", label)
    assert machine.open().status().temperature_c == pytest.approx(expected, nan_ok=True)


def test_thermal_zone_stands_in_and_the_hottest_package_counts(machine):
    zones = machine.root / "sys/class/thermal"
    for number, (kind, value) in enumerate(
        [("acpitz", 90000), ("x86_pkg_temp", 48000), ("x86_pkg_temp", 51000)]
    ):
        write(zones / f"thermal_zone{number}/type", kind)
        write(zones / f"thermal_zone{number}/temp", value)
    assert machine.open().status().temperature_c == 51


def test_clock_is_the_mean_of_the_cores(machine):
    assert machine.open().status().clock_mhz == pytest.approx(2400.5)
    for cpu, khz in enumerate((2_000_000, 3_000_000)):
        path = machine.root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq"
        write(path, khz)
    assert machine.open().status().clock_mhz == 2500


@pytest.mark.parametrize("package", [0, 1])
def test_heat_is_told_once_whichever_package_counts_it(machine, package):
    cpus = machine.root / "sys/devices/system/cpu"
    for cpu in range(4):
        write(cpus / f"cpu{cpu}/thermal_throttle/package_throttle_count", 7)
        write(cpus / f"cpu{cpu}/topology/physical_package_id", cpu // 2)
    meter = machine.open()
    assert meter.status().throttled == ()
    for cpu in (2 * package, 2 * package + 1):
        write(cpus / f"cpu{cpu}/thermal_throttle/package_throttle_count", 9)
    assert meter.status().throttled == ("heat",)
    assert meter.status().throttled == ()


@pytest.mark.parametrize(
    "name",
    [
        "sys/class/hwmon/hwmon0/temp1_input",
        "sys/class/hwmon/hwmon0/name",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq",
        "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count",
        "proc/cpuinfo",
    ],
)
def test_closed_status_is_unknown_and_no_error(machine, monkeypatch, name):
    write(machine.root / "sys/class/hwmon/hwmon0/name", "coretemp")
    write(machine.root / "sys/class/hwmon/hwmon0/temp1_input", 50000)
    cpu = machine.root / "sys/devices/system/cpu/cpu0"
    write(cpu / "cpufreq/scaling_cur_freq", 3_000_000)
    write(cpu / "thermal_throttle/package_throttle_count", 0)
    close(monkeypatch, machine.root / name)
    meter = machine.open()
    status = meter.status()
    assert math.isnan(status.temperature_c) == ("hwmon" in name)
    assert status.clock_mhz == (2400.5 if "cpufreq" in name else 3000)
    assert status.throttled == ()
    assert meter.read().total > 0
