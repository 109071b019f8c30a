"""Jobs end with one line a person can act on, and do not outlive whoever started them."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ecc import provenance
from ecc.logs import of_disks
from tests.faults.workspace import CAN_MOUNT, MOUNTS

ROOT = Path(__file__).parents[1]
SCRIPT = """
import logging, sys, time, warnings
from pathlib import Path
from ecc.errors import UserError
from ecc.logs import job
from ecc.runs import temporary

def fail(error):
    raise error

def linger():
    with temporary("result.txt") as draft:
        draft.write_text("half")
        Path("started").touch()
        time.sleep(60)

with job("logs/stage/run.log", {files}):
    logging.info("at work")
    logging.getLogger("somebody.else").info("chatter")
    warnings.warn("a library's warning")
    {action}
"""


def script(action, files="[], []"):
    return SCRIPT.replace("{action}", action).replace("{files}", files)


def run(action, folder, files="[], []", before=()):
    return subprocess.run(
        [*before, sys.executable, "-c", script(action, files)],
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment(),
    )


def environment(**more):
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def test_user_error_is_one_line_and_exit_code_1(tmp_path):
    done = run("fail(UserError('datasets.x.path:\\nthere is no such folder'))", tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "stage run: at work",
        "stage run: datasets.x.path: there is no such folder",
    ]
    log = (tmp_path / "logs/stage/run.log").read_text()
    assert "there is no such folder" in log
    assert "a library's warning" in log
    assert "Traceback" not in log
    assert "chatter" not in log


def test_traceback_of_an_unexpected_error_is_in_the_log_alone(tmp_path):
    done = run("fail(ValueError('odd'))", tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "unexpected ValueError: odd (traceback in logs/stage/run.log)" in done.stderr
    assert "Traceback" in (tmp_path / "logs/stage/run.log").read_text()


def test_success_is_silent_about_errors(tmp_path):
    done = run("pass", tmp_path)
    assert (done.returncode, done.stderr) == (0, "stage run: at work\n")


def test_job_stops_with_its_parent_and_leaves_nothing_half_written(tmp_path):
    parent = subprocess.Popen(["sleep", "60"])
    orphan = subprocess.Popen(
        [sys.executable, "-c", script("linger()")],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
        env=environment(ECC_PARENT=str(parent.pid)),
    )
    while not (tmp_path / "started").exists():
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    assert orphan.wait(timeout=10) == 128 + signal.SIGTERM
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "started"]


def test_an_output_is_sealed_and_as_an_input_refused_once_a_bit_of_it_flips(tmp_path):
    made = run("Path('made.txt').write_text('0.5')", tmp_path, "[], ['made.txt']")
    assert made.returncode == 0
    assert run("pass", tmp_path, "['made.txt'], []").returncode == 0
    (tmp_path / "made.txt").write_text("0.4")
    done = run("fail(ValueError)", tmp_path, "['made.txt'], []")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "made.txt is not what its job wrote: delete it" in done.stderr


def test_what_made_the_outputs_is_beside_the_log(tmp_path):
    action = "Path('made.txt').write_text('0.5')"
    assert run(action, tmp_path, "[], ['made.txt']").returncode == 0
    record = tmp_path / "logs/stage/run.json"
    told = json.loads(record.read_text())
    assert (told["rule"], told["job"], told["files"]) == ("stage", "run", ["made.txt"])
    assert told["commit"] == provenance.commit()
    assert told["hardware"]["cores"] >= 1
    assert told["versions"]["numpy"] == np.__version__
    assert run("fail(ValueError())", tmp_path, "[], ['made.txt']").returncode == 1
    assert not record.exists()


def test_a_journal_is_sealed_and_refused_once_it_was_edited(tmp_path):
    (tmp_path / "campaign").mkdir()
    journal = tmp_path / "campaign/windows.csv"
    append = f"Path({str(journal)!r}).open('a').write('1')"
    files = "[], [], ['campaign', 'absent']"
    for _ in range(2):
        assert run(append, tmp_path, files).returncode == 0
    assert journal.read_text() == "11"
    journal.write_text("12")
    done = run(append, tmp_path, files)
    assert done.returncode == 1
    assert "campaign/windows.csv is not what its job wrote" in done.stderr
    assert journal.read_text() == "12"


def test_a_job_that_is_killed_leaves_no_seal_of_what_was_there_before(tmp_path):
    (tmp_path / "made.txt").write_text("old")
    (tmp_path / ".made.txt.sha256").write_text("of the old one")
    run("import os; os.kill(os.getpid(), 9)", tmp_path, "[], ['made.txt']")
    assert not (tmp_path / ".made.txt.sha256").exists()


@pytest.mark.parametrize(
    ("last", "shown"),
    [
        (
            "OSError: [Errno 28] No space left on device: 'a'",
            "OSError: [Errno 28] No space left on device: 'a': free some space, then run the same "
            "command",
        ),
        ("OSError: [Errno 5] Input/output error", None),
        ("ValueError: 28", None),
    ],
)
def test_of_a_traceback_about_a_disk_the_last_line_is_left(last, shown):
    said = f"Traceback (most recent call last):\n  File 'x'\n{last}\n"
    record = logging.LogRecord("", logging.ERROR, "", 0, "%s", (said,), None)
    assert of_disks(record)
    assert record.getMessage() == (shown or said)


@pytest.mark.skipif(not CAN_MOUNT, reason="mounts a disk, which needs root")
@pytest.mark.parametrize(
    ("mount", "action", "words"),
    [
        (
            "mount -t tmpfs -o size=16k tmpfs .",
            "from ecc.runs import write_text; write_text('table.csv', 'x' * 99_999)",
            "table.csv cannot be written ([Errno 28] No space left on device): free some space",
        ),
        (
            "mount -t tmpfs -o size=16k tmpfs .; head -c 16384 /dev/zero >full || true",
            "Path('image.png').write_bytes(bytes(99_999))",
            "No space left on device: free some space",
        ),
        (
            "mount --bind . .; mount -o remount,bind,ro .",
            "pass",
            "Read-only file system: 'logs': make it writable",
        ),
    ],
)
def test_a_disk_that_takes_nothing_ends_in_one_line(tmp_path, mount, action, words):
    within = [*MOUNTS, f'cd /; cd "$0"; {mount}; cd /; cd "$0"; exec "$@"', str(tmp_path)]
    done = run(action, tmp_path, before=within)
    assert done.returncode == 1
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "Logging error" not in done.stderr
