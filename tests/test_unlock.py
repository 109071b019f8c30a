"""The lock of a killed run goes once nothing is at work in its folder."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

UNLOCK = Path(__file__).parents[1] / "profiles/unlock.py"
SLEEPS = "import sys, time; time.sleep(float(sys.argv[1]))"


@pytest.fixture
def locked(tmp_path):
    for name in ("locks/0.output.lock", "scripts/job.py"):
        path = tmp_path / ".snakemake" / name
        path.parent.mkdir(parents=True)
        path.write_text(SLEEPS)
    (tmp_path / "snakemake").write_text(SLEEPS)
    return tmp_path


def unlock(folder):
    done = subprocess.run([sys.executable, UNLOCK], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stderr


def test_the_lock_of_a_killed_run_is_removed(locked):
    assert unlock(locked) == (0, "")
    assert not list(locked.glob(".snakemake/locks/*"))
    assert unlock(locked) == (0, "")


def test_a_lock_of_another_machine_stays(locked):
    host = locked / ".snakemake/host"
    host.write_text("other")
    code, words = unlock(locked)
    assert code == 1
    assert "a run on other has locked this folder" in words
    assert list(locked.glob(".snakemake/locks/*"))
    host.write_text(socket.gethostname())
    assert unlock(locked) == (0, "")


def test_a_run_at_work_keeps_its_lock(locked):
    with subprocess.Popen([sys.executable, "snakemake", "60"], cwd=locked) as run:
        code, words = unlock(locked)
        run.kill()
    assert code == 1
    assert f"snakemake runs here already (process {run.pid})" in words
    assert list(locked.glob(".snakemake/locks/*"))


def test_jobs_that_outlive_their_run_are_waited_for(locked):
    job = subprocess.Popen([sys.executable, locked / ".snakemake/scripts/job.py", "2"], cwd=locked)
    begun = time.monotonic()
    assert unlock(locked) == (0, "")
    assert job.poll() == 0 or time.monotonic() - begun >= 1.5
    assert not list(locked.glob(".snakemake/locks/*"))
    job.wait()
