"""The faults that `python -m tests.faults` puts under the workflow are what they say."""

import os
import subprocess
import sys

import pytest

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
