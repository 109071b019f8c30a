"""The collector runs on what JetPack 4 has, builds the library's networks, and loses nothing."""

import ast
import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ecc.energy import draw_widths
from ecc.measuring import journal
from ecc.measuring.drift import repeatability
from ecc.networks import Network
from ecc.platforms import Deployed
from ecc.platforms.recorded import Recorded, record, write_widths

SCRIPT = Path(__file__).parents[1] / "collector" / "collect.py"
SOURCE = SCRIPT.read_text()
NETWORKS = {
    "alexnet": Network("alexnet", 10, 0.125, (64, 64)),
    "mobilenet": Network("mobilenet", 10, 0.25, (32, 32)),
    "erfnet": Network("erfnet", 5, 1.0, (32, 48)),
}
STRUCTURE = NETWORKS["mobilenet"].structure
QUICK = {
    "sample-s": 0.06,
    "settle-s": 0.01,
    "poll-s": 0.001,
    "iterations": 1,
    "warm-up-s": 0.05,
    "idle-s": 0.05,
    "reference-every": 4,
    "baseline": 2,
    "repeats": 0.25,
}
NEWER = {  # names that Python 3.6 or torch 1.4 has not
    *("removeprefix", "removesuffix", "pairwise", "cache", "cached_property", "isqrt", "prod"),
    *("inference_mode", "compile", "time_ns", "perf_counter_ns", "fromisoformat", "dist"),
    *("capture_output", "dirs_exist_ok", "missing_ok", "bit_count", "nullcontext", "walk_packages"),
}


@pytest.fixture(scope="module")
def collect():
    spec = spec_from_file_location("collect", SCRIPT)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def device(tmp_path):
    """A folder with the files of a device: rails of 3 W (GPU) and 2 W, structure and widths."""
    chip = tmp_path / "sys/bus/i2c/drivers/ina3221x/0-0040/iio:device3"
    for number, (rail, milliwatts) in enumerate({"VDD_SYS_GPU": 3000, "VDD_SYS_SOC": 2000}.items()):
        write(chip / f"rail_name_{number}", rail)
        write(chip / f"in_power{number}_input", milliwatts)
    write(tmp_path / "etc/nv_tegra_release", "# R32 (release), REVISION: 7.1")
    write(tmp_path / "sys/class/thermal/thermal_zone0/type", "CPU-therm")
    write(tmp_path / "sys/class/thermal/thermal_zone0/temp", 70000)
    write(tmp_path / "sys/class/thermal/thermal_zone1/type", "GPU-therm")
    write(tmp_path / "sys/class/thermal/thermal_zone1/temp", 41500)
    write(tmp_path / "sys/class/devfreq/17000000.gp10b/cur_freq", 1300500000)
    write(tmp_path / "mobilenet.json", STRUCTURE.to_json())
    write_widths(draw_widths(STRUCTURE, 8, 0), tmp_path / "widths.csv")
    return tmp_path


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{value}\n")


def command(device, **changes):
    files = {"structure": device / "mobilenet.json", "widths": device / "widths.csv"}
    given = {"network": "mobilenet", "root": device, "device": "cpu", "out": device / "campaign"}
    options = {**given, **files, **QUICK, **changes}
    told = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return [sys.executable, str(SCRIPT), *told]


def start(*arguments, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command(*arguments, **options), env=environment, **pipes)


def finished(process):
    output, errors = process.communicate(timeout=120)
    return process.returncode, output + errors


def main(collect, device, monkeypatch, capsys, **changes):
    """The exit code and what was said, without a process of its own."""
    monkeypatch.setattr(sys, "argv", command(device, **changes)[1:])
    code = collect.main()
    told = capsys.readouterr()
    return code, told.out + told.err


def test_the_source_is_that_of_python_3_6():
    tree = ast.parse(SOURCE, feature_version=(3, 6))
    modules, names = set(), set()
    for node in ast.walk(tree):
        assert not isinstance(node, ast.NamedExpr | ast.Match)
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module.split(".")[0])
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.FunctionDef):
            assert not node.args.posonlyargs
    assert modules - {"torch"} <= sys.stdlib_module_names
    assert not modules & {"dataclasses", "importlib.metadata", "contextvars", "zoneinfo", "tomllib"}
    assert not names & NEWER


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_those_of_the_library(collect, name):
    network = NETWORKS[name]
    classes = network.structure.classes
    images = torch.randn(2, 3, *network.size)
    for widths in draw_widths(network.structure, 3, seed=1):
        ours = network.build(widths).eval()
        theirs = collect.builder(name, classes)(widths.tolist()).eval()
        own, other = ours.state_dict(), theirs.state_dict()
        for module in ours.modules():  # statistics that matter
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
        assert [tuple(v.shape) for v in own.values()] == [tuple(v.shape) for v in other.values()]
        theirs.load_state_dict(dict(zip(other, own.values(), strict=True)))
        with torch.no_grad():
            torch.testing.assert_close(theirs(images), ours(images))


