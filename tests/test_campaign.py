"""Campaigns lose nothing when they die, take out what drifts, and say how well they repeat."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecc.errors import UserError
from ecc.measuring import campaign, journal
from ecc.measuring.drift import corrected, repeatability
from ecc.measuring.interface import Rig, SensorError, Settings
from ecc.measuring.simulated import Simulation, by_macs, rig
from ecc.structure import Group, Operation, Structure

ROOT = Path(__file__).parents[1]
COST = by_macs(mac_s=1e-12)
QUIET = Simulation(period_s=0.02, lag_s=0.0, drift=0.0, load_s=0.01)
QUICK = Settings(
    sample_s=0.15,
    settle_s=0.04,
    poll_s=0.004,
    warm_up_s=0.1,
    period_check_s=0.1,
    cross_check_s=0.1,
    idle_s=0.1,
    reference_every=3,
    baseline=2,
    repeats=0.25,
)


def operation(name, reads, writes, fixed, size):
    kernel = 3 if size > 1 else 1
    pairs = [(value, value) for value in (kernel, 1, size, size)]
    return Operation(name, "conv", reads, writes, *fixed, 1, *pairs, 1, True)


def structure(*widths):
    last = len(widths)
    groups = tuple(Group(f"group{index}", width) for index, width in enumerate(widths))
    inner = (operation(f"conv{k}", (k - 1,), k, (0, 0), 64) for k in range(1, last))
    ends = operation("first", (), 0, (3, 0), 64), operation("last", (last - 1,), None, (0, 9), 1)
    return Structure(groups, (ends[0], *inner, ends[1]), 3, 9)


TINY = structure(64, 48)


@dataclass(frozen=True)
class Net:
    structure: Structure = TINY
    size: tuple[int, int] = (64, 64)

    def build(self, widths):
        raise AssertionError("simulated devices build nothing")


@dataclass
class Watched:
    """A rig that counts and, at its n-th load, prepare or reading, does as told."""

    simulation: Simulation = QUIET
    cost: object = COST
    seed: int = 0
    at: dict = field(default_factory=dict)  # {"load": {n: what is called}}
    calls: Counter = field(default_factory=Counter)
    asked: list = field(default_factory=list)
    closed: int = 0
    name: str = ""
    metric: str = "energy_j"
    run_by: dict = field(default_factory=lambda: {"precision": "fp32"})

    def __call__(self):
        assert not self.calls, "opened twice"
        made = rig(self.simulation, self.cost, self.seed)
        return Rig(_Part(self, made.meter), _Part(self, made.runner), made.clock)

    def heard(self, call, arguments):
        if call == "prepare":
            self.asked.append(arguments)
        if call == "close":
            self.closed += 1
        if call in ("load", "prepare", "read"):
            self.calls[call] += 1
            self.at.get(call, {}).get(self.calls[call], lambda: None)()


class _Part:
    def __init__(self, watch, part):
        self.watch, self.part = watch, part

    def __getattr__(self, call):
        if call in ("name", "metric") and getattr(self.watch, call):
            return getattr(self.watch, call)
        value = getattr(self.part, call)
        if call == "provenance" and hasattr(self.part, "prepare"):
            return lambda: {**value(), **self.watch.run_by}
        if call not in ("load", "prepare", "read", "close"):
            return value

        def called(*arguments):
            self.watch.heard(call, arguments)
            return value(*arguments)

        return called


def never():
    raise AssertionError("the sensor was opened")


def die(error=KeyboardInterrupt):
    def raising():
        raise error

    return raising


def draw(count, seed=0):
    return np.random.default_rng(seed).integers(1, [64, 48], size=(count, 2), endpoint=True)


def truth(widths):
    return np.array([COST(Net(), row)[0] for row in widths])


def run(opened, widths, folder, *, network=None, settings=QUICK, seed=5, **options):
    return campaign.run(
        opened, network or Net(), widths, settings=settings, seed=seed, folder=folder, **options
    )


def windows_in(folder):
    return journal.read(folder / "windows.csv", 2)


def counted(windows):
    """How often each (kind, widths) was taken, references apart."""
    rows = windows[windows["kind"] != "reference"]
    return Counter(rows[["kind", "width_0", "width_1"]].itertuples(index=False, name=None))


@pytest.fixture(scope="module", autouse=True)
def _known_versions():
    """To look them up takes longer than a simulated campaign."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(campaign.provenance, "versions", lambda: {"python": "3"})
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A campaign that nothing interrupted: widths, folder, watched rig, frame."""
    folder, widths, opened = tmp_path_factory.mktemp("whole"), draw(8), Watched()
    return widths, folder, opened, run(opened, widths, folder)


def test_result_is_in_the_order_asked_for_and_samples_are_not(finished):
    widths, folder, opened, frame = finished
    assert list(frame.columns) == ["sample", "width_0", "width_1", "energy_j"]
    assert frame["sample"].tolist() == list(range(len(widths)))
    np.testing.assert_array_equal(frame[["width_0", "width_1"]], widths)
    np.testing.assert_allclose(frame["energy_j"] / truth(widths), 1, atol=0.05)
    windows = windows_in(folder)
    order = windows.query("kind == 'sample'")["sample"].tolist()
    assert sorted(order) == list(range(len(widths))) != order
    assert list(windows.columns) == journal.columns("energy_j", 2)
    assert opened.closed == 2  # the meter and the runner


def test_another_seed_gives_another_order(finished, tmp_path):
    widths, folder, _, _ = finished
    run(Watched(), widths, tmp_path, seed=6)
    orders = [windows_in(path).query("kind == 'sample'")["sample"] for path in (folder, tmp_path)]
    assert orders[0].tolist() != orders[1].tolist()


def test_references_come_first_after_every_few_samples_and_last(finished):
    kinds = windows_in(finished[1])["kind"].map(lambda kind: "r" if kind == "reference" else "s")
    assert "".join(kinds) == "rr" + "sssr" * 3 + "sr"


def test_reference_is_half_of_every_full_width(finished):
    rows = windows_in(finished[1]).query("kind == 'reference'")
    assert (rows[["width_0", "width_1", "sample"]] == [32, 24, -1]).all(axis=None)


def test_repeats_come_after_their_samples_and_nothing_tells_them_apart(tmp_path):
    widths, opened = draw(40), Watched()
    run(opened, widths, tmp_path)
    windows = windows_in(tmp_path)
    repeats = windows.query("kind == 'repeat'").set_index("sample")
    samples = windows.query("kind == 'sample'").set_index("sample")
    assert len(repeats) == 10 == repeats.index.nunique()
    between = repeats["window"] - samples.loc[repeats.index, "window"]
    assert between.min() > 0
    assert between.nunique() > 5
    # The device hears the network and the widths, once a window and once for the checks.
    assert all(asked[0] == Net() and len(asked) == 2 for asked in opened.asked)
    heard = [tuple(asked[1].tolist()) for asked in opened.asked]
    taken = windows[["width_0", "width_1"]].itertuples(index=False, name=None)
    assert heard == [(32, 24), *taken]
    assert {(type(asked[1]), asked[1].dtype) for asked in opened.asked} == {
        (np.ndarray, np.dtype(np.int64))
    }


def test_next_model_is_made_while_one_runs(tmp_path):
    made = [threading.Event() for _ in range(40)]
    waited = []
    opened = Watched()
    opened.at = {
        "prepare": {n: made[n].set for n in range(1, 40)},
        # The first load is for the checks; nothing is made after the last window.
        "load": {n: lambda n=n: waited.append(made[n + 1].wait(5)) for n in range(2, 15)},
    }
    run(opened, draw(8), tmp_path)
    assert len(waited) == 13
    assert all(waited)


def test_drift_is_taken_out(tmp_path):
    widths = draw(200)
    settings = Settings(warm_up_s=1, period_check_s=1, cross_check_s=1, poll_s=0.005)
    drifting = Simulation(drift=0.05, drift_s=400.0)
    frame = run(lambda: rig(drifting, COST), widths, tmp_path, settings=settings)
    ratio = frame["energy_j"].to_numpy() / truth(widths)
    windows = windows_in(tmp_path)
    samples = windows[windows["kind"] == "sample"]
    raw = samples["raw_energy_j"].to_numpy() / truth(widths)[samples["sample"]]
    assert raw.std() > 0.011
    assert ratio.std() / ratio.mean() < 0.006
    known = json.loads((tmp_path / "campaign.json").read_text())
    told = repeatability(windows, known)
    assert told["samples"] == 200
    assert told["repeats"] == 4
    assert 0.001 < told["repeatability"] < 0.010
    assert told["reference_spread"] > 0.012 > 1.5 * told["reference_spread_corrected"]
    assert told["drift"] == pytest.approx(0.06, abs=0.02)
    assert told["idle_power_w"] == [pytest.approx(60, rel=0.02)]
    assert told["period_s"] == [pytest.approx(0.1, rel=1e-2)]
    assert 2500 < told["samples_per_hour"] < 3600


def in_segments(gains, *, every=10, count=200, noise=0.0, seed=0, closing=True):
    """Windows of segments, in each of which the gain is a function of the seconds."""
    random = np.random.default_rng(seed)
    rows = []
    for segment, gain in enumerate(gains):
        kinds = ["reference"] * 5 + (["sample"] * every + ["reference"]) * (count // every)
        for index, kind in enumerate(kinds if closing else kinds[:-1]):
            value = gain(1.35 * index) * (1 + noise * random.standard_normal())
            rows.append((len(rows), segment, kind, value, 3600 * segment + 1.35 * index))
    names = ["window", "segment", "kind", "raw_energy_j", "started_s"]
    return pd.DataFrame(rows, columns=names)


def warming(seconds):
    return 1 + 0.05 * (1 - np.exp(-seconds / 60))


def test_curve_follows_a_device_that_warms_up():
    windows = in_segments([warming], every=20, count=400)
    whole = corrected(windows)["energy_j"]
    raw, left = windows["raw_energy_j"], whole / whole.iloc[:5].mean()
    assert raw.max() / raw.min() > 1.045
    assert np.abs(left - 1).max() < 0.006
    assert np.abs(left - 1).mean() < 0.0005


def test_curve_adds_less_noise_than_lines_between_references():
    errors = {"curve": [], "lines": []}
    for seed in range(5):
        windows = in_segments([lambda _: 1.0], every=20, count=400, noise=0.005, seed=seed)
        samples = windows["kind"] == "sample"
        references = windows[~samples]
        lines = np.interp(windows["started_s"], references["started_s"], references["raw_energy_j"])
        errors["curve"].append(corrected(windows)["energy_j"][samples].std())
        errors["lines"].append((windows["raw_energy_j"] / lines)[samples].std())
    assert np.mean(errors["curve"]) < 0.94 * np.mean(errors["lines"])


def test_segments_are_brought_to_the_first_references():
    whole = corrected(in_segments([lambda _: 2.0, lambda _: 3.0, lambda s: 1 + s / 1e4]))
    np.testing.assert_allclose(whole["energy_j"], 2.0, rtol=1e-4)


def test_segment_without_its_last_reference_keeps_the_one_before():
    windows = in_segments([lambda s: 1 + s / 1e3], every=10, count=50, closing=False)
    last = windows.query("kind == 'reference'").iloc[-1]
    curve = windows["raw_energy_j"] / corrected(windows)["energy_j"]
    after = curve[windows["window"] > last["window"]]
    assert len(after) == 10
    np.testing.assert_allclose(after, curve[last["window"]], rtol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_references_are_enough(count):
    windows = in_segments([lambda _: 1.7], every=4, count=8).iloc[5 - count : 10]
    np.testing.assert_allclose(corrected(windows)["energy_j"], 1.7, rtol=1e-9)


def test_segment_without_a_reference_is_named():
    windows = in_segments([warming, warming])
    windows = windows[(windows["segment"] == 0) | (windows["kind"] == "sample")]
    with pytest.raises(UserError, match="segment 1"):
        corrected(windows)


def test_repeatability_is_the_noise_of_one_window(finished):
    folder = finished[1]
    known = json.loads((folder / "campaign.json").read_text())
    one = windows_in(folder).query("kind == 'sample'").iloc[:1]
    random, noise = np.random.default_rng(0), 0.01
    kinds = ["reference"] * 5 + ["sample", "repeat"] * 500
    windows = pd.concat([one] * len(kinds), ignore_index=True)
    numbers = np.arange(len(kinds))
    windows = windows.assign(kind=kinds, window=numbers, started_s=1.0 * numbers)
    windows["width_0"] = (numbers - 5) // 2
    windows["raw_energy_j"] = 1 + noise * random.standard_normal(len(kinds))
    windows.loc[:4, "raw_energy_j"] = 1.0
    told = repeatability(windows, known)
    assert told["repeats"] == 500
    assert told["repeatability"] == pytest.approx(noise, rel=0.1)
    few = repeatability(windows.iloc[:9], known)
    assert few["repeats"] == 2
    assert few["repeatability"] is None


def test_what_cannot_be_told_is_none_and_all_is_json(finished):
    _, folder, _, _ = finished
    known = json.loads((folder / "campaign.json").read_text())
    told = repeatability(windows_in(folder).assign(clock_mhz=np.nan), known)
    assert told["repeats"] == 2
    assert told["repeatability"] is told["clock_mhz"] is told["driver"] is None
    json.dumps(told, allow_nan=False)
    json.dumps(known, allow_nan=False)
    assert repeatability(windows_in(folder).iloc[:0], known)["samples"] == 0


def test_finished_campaign_opens_nothing(finished):
    widths, folder, _, frame = finished
    before = {path: path.read_bytes() for path in folder.iterdir()}
    pd.testing.assert_frame_equal(run(never, widths, folder), frame)
    fewer = run(never, widths[[6, 2]], folder)
    np.testing.assert_array_equal(fewer["energy_j"], frame["energy_j"][[6, 2]])
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_nothing_asked_is_nothing_done(tmp_path):
    assert run(never, draw(0), tmp_path / "new").empty
    assert not (tmp_path / "new").exists()


def whole_after(folder, widths, finished):
    """Resumes; nothing may be lost, and nothing taken twice."""
    before = windows_in(folder)
    frame = run(Watched(seed=1), widths, folder)
    windows = windows_in(folder)
    assert counted(windows) == counted(windows_in(finished[1]))
    if len(before):
        pd.testing.assert_frame_equal(windows.iloc[: len(before)], before)
    assert frame["sample"].tolist() == list(range(len(widths)))
    np.testing.assert_allclose(frame["energy_j"] / truth(widths), 1, atol=0.05)
    assert windows["window"].tolist() == list(range(len(windows)))
    known = json.loads((folder / "campaign.json").read_text())
    samples = windows[windows["kind"] == "sample"].groupby("segment").size()
    told = {number: entry["samples"] for number, entry in enumerate(known["segments"])}
    assert {number: count for number, count in told.items() if count} == samples.to_dict()


def test_killed_before_any_window_nothing_is_lost(finished, tmp_path):
    widths, _, opened, _ = finished
    loads = opened.calls["load"]
    assert loads == 1 + 2 + 13 + 1
    for load in range(1, loads + 1):
        folder = tmp_path / str(load)
        with pytest.raises(KeyboardInterrupt):
            run(Watched(at={"load": {load: die()}}), widths, folder)
        assert len(windows_in(folder)) == max(0, load - 2)
        whole_after(folder, widths, finished)


def test_killed_at_any_reading_nothing_is_lost(finished, tmp_path):
    widths, _, opened, _ = finished
    for read in np.linspace(1, opened.calls["read"], 9).astype(int).tolist():
        folder = tmp_path / str(read)
        with pytest.raises(KeyboardInterrupt):
            run(Watched(at={"read": {read: die()}}), widths, folder)
        whole_after(folder, widths, finished)


def test_line_torn_at_any_byte_is_cut_off(finished, tmp_path):
    data = (finished[1] / "windows.csv").read_bytes()
    whole = windows_in(finished[1])
    begin = data.rfind(b"\n", 0, len(data) - 1) + 1
    path = tmp_path / "windows.csv"
    for size in range(begin, len(data)):
        path.write_bytes(data[:size])
        pd.testing.assert_frame_equal(windows_in(tmp_path), whole.iloc[:-1])
    header = data.index(b"\n") + 1
    for size in (*range(begin, len(data), 20), *range(0, header, 20), header - 1, header):
        path.write_bytes(data[:size])
        with journal.Journal(tmp_path, 2) as kept:
            kept.begin("energy_j")
        assert path.read_bytes() == data[: begin if size >= begin else header]


def test_campaign_goes_on_after_any_torn_line(finished, tmp_path):
    """The first is the header: a process can die between any two writes."""
    widths, source, _, _ = finished
    lines = (source / "windows.csv").read_bytes().splitlines(keepends=True)
    for number in (*range(0, len(lines), 3), len(lines) - 1):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "windows.csv").write_bytes(b"".join(lines[:number]) + lines[number][:-9])
        (folder / "campaign.json").write_bytes((source / "campaign.json").read_bytes())
        whole_after(folder, widths, finished)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "windows.csv").touch()
    whole_after(empty, widths, finished)


def test_process_killed_outright_leaves_a_good_journal_and_no_lock(finished, tmp_path):
    widths = finished[0]
    code = (
        "import os, signal, sys; from pathlib import Path; sys.path.insert(0, 'tests');"
        "import test_campaign as t;"
        "kill = lambda: os.kill(os.getpid(), signal.SIGKILL);"
        "t.run(t.Watched(at={'read': {int(sys.argv[2]): kill}}), t.draw(8), Path(sys.argv[1]))"
    )
    at = str(finished[2].calls["read"] // 2)
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), at],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    assert 2 < len(windows_in(tmp_path)) < 16
    whole_after(tmp_path, widths, finished)


def test_second_process_in_the_folder_is_refused(finished, tmp_path):
    widths, refused = finished[0], []

    def also():
        with pytest.raises(UserError, match="that is running: wait for its end") as error:
            run(never, widths, tmp_path)
        refused.append(error)

    run(Watched(at={"load": {6: also}}), widths, tmp_path)
    assert len(refused) == 1
    assert counted(windows_in(tmp_path)) == counted(windows_in(finished[1]))


def test_more_rows_asked_for_later(finished, tmp_path):
    widths = np.concatenate([draw(8), draw(8)[:1], draw(12, seed=1), [[64, 48]] * 3])
    first = run(Watched(), widths[:8], tmp_path)
    before = windows_in(tmp_path)
    frame = run(Watched(seed=1), widths, tmp_path)
    windows = windows_in(tmp_path)
    samples = windows.query("kind == 'sample'")
    assert sorted(samples["sample"]) == list(range(len(widths)))
    assert len(windows.query("kind == 'repeat'")) == 6
    pd.testing.assert_frame_equal(windows.iloc[: len(before)], before)
    np.testing.assert_allclose(frame["energy_j"][:8], first["energy_j"], rtol=1e-12)
    assert windows.query("segment == 1")["kind"].tolist()[:2] == ["reference", "sample"]
    moved = np.roll(widths, 5, axis=0)  # what was asked for in another order is there as well
    again = run(never, moved, tmp_path)
    np.testing.assert_allclose(again["energy_j"] / truth(moved), 1, atol=0.05)


def test_rows_that_repeat_and_move_keep_their_windows(tmp_path):
    same = np.array([[9, 9]] * 5)
    first = run(Watched(), same[:3], tmp_path)
    asked = np.concatenate([draw(4), same])
    frame = run(Watched(seed=1), asked, tmp_path)
    samples = windows_in(tmp_path).query("kind == 'sample'")
    assert Counter(samples["segment"]) == {0: 3, 1: 6}
    assert frame["energy_j"].nunique() == len(asked)
    assert set(first["energy_j"]) < set(frame["energy_j"])


def test_rows_that_repeat_have_windows_of_their_own(tmp_path):
    widths = np.array([[64, 48]] * 6 + [[1, 1]] * 6)
    frame = run(Watched(), widths, tmp_path)
    assert frame["energy_j"].nunique() == len(widths)
    samples = windows_in(tmp_path).query("kind == 'sample'").set_index("sample")
    ratio = samples["raw_energy_j"].sort_index() / frame["energy_j"]
    assert np.abs(ratio - 1).max() < 0.05


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"network": Net(structure(48, 64))}, "fingerprint"),
        ({"network": Net(structure(64, 48, 8))}, "3 groups"),
        ({"opened": Watched(replace(QUIET, batch=2))}, "batch 1, asked for is 2"),
        ({"opened": Watched(name="another sensor")}, "sensor"),
        ({"opened": Watched(metric="latency_s")}, "metric"),
        ({"opened": Watched(run_by={"precision": "fp16"})}, '"fp32", asked for is "fp16"'),
        ({"about": {"platform": "another"}}, "about"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_journal_of_something_else_is_refused(finished, tmp_path, changes, reason):
    for name in ("windows.csv", "campaign.json"):
        (tmp_path / name).write_bytes((finished[1] / name).read_bytes())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    network = changes.get("network", Net())
    widths = np.ones((9, len(network.structure.groups)), dtype=int)
    others = {"opened": Watched(), "network": network, **changes}
    with pytest.raises(UserError, match=f"{reason}.*delete or move") as error:
        run(others.pop("opened"), widths, tmp_path, **others)
    assert "\n" not in str(error.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_windows_without_their_provenance_are_refused(finished, tmp_path):
    (tmp_path / "windows.csv").write_bytes((finished[1] / "windows.csv").read_bytes())
    with pytest.raises(UserError, match=r"campaign\.json is missing"):
        run(never, finished[0], tmp_path)


@pytest.mark.parametrize(
    ("old", "new"), [(",sample,", ",simple,"), ("\n3,", "\n,"), (",0,", ",0,0,")]
)
def test_damaged_line_is_named(finished, tmp_path, old, new):
    header, rest = (finished[1] / "windows.csv").read_text().split("\n", 1)
    (tmp_path / "windows.csv").write_text("\n".join([header, rest.replace(old, new, 1)]))
    with pytest.raises(UserError, match=r"windows\.csv.*line"):
        windows_in(tmp_path)


def test_sensor_that_dies_loses_no_sample(finished, tmp_path):
    widths, _, opened, _ = finished
    dying = replace(QUIET, fault="dead", fault_read=opened.calls["read"] * 2 // 3)
    watched = Watched(dying)
    with pytest.raises(SensorError, match=r"does not answer.* samples are kept") as error:
        run(watched, widths, tmp_path)
    kept = int((windows_in(tmp_path)["kind"] == "sample").sum())
    assert kept > 2
    assert f"; {kept} samples are kept in {tmp_path}" in str(error.value)
    assert "\n" not in str(error.value)
    assert watched.closed == 2  # the meter and the runner
    whole_after(tmp_path, widths, finished)


def test_throttled_windows_are_measured_again(tmp_path):
    # Hot for a second in five: once in a while a window meets it, and after a pause it is gone.
    hot = replace(QUIET, throttle_every_s=7.0, throttle_s=1.0)
    widths = draw(30)
    frame = run(Watched(hot), widths, tmp_path, settings=replace(QUICK, attempts=8))
    windows = windows_in(tmp_path)
    again = windows[windows["attempts"] > 1]
    assert 0 < len(again) < len(windows)
    assert (again["throttled"] == "heat").all()
    assert (windows["throttled"][windows["attempts"] == 1] == "").all()
    assert (windows["temperature_c"] == 60).all()
    np.testing.assert_allclose(frame["energy_j"] / truth(widths), 1, atol=0.05)
    known = json.loads((tmp_path / "campaign.json").read_text())
    assert repeatability(windows, known)["throttled_windows"] == (windows["attempts"] - 1).sum()


def test_device_that_always_throttles_is_refused(tmp_path):
    hot = replace(QUIET, throttle_every_s=1e6, throttle_s=1e6 - 1e-3)
    with pytest.raises(SensorError, match=r"throttles \(heat\): cool it.*\(3 windows tried\)"):
        run(Watched(hot), draw(4), tmp_path)
    assert windows_in(tmp_path).empty


def test_reference_that_jumps_is_measured_again_and_refused_at_last(tmp_path, monkeypatch):
    widths, measure, tried = draw(12), campaign.window.measure, Counter()

    def jumping(once):
        """The sensor tells twice the energy from the 6th window on, or in that alone."""

        def measured(*arguments, **options):
            tried[once] += 1
            window = measure(*arguments, **options)
            above = tried[once] == 6 if once else tried[once] >= 6
            return replace(window, raw_energy_j=2 * window.raw_energy_j) if above else window

        return measured

    for once in (True, False):
        folder = tmp_path / str(once)
        monkeypatch.setattr(campaign.window, "measure", jumping(once))
        if once:
            run(Watched(), widths, folder)
        else:
            with pytest.raises(SensorError, match=r"takes [+](9|10)\d% of what.*set its clocks"):
                run(Watched(), widths, folder)
        windows = windows_in(folder)
        references = windows.query("kind == 'reference'")
        assert references["raw_energy_j"].max() < 1.1 * references["raw_energy_j"].min()
        assert windows["attempts"].tolist()[5:6] == ([2] if once else [])
        assert (windows["throttled"] == "").all()


def test_windows_before_a_refused_reference_are_measured_again(tmp_path, monkeypatch):
    """The clocks change in the midst of the samples between two references."""
    widths, measure, count = draw(12), campaign.window.measure, Counter()

    def slower(*arguments, **options):
        count["windows"] += 1
        window = measure(*arguments, **options)
        doubled = replace(window, raw_energy_j=2 * window.raw_energy_j)
        return doubled if count["windows"] > 7 else window

    with monkeypatch.context() as patched:
        patched.setattr(campaign.window, "measure", slower)
        with pytest.raises(SensorError, match="reference network takes"):
            run(Watched(), widths, tmp_path)
    assert windows_in(tmp_path)["kind"].iloc[-1] == "reference"
    frame = run(Watched(seed=1), widths, tmp_path)
    np.testing.assert_allclose(frame["energy_j"] / truth(widths), 1, atol=0.05)


def test_sensor_that_repeats_itself_is_refused(tmp_path, monkeypatch):
    widths, measure, count = draw(12), campaign.window.measure, Counter()

    def stuck(*arguments, **options):
        count["windows"] += 1
        window = measure(*arguments, **options)
        return replace(window, power_w=123.0) if count["windows"] > 6 else window

    with monkeypatch.context() as patched:
        patched.setattr(campaign.window, "measure", stuck)
        with pytest.raises(SensorError, match=r"repeats itself: 3 windows.*power_w 123,"):
            run(Watched(), widths, tmp_path)
    assert len(windows_in(tmp_path)) == 5  # the sensor may have stopped in the midst of the 6th
    frame = run(Watched(seed=1), widths, tmp_path)
    np.testing.assert_allclose(frame["energy_j"] / truth(widths), 1, atol=0.05)


class FrozenPower:
    """A sensor of power whose register holds 200 W from a moment on, integrated as they are."""

    stepped, settle_s = False, 0.0

    def __init__(self, made, frozen_s):
        self.made, self.frozen_s, self.total, self.last = made, frozen_s, 0.0, None

    def __getattr__(self, name):
        return getattr(self.made.meter, name)

    def read(self):
        truth = self.made.meter.read()
        step_j = truth.total - self.last.total if self.last else 0.0
        if self.last and truth.seconds > self.frozen_s:
            step_j = 200.0 * (truth.seconds - self.last.seconds)
        self.last, self.total = truth, self.total + step_j
        return replace(truth, total=self.total)


@pytest.mark.parametrize(
    ("frozen_s", "says"),
    [
        (0.0, "repeats itself: 3 windows"),
        (1.2, "reference network takes"),  # in the last sample before a reference
        (1.7, "repeats itself: 3 windows"),
    ],
)
def test_power_that_froze_is_refused_with_the_window_in_which_it_did(tmp_path, frozen_s, says):
    widths = draw(12)

    def opened(frozen_s=frozen_s):
        made = rig(replace(QUIET, sensor="power"), COST, 0)
        return replace(made, meter=FrozenPower(made, frozen_s))

    with pytest.raises(SensorError, match=says):
        run(opened, widths, tmp_path)
    kept = windows_in(tmp_path)
    assert kept.empty == (frozen_s == 0.0)
    if not kept.empty:
        assert (kept["power_w"] != pytest.approx(200.0, rel=0.01)).all()
    frame = run(lambda: opened(np.inf), widths, tmp_path)
    np.testing.assert_allclose(frame["energy_j"] / truth(widths), 1, atol=0.05)


def test_stops_after_some_seconds_with_a_reference(tmp_path):
    widths = draw(30)
    frame = run(Watched(), widths, tmp_path, stop_after_s=4.0)
    windows = windows_in(tmp_path)
    assert windows["kind"].iloc[-1] == "reference"
    assert 5 < len(frame) < 25
    assert frame["sample"].is_monotonic_increasing
    np.testing.assert_array_equal(frame[["width_0", "width_1"]], widths[frame["sample"]])
    assert windows["started_s"].iloc[-1] < 4.5
    one_more = run(Watched(seed=1), widths, tmp_path, stop_after_s=0.0)
    assert len(one_more) == len(frame) + 1
    assert len(run(Watched(seed=2), widths, tmp_path)) == len(widths)


@pytest.mark.parametrize(
    ("settings", "simulation", "reason"),
    [
        (replace(QUICK, sample_s=2.0), replace(QUIET, sensor="averaged"), "needs at least 1.02 s"),
        (replace(QUICK, settle_s=0.15), QUIET, "sample_s is 0.15: it must be above settle_s"),
        (replace(QUICK, repeats=1.5), QUIET, "repeats is 1.5"),
        (replace(QUICK, reference_every=0), QUIET, "reference_every is 0"),
        (replace(QUICK, poll_s=0.0), QUIET, "poll_s is 0.0"),
    ],
)
def test_impossible_settings_measure_nothing(tmp_path, settings, simulation, reason):
    watched = Watched(simulation)
    with pytest.raises(UserError, match=reason) as error:
        run(watched, draw(3), tmp_path / "new", settings=settings)
    assert "\n" not in str(error.value)
    assert not watched.calls
    assert not (tmp_path / "new" / "campaign.json").exists()


def test_latency_has_no_watts(tmp_path, caplog):
    caplog.set_level("INFO")
    widths = draw(10)
    frame = run(Watched(metric="latency_s"), widths, tmp_path)
    assert list(frame.columns) == ["sample", "width_0", "width_1", "latency_s"]
    seconds = [COST(Net(), row)[1] for row in widths]
    np.testing.assert_allclose(frame["latency_s"], seconds, rtol=1e-6)
    windows = windows_in(tmp_path)
    assert list(windows.columns) == journal.columns("latency_s", 2)
    assert windows[["power_w", "idle_power_w"]].isna().all(axis=None)
    assert "nan" not in caplog.text
    known = json.loads((tmp_path / "campaign.json").read_text())
    assert known["segments"][0]["idle_power_w"] is None
    assert repeatability(windows, known)["metric"] == "latency_s"


def test_counter_that_disagrees_with_its_power_is_named(tmp_path, caplog):
    caplog.set_level("INFO")
    run(Watched(replace(QUIET, gain=1.3)), draw(3), tmp_path)
    warned = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == 1
    assert float(warned[0].split()[3]) == pytest.approx(30, abs=5)
    said = "\n".join(record.message for record in caplog.records)
    assert "3 samples in" in said
    assert "idle power 7" in said
    known = json.loads((tmp_path / "campaign.json").read_text())
    assert known["segments"][0]["cross_check"] == pytest.approx(0.3, abs=0.05)
    assert known["settings"]["sample_s"] == QUICK.sample_s
    assert known["fingerprint"] == Net().structure.fingerprint
