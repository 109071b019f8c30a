"""Files that are whole or absent, and the record of a run."""

import json
import subprocess
import sys

import pandas as pd
import pytest

from ecc import provenance, runs


def test_file_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "new" / "result.txt"
    runs.write_text(path, "first")

    def die_while_writing():
        with runs.temporary(path) as draft:
            draft.write_text("half of the sec")
            assert path.read_text() == "first"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        die_while_writing()
    assert path.read_text() == "first"
    runs.write_text(path, "second")
    assert path.read_text() == "second"
    assert list(path.parent.iterdir()) == [path]


def test_what_a_killed_process_left_half_goes_with_the_next_file(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    path = tmp_path / "model.safetensors"
    dead, alive, other = (
        tmp_path / f".{name}.part"
        for name in (f"{path.name}.{ended.pid}", f"{path.name}.1", f"model.{ended.pid}")
    )
    for draft in (dead, alive, other):
        draft.touch()
    runs.write_text(path, "whole")
    assert sorted(tmp_path.iterdir()) == sorted([path, alive, other])


def test_drafts_of_checkpoints_go_with_the_checkpoints(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    checkpoint, kept = tmp_path / "checkpoint.safetensors", tmp_path / "slim.safetensors"
    draft = tmp_path / f".checkpoint_2.safetensors.{ended.pid}.part"
    for path in (checkpoint, kept, draft):
        path.touch()
    runs.finished(checkpoint)
    assert list(tmp_path.iterdir()) == [kept]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), runs.temporary(tmp_path / "result"):
        pass


def test_json_does_not_depend_on_the_order_of_keys(tmp_path):
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    runs.write_json(one, {"a": 0.1, "b": [1, None]})
    runs.write_json(other, {"b": [1, None], "a": 0.1})
    assert one.read_bytes() == other.read_bytes()
    assert json.loads(one.read_text()) == {"a": 0.1, "b": [1, None]}


def test_csv_holds_every_digit(tmp_path):
    frame = pd.DataFrame({"sample": [1, 2], "energy_j": [0.1 + 0.2, 1e-17], "name": ["a", "b,c"]})
    runs.write_csv(tmp_path / "table.csv", frame)
    read = pd.read_csv(tmp_path / "table.csv", dtype=str)
    assert read["energy_j"].map(float).tolist() == frame["energy_j"].tolist()
    assert read["sample"].tolist() == ["1", "2"]
    assert read["name"].tolist() == ["a", "b,c"]
    assert b"\r" not in (tmp_path / "table.csv").read_bytes()


def test_record_of_a_run_can_be_written(tmp_path):
    record = runs.record(seed=7, started=runs.start() - 5)
    runs.write_json(tmp_path / "record.json", record)
    assert json.loads((tmp_path / "record.json").read_text()) == record
    assert record["seed"] == 7
    assert 5 <= record["seconds"] < 60
    assert 10 < record["peak_memory_mb"] < 1e6
    assert record["peak_gpu_memory_mb"] is None


def peak_mb(touched_mb):
    """That of a run which touches so much memory, and gives it back."""
    started = runs.start()
    bytearray(b"1" * (touched_mb << 20))
    return runs.record(0, started)["peak_memory_mb"]


@pytest.mark.skipif(sys.platform != "linux", reason="the mark of a process is set back on Linux")
def test_peak_memory_is_that_of_the_run_whatever_ran_before():
    small, large, again = peak_mb(1), peak_mb(300), peak_mb(1)
    assert large > small + 250
    assert again == pytest.approx(small, abs=50)


def test_peak_memory_is_that_of_the_process_where_there_is_no_mark(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError

    for name in ("read_text", "write_text"):
        monkeypatch.setattr(runs.Path, name, missing)
    assert peak_mb(300) > 300
    assert peak_mb(1) > 300


def test_versions_and_hardware_are_named(monkeypatch):
    assert set(provenance.versions()) == {"python", *provenance.PACKAGES}
    monkeypatch.setattr(provenance, "PACKAGES", ("no-such-package",))
    assert provenance.versions()["no-such-package"] == "absent"
    assert provenance.hardware()["cores"] >= 1
    assert provenance.hardware()["system"]


def test_the_machine_is_named_without_torch():
    code = "import sys; from ecc import runs; runs.record(0, 0.0);assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