def test_the_fingerprint_is_that_of_the_structure(collect, device):
    values, fingerprint = collect.read_structure(str(device / "mobilenet.json"))
    assert fingerprint == STRUCTURE.fingerprint
    assert tuple(values["size"]) == (32, 32)


def test_a_run_is_accepted_as_a_recording(collect, device, monkeypatch, capsys):
    code, told = main(collect, device, monkeypatch, capsys)
    assert code == 0, told
    assert "windows" in told
    assert "min left" in told
    windows = journal.read(device / "campaign" / "windows.csv", 14)
    # Twice two samples, each fourth followed by the reference, after the two of the baseline.
    kinds = windows["kind"].value_counts().to_dict()
    assert kinds == {"sample": 8, "repeat": 2, "reference": 5}
    np.testing.assert_allclose(windows["power_w"], 3.0)
    np.testing.assert_allclose(windows["raw_energy_j"], 3.0 * windows["latency_s"])
    assert (windows["temperature_c"] == 41.5).all()
    assert (windows["clock_mhz"] == 1300.5).all()
    assert windows["started_s"].is_monotonic_increasing
    assert "warning: 3.00 W under load, 3.00 W idle" in told

    record(device / "campaign", device / "recorded", "mobilenet", STRUCTURE)
    replay = Recorded("tx2", device / "recorded")
    widths = draw_widths(STRUCTURE, 8, 0)
    np.testing.assert_array_equal(replay.sampled(STRUCTURE), widths)
    assert (replay.measure(Deployed(STRUCTURE), widths, seed=0) > 0).all()
    campaign = replay.campaign(STRUCTURE, device)
    assert repeatability(campaign.windows, campaign.provenance)["samples"] == 8
    assert campaign.provenance["meter"]["driver"].startswith("# R32")


def test_rails_are_summed_and_found_in_either_driver(collect, device):
    power = collect.Power(str(device), ["gpu", "VDD_SYS_SOC"], 1.0)
    assert power.watts() == pytest.approx(5.0)
    chip = device / "sys/class/hwmon/hwmon4"
    for name, value in {"name": "ina3221", "in1_label": "VDD_IN", "in1_input": 19000}.items():
        write(chip / name, value)
    write(chip / "curr1_input", 500)
    assert collect.Power(str(device), ["VDD_IN"], 1.0).watts() == pytest.approx(9.5)


def test_mean_power_weighs_readings_by_time(collect, device):
    power = collect.Power(str(device), [], 1.0)
    assert np.isnan(power.mean(0, 1))
    power.files = {"GPU": ()}
    # A ramp from 0 to 10 W, read unevenly, and readings outside the window.
    seconds = [0.0, 0.1, 0.2, 0.3, 0.9, 1.0]
    power.readings = [(-1, 99.0), *((t, 10 * t) for t in seconds), (2, 99.0)]
    assert power.mean(0, 1) == pytest.approx(5.0)
    with pytest.raises(collect.CollectError, match="0 readings"):
        power.mean(0, 1)


def test_a_killed_campaign_goes_on(collect, device, monkeypatch, capsys):
    windows = device / "campaign" / "windows.csv"
    process = start(device)
    deadline = time.monotonic() + 60
    while not windows.exists() or windows.read_bytes().count(b"\n") < 6:
        assert process.poll() is None, finished(process)
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    finished(process)
    kept = windows.read_bytes()
    kept = kept[: kept.rfind(b"\n") + 1]
    windows.write_bytes(kept + b"99,0,sam")  # as a power cut leaves it

    code, told = main(collect, device, monkeypatch, capsys)
    assert code == 0, told
    assert windows.read_bytes().startswith(kept)
    table = journal.read(windows, 14)
    assert table["window"].tolist() == list(range(len(table)))
    assert set(table["segment"]) == {0, 1}
    taken = table[table["kind"] != "reference"]
    assert not taken.duplicated(["kind", "sample"]).any()
    assert taken["kind"].value_counts().to_dict() == {"sample": 8, "repeat": 2}
    assert table["started_s"].is_monotonic_increasing
    assert len(json.loads((device / "campaign" / "campaign.json").read_text())["segments"]) == 2
    record(device / "campaign", device / "recorded", "mobilenet", STRUCTURE)


