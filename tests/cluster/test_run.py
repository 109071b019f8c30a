"""The comparison with a local run fails where a job did not run on Slurm."""

import sys

import pytest
import run

JOBS = [{"JobId": "1", "JobState": "COMPLETED"}, {"JobId": "2", "JobState": "COMPLETED"}]


@pytest.mark.parametrize(
    ("finished", "jobs", "different", "code"),
    [
        (2, JOBS, [], 0),
        (3, JOBS, [], 1),
        (0, [], [], 1),
        (2, [JOBS[0], {"JobId": "2", "JobState": "FAILED"}], [], 1),
        (2, JOBS, ["tables/claims.csv"], 1),
    ],
)
def test_it_fails_unless_slurm_ran_every_job_and_tables_are_equal(
    finished, jobs, different, code, monkeypatch, capsys
):
    found = run.Compared(1.0, 2.0, finished, jobs, {}, ["tables/widths.csv"], different)
    monkeypatch.setattr(run, "install", lambda: None)
    monkeypatch.setattr(run, "compare", lambda *_: found)
    monkeypatch.setattr(run.signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["run.py"])
    assert run.main() == code
    assert f"jobs that finished: {finished}\n" in capsys.readouterr().out
