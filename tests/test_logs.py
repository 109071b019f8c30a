"""Jobs end with one line a person can act on, and do not outlive whoever started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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

with job("logs/stage/run.log"):
    logging.info("at work")
    logging.getLogger("somebody.else").info("chatter")
    warnings.warn("a library's warning")
    {action}
"""


def run(action, folder):
    code = SCRIPT.replace("{action}", action)
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, env=environment()
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
    code = SCRIPT.replace("{action}", "linger()")
    orphan = subprocess.Popen(
        [sys.executable, "-c", code],
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
