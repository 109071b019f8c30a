"""Recorded campaigns replay what was measured, to the last digit, and refuse what is damaged."""

import gzip
import json
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from ecc import energy, platforms
from ecc.errors import UserError
from ecc.measuring import campaign, journal
from ecc.measuring.drift import corrected, repeatability
from ecc.measuring.interface import Settings
from ecc.measuring.simulated import Simulation, by_macs, rig
from ecc.platforms import Deployed
from ecc.platforms.recorded import Recorded, found, record, write_widths
from ecc.structure import Group, Operation, Structure

SETTINGS = Settings(
    sample_s=0.2,
    settle_s=0.05,
    warm_up_s=0.1,
    period_check_s=0.1,
    cross_check_s=0.1,
    idle_s=0.1,
    reference_every=20,
    baseline=3,
    repeats=0.05,
)
SIMULATION = Simulation(period_s=0.02, lag_s=0.0, load_s=0.01)
REPEATS = 4  # of the dense and the smallest network


def operation(name, reads, writes, fixed, size):
    pairs = [(value, value) for value in (3, 1, size, size)]
    return Operation(name, "conv", reads, writes, *fixed, 1, *pairs, 1, True)


def structure(*widths):
    last = len(widths)
    groups = tuple(Group(f"group{index}", width) for index, width in enumerate(widths))
    inner = (operation(f"conv{k}", (k - 1,), k, (0, 0), 32) for k in range(1, last))
    ends = operation("first", (), 0, (3, 0), 32), operation("last", (last - 1,), None, (0, 9), 1)
    return Structure(groups, (ends[0], *inner, ends[1]), 3, 9)


