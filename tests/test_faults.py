"""The faults that `python -m tests.faults` puts under the workflow are what they say."""

import os
import subprocess
import sys

import pytest

from tests.faults import __main__ as faults, kills
from tests.faults.disks import jumping

PROGRAM = """
import pathlib, sys, time
before = time.time(), time.time_ns() / 1e9, time.monotonic()
pathlib.Path(sys.argv[1]).touch()
after = time.time(), time.time_ns() / 1e9, time.monotonic()
print(*(later - earlier for earlier, later in zip(before, after)))
"""


@pytest.mark.parametrize("ahead_s", [3600.0, -3600.0])
def test_the_clock_of_a_process_jumps_while_it_runs(tmp_path, ahead_s):
    asked = [sys.executable, "-c", PROGRAM, str(jumping(tmp_path, ahead_s))]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    told = subprocess.run(asked, env=environment, capture_output=True, text=True, check=True)
    assert [float(word) for word in told.stdout.split()] == pytest.approx(
        [ahead_s, ahead_s, 0.0], abs=60
    )


@pytest.mark.parametrize(
    ("error", "told"),
    [(kills.WrongError("tables differ"), "tables differ"), (OSError(5, "bad"), "bad")],
)
def test_the_first_that_goes_wrong_ends_the_harness_with_counts_and_seed(
    tmp_path, monkeypatch, capsys, error, told
):
    def kill_often(folder, expected, count, seed, say, counts):
        counts["main"] += 3
        raise error

    monkeypatch.setenv(faults.OWN_MOUNTS, "1")
    monkeypatch.setattr(faults, "_uninterrupted", lambda folder: None)
    monkeypatch.setattr(faults.workspace, "clone", lambda folder: folder)
    monkeypatch.setattr(faults.kills, "kill_often", kill_often)
    arguments = ["faults", "--kills", "9", "--seed", "7", "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    assert faults.main() == 1
    said = capsys.readouterr().out
    assert told in said
    assert "repeat with --seed 7" in said
    assert "kills: 3 main" in said
    assert "0 tried, 0 passed, 0 skipped, 1 wrong; seed 7" in said
