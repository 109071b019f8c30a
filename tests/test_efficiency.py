"""Where the time of a run went: sums by rule, pauses, cores, and the chain that was longest."""

import os
from pathlib import Path

import pytest

from ecc.evidence import efficiency
from ecc.evidence.efficiency import Job, by_rule, critical_path, of_run

ROOT = Path(__file__).parents[1]
EXPERIMENTS = {"mobilenet": {"network": "small", "dataset": "fractals"}}
RUN = "mobilenet-tx2-ecc-reducible-0.4-seed0"
# Two cores: compression waits for training and for budgets, fine-tuning for compression.
CHAIN = [
    Job("prepare_data", "fractals", 10, 10),
    Job("train_dense", "mobilenet", 30, 40),
    Job("trace_network", "small", 5, 5),
    Job("sample_energy", "tx2-small", 5, 15),
    Job("fit_energy_models", "tx2-small", 5, 20),
    Job("resolve_budgets", "mobilenet-tx2", 1, 21),
    Job("compress", RUN, 20, 60),
    Job("compress", RUN.replace("seed0", "seed1"), 25, 70),
    Job("finetune", RUN, 30, 100),
    Job("finetune", RUN.replace("seed0", "seed1"), 10, 100),
    Job("verify_energy", "mobilenet-tx2-ecc", 2, 102),
    Job("tables", "all", 3, 105),
]


def write(folder, rule, name, ended, **values):
    header = ["s", "h:m:s", "max_rss", "mean_load", "cpu_time"]
    row = {"h:m:s": "0:00:01", "max_rss": "-", "mean_load": "-", "cpu_time": "-", **values}
    path = folder / rule / f"{name}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join("\t".join(line) for line in (header, [row[k] for k in header])))
    os.utime(path, (ended, ended))


def test_benchmark_files_say_when_a_job_ran_and_what_it_took(tmp_path):
    write(tmp_path, "compress", "one", 1000, s="20.5", max_rss="300.0", mean_load="150.0")
    write(tmp_path, "compress", "two", 1010, s="0.5")
    write(tmp_path, "finetune", "one", 1030, s="79", max_rss="200.0", mean_load="100.0")
    jobs = efficiency.read(tmp_path)
    assert [(job.rule, job.started, job.ended) for job in jobs] == [
        ("compress", 979.5, 1000),
        ("compress", 1009.5, 1010),
        ("finetune", 951, 1030),
    ]
    frame = by_rule(jobs).set_index("rule")
    assert list(frame.index) == ["finetune", "compress"]
    # What was too short to be watched has no load, and takes none from the others.
    assert frame.loc["compress"].to_list() == [2, 21.0, 0.21, 1.5, 300.0]
    assert frame["share"].sum() == pytest.approx(1)


def test_two_cores_that_are_always_busy_are_fully_used():
    jobs = [Job("a", "1", 10, 110), Job("a", "2", 10, 120), Job("b", "1", 20, 120)]
    row = of_run(jobs, {}, {}).iloc[0]
    assert (row["cores"], row["wall_seconds"], row["paused_seconds"]) == (2, 20, 0)
    assert row["parallel_efficiency"] == 1
    assert of_run(jobs, {}, {}, cores=4).iloc[0]["parallel_efficiency"] == 0.5


def test_a_job_that_holds_all_cores_counts_on_each():
    jobs = [Job("sample_energy", "gpu-small", 10, 110), Job("a", "1", 10, 120)]
    row = of_run(jobs, {}, {"sample_energy/gpu": efficiency.ALL}, cores=4).iloc[0]
    assert row["core_seconds"] == 10 * 4 + 10
    jobs = [Job("close_budgets", "mobilenet-gpu-ecc", 10, 110)]
    assert of_run(jobs, {}, {"close_budgets/mobilenet-gpu": 3}).iloc[0]["cores"] == 3


def test_a_pause_between_two_calls_is_no_wall_clock_but_a_wait_is():
    jobs = [Job("a", "1", 10, 110), Job("a", "2", 10, 150), Job("b", "1", 10, 1150)]
    row = of_run(jobs, {}, {}).iloc[0]
    assert (row["wall_seconds"], row["paused_seconds"]) == (60, 990)


def test_the_critical_path_is_the_longest_chain_of_jobs_that_wait_for_each_other():
    path = critical_path(CHAIN, EXPERIMENTS)
    rules = ["prepare_data", "train_dense", "compress", "finetune", "verify_energy", "tables"]
    assert [job.rule for job in path] == rules
    assert {job.name for job in path if job.rule in ("compress", "finetune")} == {RUN}
    assert sum(job.seconds for job in path) == 10 + 30 + 20 + 30 + 2 + 3
    # All runs of a method are closed together, so the longest of each stage counts.
    closed = [*CHAIN, Job("close_budgets", "mobilenet-tx2-ecc", 1, 70)]
    assert sum(job.seconds for job in critical_path(closed, EXPERIMENTS)) == 10 + 30 + 25 + 1 + 35


def test_jobs_that_cover_several_runs_have_a_chain_too():
    jobs = [Job("compress", "mobilenet-tx2-ecc", 5, 5), Job("finetune", "mobilenet-tx2-ecc", 5, 10)]
    assert critical_path(jobs, EXPERIMENTS) == jobs


def test_without_jobs_there_is_nothing_to_say():
    assert by_rule([]).empty
    assert of_run([], {}, {}).iloc[0]["wall_seconds"] == 0


def test_the_stages_of_the_path_are_rules():
    scripts = {path.stem for path in (ROOT / "workflow_scripts").glob("*.py")}
    assert {job.rule for job in CHAIN} <= scripts