CHAIN = structure(64, 48, 32)
FULL = CHAIN.full_widths
NETWORK = Deployed(CHAIN, {"size": (32, 32)})
SWEEP = np.array([[64, width, 32] for width in (16, 32, 48)])
RANDOM = energy.draw_widths(CHAIN, 120, 0)
ASKED = np.concatenate([RANDOM, [FULL] * REPEATS, [FULL * 0 + 1] * REPEATS, SWEEP])


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A simulated campaign: its folder and its energies, in the order of ASKED."""
    folder = tmp_path_factory.mktemp("campaign")
    cost = by_macs(mac_s=1e-12)
    frame = campaign.run(
        lambda: rig(SIMULATION, cost), NETWORK, ASKED, settings=SETTINGS, seed=3, folder=folder
    )
    return folder, frame["energy_j"].to_numpy()


@pytest.fixture
def kept(measured, tmp_path):
    """The folder of a device that holds the campaign."""
    record(measured[0], tmp_path / "device", "chain", CHAIN)
    return tmp_path / "device"


def change(path, edit):
    """Edits the text of windows or provenance, packed or not."""
    packed = path.suffix == ".gz"
    text = gzip.decompress(path.read_bytes()).decode() if packed else path.read_text()
    edited = edit(text)
    assert edited != text
    path.write_bytes(gzip.compress(edited.encode()) if packed else edited.encode())


def cell(line, column, value):
    """An edit of windows: `value` in `column` of a line, counted from 1."""

    def edit(text):
        lines = text.splitlines(keepends=True)
        place = lines[0].rstrip().split(",").index(column)
        values = lines[line - 1].rstrip("\n").split(",")
        values[place] = value
        return "".join([*lines[: line - 1], ",".join(values) + "\n", *lines[line:]])

    return edit


def replay(folder, widths=ASKED, network=NETWORK):
    return Recorded("device", folder).measure(network, widths, seed=9)


def test_replay_is_the_campaign(measured, kept):
    folder, measured_j = measured
    np.testing.assert_array_equal(replay(kept), measured_j)
    windows, provenance = (folder / name for name in ("windows.csv", "campaign.json"))
    taken = Recorded("device", kept).campaign(CHAIN, kept)
    assert taken.provenance == json.loads(provenance.read_text())
    own = journal.read(windows, len(FULL))
    pd.testing.assert_frame_equal(taken.windows[own.columns], own, check_dtype=False)
    told = repeatability(own, taken.provenance)
    assert repeatability(taken.windows, taken.provenance) == told
    assert gzip.decompress((kept / "chain.csv.gz").read_bytes()) == windows.read_bytes()


def test_same_campaign_gives_the_same_bytes(measured, kept, tmp_path):
    again = record(measured[0], tmp_path / "again", "chain")
    assert again == tmp_path / "again" / "chain.csv.gz"
    for name in ("chain.csv.gz", "chain.json"):
        assert (kept / name).read_bytes() == (again.parent / name).read_bytes()


def test_requests_for_the_same_widths_take_one_recording_after_the_other(measured, kept):
    folder, measured_j = measured
    dense = measured_j[len(RANDOM) : len(RANDOM) + REPEATS]
    assert len(set(dense)) == REPEATS
    assert (ASKED == FULL).all(axis=1).sum() == REPEATS + 1  # the sweep ends at the dense network
    recorded = [*dense, measured_j[-1]]
    got = replay(kept, [FULL] * (REPEATS + 3))
    windows = corrected(journal.read(folder / "windows.csv", len(FULL)), SETTINGS.baseline)
    columns = journal.width_columns(len(FULL))
    again = windows[(windows["kind"] == "repeat") & (windows[columns] == FULL).all(axis=1)]
    recorded += again["energy_j"].tolist()
    expected = (recorded + [recorded[-1]] * 3)[: len(got)]
    np.testing.assert_array_equal(got, expected)


def test_blind_repeats_are_second_recordings(measured, kept):
    windows = corrected(journal.read(measured[0] / "windows.csv", len(FULL)), SETTINGS.baseline)
    repeats = windows[(windows["kind"] == "repeat") & (windows["sample"] < len(RANDOM))]
    assert len(repeats) > 2
    for _, row in repeats.iterrows():
        first, second = replay(kept, RANDOM[[row["sample"]] * 2])
        assert first == measured[1][row["sample"]]
        assert second == row["energy_j"] != first


def test_reference_windows_are_no_recordings(kept):
    half = np.maximum(1, FULL // 2)
    device = Recorded("device", kept)
    assert not device.known(CHAIN, [half]).any()
    assert device.known(CHAIN, ASKED).all()


def test_sampling_takes_the_recorded_widths(measured, kept):
    device = Recorded("device", kept)
    np.testing.assert_array_equal(device.sampled(CHAIN), RANDOM)
    sweeps = [{"group": "group1", "step": 16}]
    sampled = energy.sample(device, NETWORK, 120, repeats=REPEATS, seed=77, sweeps=sweeps)
    np.testing.assert_array_equal(sampled.samples["energy_j"], measured[1][:120])
    assert sampled.dense_energy_j == pytest.approx(measured[1][120 : 120 + REPEATS].mean())
    assert sampled.sweep["width"].tolist() == [16, 32, 48]
    with pytest.raises(UserError, match="120 samples are recorded, 121 are asked for"):
        energy.sample(device, NETWORK, 121, repeats=1, seed=0)


def test_a_bilinear_model_fits_what_was_recorded(kept):
    device = Recorded("device", kept)
    widths = device.sampled(CHAIN)
    energy_j = device.measure(NETWORK, widths, seed=0)
    test = widths[90:], energy_j[90:]
    model, _ = energy.fit(
        "bilinear_chain", "nnls", CHAIN, widths[:90], energy_j[:90], {}, test=test
    )
    # The simulated device is bilinear, and its sensor repeats to about half a percent.
    assert energy.relative_error(model, *test) < 0.02


def test_description_is_that_of_the_device(kept):
    device = Recorded("device", kept)
    told = json.loads((kept / "chain.json").read_text())
    assert device.description == f"{told['device']} (recorded, batch {told['batch']})"
    assert (device.metric, device.emulated) == ("energy_j", False)


def test_simulated_campaign_never_passes_for_measured(tmp_path):
    simulated = platforms.make("sim", {"kind": "simulated", "protocol": {"sample_s": 0.6}})
    simulated.measure(NETWORK, RANDOM[:4], seed=0, journal=tmp_path / "campaign")
    record(tmp_path / "campaign", tmp_path / "device", "chain")
    device = Recorded("device", tmp_path / "device")
    assert device.emulated
    assert "(simulated, recorded" in device.description


def test_latency_is_replayed_in_seconds(measured, tmp_path):
    folder = tmp_path / "campaign"
    folder.mkdir()
    windows = pd.read_csv(measured[0] / "windows.csv", keep_default_na=False)
    windows = windows.drop(columns="latency_s").rename(columns={"raw_energy_j": "raw_latency_s"})
    windows.assign(power_w="").to_csv(folder / "windows.csv", index=False)
    told = json.loads((measured[0] / "campaign.json").read_text())
    (folder / "campaign.json").write_text(json.dumps({**told, "metric": "latency_s"}))
    record(folder, tmp_path / "device", "chain", CHAIN)
    np.testing.assert_allclose(replay(tmp_path / "device"), measured[1])
    assert Recorded("device", tmp_path / "device").metric == "latency_s"


def test_several_networks_share_a_folder_and_are_told_apart(measured, kept, tmp_path):
    other = structure(16, 24)
    widths, cost = energy.draw_widths(other, 10, 0), by_macs(mac_s=1e-12)
    given = {"settings": SETTINGS, "seed": 0, "folder": tmp_path / "other"}
    network = Deployed(other, {"size": (32, 32)})
    frame = campaign.run(lambda: rig(SIMULATION, cost), network, widths, **given)
    record(tmp_path / "other", kept, "other.2", other)
    np.testing.assert_array_equal(replay(kept, widths, network), frame["energy_j"])
    np.testing.assert_array_equal(replay(kept), measured[1])
    listed = [entry for entry in found(kept.parent) if entry.what.startswith("device")]
    assert [entry.lacks for entry in listed] == ["", ""]
    assert ["chain" in listed[0].what, "other.2" in listed[1].what] == [True, True]
    assert "10 samples" in listed[1].what
    assert f"{len(ASKED)} samples" in listed[0].what


def test_unknown_widths_and_networks_are_named(kept):
    unknown = [[3, 3, 3]]
    assert not Recorded("device", kept).known(CHAIN, unknown).any()
    with pytest.raises(UserError, match=r"widths 3,3,3 \(row 1\) were not recorded: device"):
        replay(kept, [FULL, *unknown])
    with pytest.raises(UserError, match="recorded 0 times, not once: recorded networks are chain"):
        replay(kept, [[1, 1]], Deployed(structure(16, 24)))
    with pytest.raises(UserError, match="no recorded campaigns in"):
        replay(kept / "absent")
    (kept / "twice.json").write_bytes((kept / "chain.json").read_bytes())
    with pytest.raises(UserError, match="recorded 2 times, not once: recorded of it are chain"):
        replay(kept)


def cut(text):
    return text[: len(text) // 2]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (cell(1, "power_w", "watts"), "its columns are not those"),
        (cut, "its end is cut off"),
        (lambda text: text + "1,2\n", "has not 20 columns"),
        (cell(5, "width_1", "0"), "line 5: width_1 must be at least 1, not '0'"),
        (cell(5, "width_1", "49"), "line 5: width_1 must be at most this network's full width"),
        (cell(5, "width_1", "2.5"), "line 5: width_1 must be a whole number"),
        (cell(6, "raw_energy_j", ""), "line 6: raw_energy_j must be a finite number"),
        (cell(6, "raw_energy_j", "-1"), "line 6: raw_energy_j must be positive, not '-1'"),
        (cell(6, "raw_energy_j", "inf"), "line 6: raw_energy_j must be a finite number"),
        (cell(7, "kind", "dense"), "line 7: kind must be one of sample, reference, repeat"),
        (cell(8, "window", "0"), "line 8: window must occur once"),
        (cell(9, "temperature_c", "hot"), "line 9: temperature_c must be a number or empty"),
        (cell(10, "segment", "1"), "segment 1 of the windows has no reference"),
        (lambda text: "".join(text.splitlines(keepends=True)[:4]), "it has no samples"),
    ],
)
def test_damaged_windows_are_refused_in_one_line(kept, edit, message):
    change(kept / "chain.csv.gz", edit)
    with pytest.raises(UserError, match=r"chain\.csv\.gz: ") as error:
        replay(kept)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2], "truncated, or not gzip"),
        (lambda data: data[:-4], "truncated, or not gzip"),
        (gzip.decompress, "truncated, or not gzip"),
        (lambda data: data[:100] + bytes([data[100] ^ 255]) + data[101:], "truncated, or not gzip"),
        (lambda data: b"", "cut off"),
    ],
)
def test_files_that_are_not_whole_are_refused(kept, damage, message):
    path = kept / "chain.csv.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=message) as error:
        replay(kept)
    assert str(path) in str(error.value)
    (listed,) = found(kept.parent)
    assert message in listed.lacks


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("{", "not the provenance of a campaign"),
        ("[]", "not the provenance of a campaign"),
        ({"metric": "watts"}, "its metric is"),
        ({"batch": 0}, "its batch is 0"),
        ({"fingerprint": None}, "its fingerprint is null"),
        ({"settings": {}}, "it has no 'baseline'"),
    ],
)
def test_damaged_provenance_is_refused(kept, values, message):
    path = kept / "chain.json"
    own = json.loads(path.read_text())
    path.write_text(values if isinstance(values, str) else json.dumps({**own, **values}))
    with pytest.raises(UserError, match=message) as error:
        replay(kept)
    assert str(path) in str(error.value)


def test_one_file_without_the_other_is_refused(kept):
    provenance = (kept / "chain.json").read_bytes()
    (kept / "chain.json").unlink()
    with pytest.raises(UserError, match=r"chain\.csv\.gz: chain\.json is missing"):
        replay(kept)
    assert "chain.json" in found(kept.parent)[0].lacks
    (kept / "chain.json").write_bytes(provenance)
    (kept / "chain.csv.gz").unlink()
    with pytest.raises(UserError, match=r"chain\.csv\.gz: cannot be read"):
        replay(kept)


def test_campaigns_of_different_devices_are_no_platform(kept):
    other = json.loads((kept / "chain.json").read_text()) | {"device": "another"}
    (kept / "other.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match=r"different values of device \(chain .*, other another\)"):
        _ = Recorded("device", kept).description


def test_nothing_is_kept_of_a_campaign_with_a_fault(measured, tmp_path):
    folder = tmp_path / "campaign"
    folder.mkdir()
    for name in ("windows.csv", "campaign.json"):
        (folder / name).write_bytes((measured[0] / name).read_bytes())
    with pytest.raises(UserError, match="measured another network"):
        record(folder, tmp_path / "device", "chain", structure(16, 24))
    with pytest.raises(UserError, match="plain name"):
        record(folder, tmp_path / "device", "../chain")
    change(folder / "windows.csv", cell(5, "width_1", "49"))
    with pytest.raises(UserError, match=r"windows\.csv: line 5: width_1"):
        record(folder, tmp_path / "device", "chain", CHAIN)
    (folder / "windows.csv").unlink()
    with pytest.raises(UserError, match=r"windows\.csv: cannot be read"):
        record(folder, tmp_path / "device", "chain")
    assert not (tmp_path / "device").exists()


def test_a_torn_last_line_was_never_taken(measured, kept, tmp_path):
    folder = tmp_path / "campaign"
    folder.mkdir()
    for name in ("windows.csv", "campaign.json"):
        (folder / name).write_bytes((measured[0] / name).read_bytes())
    with (folder / "windows.csv").open("a") as file:
        file.write("400,0,samp")
    again = record(folder, tmp_path / "again", "chain", CHAIN)
    assert again.read_bytes() == (kept / "chain.csv.gz").read_bytes()


def test_many_windows_of_many_groups_take_no_time(measured, tmp_path):
    wide = structure(*([64] * 45))
    count, groups = 2000, 45
    widths = energy.draw_widths(wide, count, 0)
    names = journal.columns("energy_j", groups)
    table = pd.DataFrame(0, index=range(count), columns=names)
    table[journal.width_columns(groups)] = widths
    numbers = np.arange(count)
    noise = np.random.default_rng(0).uniform(0.9, 1.1, (count, 4))
    kinds = np.where(numbers % 20 == 0, "reference", "sample")
    columns = ["raw_energy_j", "power_w", "latency_s", "window_s"]
    table = table.assign(
        window=numbers, sample=numbers, started_s=numbers, kind=kinds, throttled=""
    )
    table[columns] = noise
    folder = tmp_path / "campaign"
    folder.mkdir()
    table.to_csv(folder / "windows.csv", index=False)
    told = json.loads((measured[0] / "campaign.json").read_text())
    (folder / "campaign.json").write_text(json.dumps({**told, "fingerprint": wide.fingerprint}))
    record(folder, tmp_path / "device", "wide", wide)
    begin = time.process_time()
    device = Recorded("device", tmp_path / "device")
    assert len(device.sampled(wide)) == 1900
    device.measure(Deployed(wide), widths[1:20], seed=0)
    assert time.process_time() - begin < 2  # 0.2; 10,000 windows take six times as long


def test_replaying_needs_no_torch():
    code = "import sys, ecc.platforms.recorded; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_widths_for_the_collector(tmp_path):
    write_widths(RANDOM, tmp_path / "widths.csv")
    frame = pd.read_csv(tmp_path / "widths.csv")
    assert [*frame] == ["sample", *journal.width_columns(3)]
    np.testing.assert_array_equal(frame["sample"], np.arange(120))
    np.testing.assert_array_equal(frame.iloc[:, 1:], RANDOM)