def test_a_finished_campaign_is_left_alone_and_another_refused(
    collect, device, monkeypatch, capsys
):
    latency = {"sensor": "latency", "sample-s": 0.02}
    assert main(collect, device, monkeypatch, capsys, **latency)[0] == 0
    before = (device / "campaign" / "windows.csv").read_bytes()
    code, told = main(collect, device, monkeypatch, capsys, **latency)
    assert (code, "everything is measured" in told) == (0, True)
    assert (device / "campaign" / "windows.csv").read_bytes() == before
    code, told = main(collect, device, monkeypatch, capsys, **latency, seed=1)
    assert code == 1
    assert told.count("\n") == 1
    assert "its seed is 0, not 1" in told
    code, told = main(collect, device, monkeypatch, capsys)
    assert code == 1
    assert "other columns" in told
    record(device / "campaign", device / "recorded", "mobilenet", STRUCTURE)
    assert Recorded("tx2", device / "recorded").metric == "latency_s"
    columns = pd.read_csv(device / "campaign" / "windows.csv").columns
    assert [*columns] == journal.columns("latency_s", 14)


def test_blind_repeats_follow_their_samples(collect):
    for seed in range(20):
        tasks = collect.plan(50, 0.1, seed)
        assert [tasks.count(("sample", number)) for number in range(50)] == [1] * 50
        repeats = [task for task in tasks if task[0] == "repeat"]
        assert len(set(repeats)) == 5
        assert all(tasks.index(("sample", n)) < tasks.index(("repeat", n)) for _, n in repeats)
    assert collect.plan(50, 0.1, 0) == collect.plan(50, 0.1, 0) != collect.plan(50, 0.1, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rails": "CPU"}, "--rails CPU: 0 rails fit, found are: VDD_SYS_GPU, VDD_SYS_SOC"),
        ({"rails": "VDD"}, "--rails VDD: 2 rails fit"),
        ({"network": "resnet"}, "--network resnet: not alexnet, erfnet, mobilenet or"),
        ({"network": "json:nothing"}, "--network json:nothing"),
        ({"structure": "absent.json"}, "absent.json"),
        ({"widths": "absent.csv"}, "absent.csv"),
        ({"iterations": 0}, "--iterations must be above 0"),
        ({"settle-s": 1}, "--sample-s must be above --settle-s"),
        ({"repeats": 2}, "--repeats must be a part"),
    ],
)
def test_errors_are_one_line(collect, device, monkeypatch, capsys, changes, message):
    code, told = main(collect, device, monkeypatch, capsys, **changes)
    assert code == 1
    assert message in told
    assert told.count("\n") == 1
    assert not (device / "campaign").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sample,width_0", "sample,width", "columns"),
        ("\n3,", "\n4,", "line 5"),
        ("\n3,", "\n3,-", "line 5"),
        ("\n3,", "\n3,9", "line 5"),
        ("\n3,", "\n3,x", "line 5"),
    ],
)
def test_widths_of_another_network_are_refused(collect, device, old, new, message):
    path = device / "widths.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(collect.CollectError, match=message):
        collect.read_widths(str(path), STRUCTURE.full_widths.tolist())


def test_a_dead_sensor_ends_the_campaign_with_what_was_taken(collect, device, monkeypatch, capsys):
    rail = device / "sys/bus/i2c/drivers/ina3221x/0-0040/iio:device3/in_power0_input"
    add = collect.Journal.add

    def die(journal, row):
        add(journal, row)
        if len(journal.rows) == 3:
            rail.unlink()

    monkeypatch.setattr(collect.Journal, "add", die)
    code, told = main(collect, device, monkeypatch, capsys)
    assert code == 1
    assert "in_power0_input: the sensor does not answer" in told.splitlines()[-1]
    assert len(journal.read(device / "campaign" / "windows.csv", 14)) == 3
