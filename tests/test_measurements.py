"""From a platform to tables: units in names, verification, and what measuring leaves to be seen."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ecc import metrics, platforms
from ecc.__main__ import main as campaign_main
from ecc.budgets import Budget, Range
from ecc.counts import Count
from ecc.energy import BilinearGraph, draw_widths, sample
from ecc.energy.bilinear import graph_features
from ecc.errors import UserError
from ecc.evidence import measurements, style
from ecc.measuring import drift
from ecc.networks import Network
from ecc.platforms import Deployed
from ecc.platforms.recorded import Recorded, record
from ecc.verification import verify, verify_limits

NETWORK = Network("mobilenet", 10, multiplier=0.25, size=(32, 32))
STRUCTURE = NETWORK.structure
DEPLOYED = Deployed(STRUCTURE)
PROTOCOL = {"warm_up_s": 1.0, "cross_check_s": 1.0, "reference_every": 10}
RUNS = pd.DataFrame(
    {
        "platform": ["gpu", "gpu", "cpu"],
        "budget_j": [0.5, 0.25, 0.01],
        "measured_energy_j": [0.49, None, 0.009],
        "metric": ["energy_j", "energy_j", "latency_s"],
    }
)


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> tuple[platforms.Platform, Path]:
    """A simulated platform, and the journal of 60 samples and a sweep of one group."""
    device = platforms.make("sim", {"kind": "simulated", "samples": 60, "protocol": PROTOCOL})
    journal = tmp_path_factory.mktemp("campaign")
    sweep = {"group": STRUCTURE.groups[-1].name, "step": 64}
    taken = sample(device, DEPLOYED, 60, seed=0, repeats=2, sweeps=[sweep], journal=journal)
    assert list(taken.sweep["width"]) == [64, 128, 192, 256]
    return device, journal


# Units


def test_latencies_have_names_of_their_own_in_tables():
    table = metrics.to_table(RUNS)
    assert list(table) == [
        *("platform", "budget_j", "budget_s", "measured_energy_j", "measured_latency_s")
    ]
    assert table["budget_s"].tolist()[2] == 0.01
    assert table["budget_j"].isna().tolist() == [False, False, True]
    pd.testing.assert_frame_equal(metrics.from_table(table)[list(RUNS)], RUNS)


def test_a_table_of_energies_alone_is_as_it_was():
    energies = RUNS[:2]
    assert list(metrics.to_table(energies)) == list(RUNS)[:-1]
    pd.testing.assert_frame_equal(metrics.from_table(metrics.to_table(energies)), energies)


@pytest.mark.parametrize("name", ["energy_j", "dense_energy_j", "budget_j"])
def test_names_in_files_are_told_apart_and_read_back(name):
    assert metrics.in_files(name, "energy_j") == name
    there = metrics.in_files(name, "latency_s")
    assert there.endswith("_s")
    assert metrics.in_code(there) == name
    assert metrics.from_file(metrics.to_file({name: 1, "seconds": 2}, "latency_s")) == {
        name: 1,
        "seconds": 2,
    }


def test_a_budget_is_in_the_unit_that_is_measured():
    assert Budget("seconds", 0.002).resolve(Range(0.004, 0.001, "latency_s")) == 0.002
    with pytest.raises(UserError, match="a budget in joules, where latency is measured: seconds"):
        Budget("joules", 0.002).resolve(Range(0.004, 0.001, "latency_s"))
    with pytest.raises(UserError, match="a budget in seconds, where energy is measured: joules"):
        Budget("seconds", 0.002).resolve(Range(0.004, 0.001))
    with pytest.raises(UserError, match=r"smallest reachable latency is 0\.001 s"):
        Budget("dense", 0.1).resolve(Range(0.004, 0.001, "latency_s"))


# Verification


def model():
    size = 1 + len(graph_features(STRUCTURE).names)
    return BilinearGraph(STRUCTURE, np.full(size, 1e-5))


def test_verification_measures_every_network_with_its_own_budget():
    device = platforms.get("jetson_tx2")
    widths = draw_widths(STRUCTURE, 3, seed=1)
    exact = device.energy(STRUCTURE, widths)
    rows = verify(device, DEPLOYED, model(), widths, exact * [0.9, 1.1, 1.1], repeats=50, seed=3)
    assert [row["within_budget"] for row in rows] == [False, True, True]
    for row, joules, own in zip(rows, exact, widths, strict=True):
        assert row["measured_energy_j"] == pytest.approx(joules, rel=0.01)
        assert row["modelled_energy_j"] == pytest.approx(float(model().energy(own)))
        off = row["modelled_energy_j"] / row["measured_energy_j"] - 1
        assert row["relative_model_error"] == pytest.approx(off)


def test_limits_are_measured_where_their_platform_is_and_counted_elsewhere(tmp_path):
    device = platforms.get("jetson_tx2")
    widths = draw_widths(STRUCTURE, 3, seed=1)
    exact, count = device.energy(STRUCTURE, widths), Count("macs", STRUCTURE)
    macs = float(count.energy(widths[2]))
    limited = [{"board": exact[0] * 0.9}, {}, {"board": exact[2] * 1.1, "macs": macs}]
    found = verify_limits(
        limited,
        {"board": model(), "macs": count},
        {"board": device},
        DEPLOYED,
        widths,
        repeats=50,
        seed=3,
        journal=tmp_path,
    )
    assert [sorted(each) for each in found] == [["board"], [], ["board", "macs"]]
    assert [found[i]["board"]["within_limit"] for i in (0, 2)] == [False, True]
    for row, own, joules in ((found[0], widths[0], exact[0]), (found[2], widths[2], exact[2])):
        assert row["board"]["measured"] == pytest.approx(joules, rel=0.01)
        assert row["board"]["modelled"] == pytest.approx(float(model().energy(own)))
    counted = {"limit": macs, "modelled": macs, "measured": None, "within_limit": True}
    assert found[2]["macs"] == counted


def test_what_a_recorded_campaign_lacks_is_not_verified(measured, tmp_path):
    _, journal = measured
    record(journal, tmp_path, "mobilenet", STRUCTURE)
    device = Recorded("recorded", tmp_path)
    known, unknown = draw_widths(STRUCTURE, 60, seed=0)[5], draw_widths(STRUCTURE, 1, seed=9)[0]
    rows = verify(device, DEPLOYED, model(), [unknown, known], [1.0, 1.0], repeats=2, seed=0)
    assert rows[0]["measured_energy_j"] is rows[0]["within_budget"] is None
    assert rows[0]["modelled_energy_j"] > 0
    assert rows[1]["measured_energy_j"] > 0
    assert rows[1]["within_budget"] is True


# Platforms of the configuration


def test_settings_make_platforms_and_wrong_ones_are_named():
    names = {"eyeriss": "eyeriss", "nvml": "gpu", "latency": "cpu"}
    for kind, name in names.items():
        assert platforms.make(name, {"kind": kind}).metric in metrics.METRICS
    with pytest.raises(UserError, match="unknown platform 'tpu'"):
        platforms.make("mine", {"kind": "tpu"})
    with pytest.raises(UserError, match=r"platform sim: .*'perid_s'"):
        platforms.make("sim", {"kind": "simulated", "perid_s": 0.1})
    with pytest.raises(UserError, match=r"protocol: .*'settle'"):
        platforms.make("gpu", {"kind": "nvml", "protocol": {"settle": 0.1}})
    with pytest.raises(UserError, match="simulated device 'tpu' is unknown"):
        platforms.make("sim", {"kind": "simulated", "device": "tpu"})


def test_a_network_that_cannot_be_built_is_refused_by_a_sensor(tmp_path):
    device = platforms.make("cpu", {"kind": "latency"})
    with pytest.raises(UserError, match="runs the network: give its settings"):
        device.measure(DEPLOYED, [STRUCTURE.full_widths], seed=0, journal=tmp_path)


def test_a_campaign_without_the_workflow_ends_in_time_and_goes_on(tmp_path, capsys):
    network = "{architecture: mobilenet, classes: 10, multiplier: 0.25, size: [32, 32]}"
    told = ["--platform", "{kind: simulated}", "--network", network, "--samples", "30"]
    folder = str(tmp_path / "campaign")
    assert campaign_main([folder, *told, "--seconds", "60"]) == 0
    first = int(capsys.readouterr().out.split()[0])
    assert 0 < first < 40
    assert campaign_main([folder, *told]) == 0
    assert capsys.readouterr().out.startswith("40 of 40 rows")
    assert record(folder, tmp_path / "device", "mobilenet", STRUCTURE).exists()
    assert len(Recorded("again", tmp_path / "device").sampled(STRUCTURE)) == 30
    assert campaign_main([folder, *told[2:], "--platform", "{kind: eyeriss}"]) == 1
    assert "has no sensor" in capsys.readouterr().err


# What is seen


def test_repeatability_is_told_for_every_campaign(measured):
    device, journal = measured
    campaign = device.campaign(STRUCTURE, journal)
    told = drift.repeatability(campaign.windows, campaign.provenance)
    table = measurements.repeatability({("sim", "mobilenet"): told})
    assert list(table) == measurements.REPEATABILITY
    assert table["samples"][0] == 60 + 2 + 2 + 8
    assert 0 < table["reference_spread"][0] < 0.05
    assert measurements.repeatability({}).empty


def test_references_do_not_correct_themselves(measured):
    device, journal = measured
    windows = device.campaign(STRUCTURE, journal).windows
    odd = windows.copy()
    row = odd.index[odd["kind"] == "reference"][6]
    odd.loc[row, "raw_energy_j"] *= 1.05
    before, after = (drift.references(table)["corrected"].to_numpy() for table in (windows, odd))
    assert after[6] / before[6] == pytest.approx(1.05, abs=1e-9)


@pytest.mark.parametrize("count", [1, 3])
def test_figures_of_measurements_are_drawn(measured, tmp_path, count):
    device, journal = measured
    windows = device.campaign(STRUCTURE, journal).windows
    titles = {f"sim{index}": "simulated GTX 1080 Ti" for index in range(count)}
    series = {(name, "mobilenet"): drift.references(windows) for name in titles}
    steps = pd.DataFrame({"group": "fc", "width": range(1, 65), "full_width": 64})
    energies = steps.assign(energy_j=np.ceil(steps["width"] / 8) * 1e-3, metric="energy_j")
    sweeps = {(name, "mobilenet"): energies for name in titles}
    for figure in (measurements.drift(series, titles), measurements.staircase(sweeps, titles)):
        assert len([axes for axes in figure.axes if axes.lines]) == count
        style.save(figure, tmp_path / "figure.png")
        assert np.asarray(Image.open(tmp_path / "figure.png")).std() > 5
