"""A job of several runs that is killed goes on after those that had ended."""

import logging
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest

from workflow_scripts import compress as script

RUNS = [("tight", 0), ("tight", 1)]


@pytest.fixture
def job(tiny_problem, training_settings, tmp_path, monkeypatch):
    """A function that runs the job of two runs of ECC; `before` is called with each problem."""
    problem = tiny_problem(0.5)
    full = SimpleNamespace(
        build=lambda: problem.dense,
        channels=problem.channels,
        structure=problem.channels.structure,
    )
    monkeypatch.setattr(script, "Network", lambda: full)
    monkeypatch.setattr(script.data, "load", lambda settings, folder: problem)
    monkeypatch.setattr(script, "load_weights", lambda path, model: model)
    monkeypatch.setattr(script.energy, "load", lambda path, structure: problem.energy)
    resolved = {
        "budget_j": {"tight": problem.budget_j},
        "lower_bounds": problem.lower_bounds,
        "limits": {"tight": {}},
        "metric": "energy_j",
    }
    monkeypatch.setattr(script.records, "read", lambda path, kind: resolved)
    real = script.compress_by

    def run(before=lambda problem: None):
        def compress_by(method, problem, settings):
            before(problem)
            return real(method, problem, settings)

        monkeypatch.setattr(script, "compress_by", compress_by)
        names = {
            "masked": "masked.safetensors",
            "history": "history.csv",
            "metrics": "metrics.json",
        }
        folders = [tmp_path / f"seed{seed}" for _, seed in RUNS]
        files = {key: [str(folder / name) for folder in folders] for key, name in names.items()}
        training = replace(training_settings(iterations=12), checkpoint_every=5)
        script.compress(
            "manifest.json",
            "model.safetensors",
            "budgets.json",
            "model.json",
            {},
            covered=RUNS,
            network={},
            dataset={},
            training=asdict(training),
            method={"method": "ecc"},
            **files,
        )
        return [(folder / "masked.safetensors").read_bytes() for folder in folders]

    return run


def test_runs_that_had_ended_resume_at_their_end(job, tmp_path, caplog):
    whole = job()
    assert not list(tmp_path.rglob("checkpoint*"))

    def killed(problem):
        if problem.seed == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job(killed)
    for file in tmp_path.rglob("masked.safetensors"):
        file.unlink()  # as Snakemake does before it runs a job again
    with caplog.at_level(logging.INFO):
        assert job() == whole
    assert [record.message for record in caplog.records if "resumed" in record.message] == [
        f"resumed from {tmp_path}/seed0/checkpoint.safetensors after 12 steps"
    ]
    assert not list(tmp_path.rglob("checkpoint*"))
