"""The whole workflow on the smoke configuration, in a copy of the repository."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
import yaml
from test_page import LOADED, PAGE, REPORT, probed

import ecc
from ecc import files
from ecc.export import describe
from tests.faults.workspace import (
    CAN_MOUNT,
    MOUNTS,
    SMOKE,
    clone,
    command,
    processes_in,
    snakemake,
    tables,
)

pytestmark = pytest.mark.workflow

ROOT = Path(__file__).parents[1]
ACCURACY = (
    "experiment,network,dataset,platform,method,budget_fraction,budget_j,limits,seed,score,"
    "dense_energy_j,dense_accuracy,accuracy_before_finetuning,accuracy,modelled_energy_j,"
    "measured_energy_j,within_budget,iterations"
)


def planned(output):
    """Rules that a dry-run would run, with the number of their jobs."""
    rows = re.findall(r"^(\w+) +(\d+)$", output.split("Job stats:")[-1], re.MULTILINE)
    return {name: int(count) for name, count in rows if name not in ("all", "total")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A copy in which the smoke configuration has run."""
    folder = clone(tmp_path_factory.mktemp("finished"))
    code, output = snakemake(folder, *SMOKE)
    assert code == 0, output
    return folder


def test_tables_figures_and_weights_are_there(finished):
    results = finished / "results/smoke"
    accuracy = pd.read_csv(results / "tables/accuracy_at_budget.csv")
    assert ",".join(accuracy) == ACCURACY
    assert len(accuracy) == 3 * 3 + 8 + 2
    assert accuracy["within_budget"].notna().all()
    # One method spends its budget by another energy model than the one that is shown.
    same = accuracy[accuracy["method"] != "netadapt_table"]
    assert (same["modelled_energy_j"] <= same["budget_j"]).all()
    for name in ("energy_model_errors", "energy_anchors", "widths", "timings", "repeatability"):
        assert len(pd.read_csv(results / f"tables/{name}.csv"))
    for name in ("closing", "limits", "equal_terms"):
        assert len(pd.read_csv(results / f"tables/{name}.csv"))
    for name in (*(f"figure_{number:02}" for number in range(2, 11)), "table_02"):
        for suffix in ("png", "pdf"):
            assert (results / f"figures/{name}.{suffix}").stat().st_size > 1000
    beside = ("drift", "staircase", "limits", "learning")
    own = ("measured", "finetuning", "fronts", "convergence")
    for name, suffix in product((*beside, *own), ("png", "pdf")):
        assert (results / f"figures/{name}.{suffix}").stat().st_size > 1000
    assert not list(results.rglob("*.part"))
    assert not list(results.rglob("checkpoint*"))


def test_a_run_on_results_that_another_one_writes_is_refused(finished):
    held = files.hold(finished / "results/smoke")
    code, output = snakemake(finished, *SMOKE, "--forcerun", "claims")
    held.close()
    assert code == 1
    assert "another run is at work on results/smoke: wait for it, or stop it" in output
    assert "Traceback" not in output
    code, output = snakemake(finished, *SMOKE)
    assert code == 0, output


def test_every_claim_has_a_verdict_and_the_page_shows_all_figures(finished):
    results = finished / "results/smoke"
    decided = pd.read_csv(results / "tables/claims.csv")
    listed = yaml.safe_load((ROOT / "resources/claims.yaml").read_text())
    assert list(decided["claim_id"]) == [claim["id"] for claim in listed]
    by_id = decided.set_index("claim_id")
    # One seed has no interval, but energies of the smoke run do, and EAP's study.
    for name in ("energy_model_error", "platforms", "eap_convolutions"):
        assert by_id.loc[name, "ours"] > 0
    # Which networks evolve to the same accuracy, if any, depends on the processor.
    assert len(pd.read_csv(results / "tables/evolution_nearly_as_good.csv"))
    assert "so no interval" in by_id.loc["mobilenet_over_netadapt", "reason"]
    page = (results / "index.html").read_text()
    figures = sorted(path.stem for path in (results / "figures").glob("*.png"))
    assert all(f'<figure id="{name}">' in page for name in figures)
    for name in ("ranking", "differences"):
        assert len(pd.read_csv(results / f"tables/{name}.csv"))
    for name in figures:
        part = page[page.index(f'<figure id="{name}">') :]
        caption = part[: part.index("</figure>")]
        assert "<strong>In this run:</strong>" in caption, name
        assert "<summary>Settings</summary>" in caption, name
        assert f"figures/{name}.png and .pdf, by rule " in caption


def test_captions_tell_numbers_and_settings_of_the_run(finished):
    results = finished / "results/smoke"
    captions = {path.stem: path.read_text() for path in (results / "captions").glob("*.rst")}
    # Three tables have the captions of a figure, or of another table.
    named = {path.stem for part in ("figures", "tables") for path in (results / part).glob("[!.]*")}
    others = {"evolution_history", "evolution_nearly_as_good", "run_efficiency"}
    assert named - set(captions) == others
    for name, text in captions.items():
        assert "**In this run:** " in text, name
        assert "nan" not in re.findall(r"\w+", text), name
        assert "**Settings.**" in text, name
    best = pd.read_csv(results / "tables/comparison.csv").query(
        "experiment == 'erfnet' and stage == 'after_finetuning' and method == 'ecc'"
    )
    assert f"ECC {best['mean'].iloc[0]:.3f}" in captions["table_02"]
    assert "simulated" in captions["drift"]


def test_every_file_traces_to_its_job(finished):
    results = finished / "results/smoke"
    made = pd.read_csv(results / "tables/provenance.csv").set_index("file")
    files = (path.relative_to(results).as_posix() for path in results.rglob("*") if path.is_file())
    beside = ("logs/", "benchmarks/", "data/", "closing/", "verified/", "exported/", "checksums")
    known = {
        name
        for name in files
        if not name.startswith(beside) and "/campaign/" not in name and "/." not in f"/{name}"
    }
    assert known - {"report.html"} == {name for name in made.index if not name.startswith("data/")}
    run = "mobilenet/jetson_tx2/reducible-0.4/ecc/seed0"
    assert made.loc[f"finetuned/{run}/energy.json", "rule"] == "verify_energy"
    assert made.loc["tables/widths.csv", "rule"] == "tables"
    assert made["versions"].str.contains("torch: ").all()
    assert made["hardware"].str.contains("cores: ").all()


def test_methods_train_equally_long(finished):
    accuracy = pd.read_csv(finished / "results/smoke/tables/accuracy_at_budget.csv")
    assert (accuracy.groupby("experiment")["iterations"].nunique() == 1).all()


def test_a_network_is_exported_by_its_path(finished):
    run = "mobilenet/jetson_tx2/reducible-0.4/ecc/seed0"
    code, output = snakemake(finished, *SMOKE, "--", f"results/smoke/exported/{run}/model.onnx")
    assert code == 0, output
    metrics = json.loads((finished / f"results/smoke/finetuned/{run}/metrics.json").read_text())
    folder = finished / f"results/smoke/exported/{run}"
    assert f"accuracy | {metrics['dense_accuracy']:.4f} |" in (folder / "README.md").read_text()
    assert describe(folder).widths == [group["width"] for group in metrics["groups"]]
    assert ecc.load(folder)(torch.zeros(1, 3, 224, 224)).shape == (1, 8)


def test_networks_of_ecc_are_exported_together(finished):
    _, output = snakemake(finished, *SMOKE, "-n", "export")
    assert planned(output)["export_network"] >= 3


@pytest.fixture(scope="module")
def report(finished):
    style = ("--report-stylesheet", "docs/report/report.css")  # as `make report` does
    code, output = snakemake(finished, *SMOKE, "--report", "report.html", *style)
    assert code == 0, output
    return finished / "report.html"


def test_report_loads_nothing_and_has_every_figure_and_the_page(finished, report):
    text = report.read_text()
    assert LOADED.findall(text) == []
    for word in ("Figure 4", "Accuracy at budget", "Energy models", "Widths", "Timings"):
        assert word in text
    (told,) = re.findall(r"^ *var results = ({.*});$", text, re.MULTILINE)
    items = {Path(path).relative_to("results/smoke"): own for path, own in json.loads(told).items()}
    results = finished / "results/smoke"
    for pattern in ("figures/*.png", "tables/*.csv", "index.html"):
        for path in results.glob(pattern):
            data = items[path.relative_to(results)]["data_uri"].partition("base64,")[2]
            assert base64.b64decode(data) == path.read_bytes(), path


@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_shows_all_of_the_report_and_of_the_page(finished, report, width, tmp_path):
    assert probed(report, REPORT, width, tmp_path) == "PASSED"
    assert probed(finished / "results/smoke/index.html", PAGE, width, tmp_path) == "PASSED"


def test_second_run_has_nothing_to_do(finished):
    code, output = snakemake(finished, *SMOKE)
    assert code == 0
    assert "Nothing to be done" in output


def test_an_edit_of_the_library_reruns_what_imports_it(finished):
    source = finished / "ecc/evidence/figures.py"
    before = source.read_text()
    source.write_text(before + "# edited\n")
    try:
        _, output = snakemake(finished, *SMOKE, "-n")
        expected = (
            "tables",
            "figures",
            "timings",
            "measurements",
            "method_figures",
            "eap_figures",
            "evolution_figures",
            "efficiency",
            "claims",
            "checksums",
        )
        assert planned(output) == dict.fromkeys(expected, 1)
    finally:
        source.write_text(before)


def test_a_changed_setting_reruns_what_it_touches(finished):
    (finished / "ramp.yaml").write_text("methods: {ecc: {ramp: 0.5}}")
    _, output = snakemake(finished, *SMOKE, "ramp.yaml", "-n")
    parts = ("alexnet_simulated", "mobilenet_jetson_tx2", "erfnet_jetson_tx2")
    rerun = {f"compress_{part}": 1 for part in parts}
    for later in ("close_budgets", "closed", "finetune", "verify_energy"):
        rerun |= {name.replace("compress", later): 1 for name in rerun}
    evidence = dict.fromkeys(("tables", "figures", "timings", "method_figures"), 1)
    evidence |= dict.fromkeys(("efficiency", "claims", "checksums"), 1)
    assert planned(output) == {**rerun, **evidence}


RECORDED = """
platforms:
  recorded: {kind: recorded, folder: resources/measurements/sim, samples: 200, test_samples: 60}
energy: {platforms: [recorded], networks: [mobilenet]}
"""


def test_a_recorded_campaign_replays_in_place_of_its_sensor(finished):
    samples = finished / "results/smoke/samples"
    keep = [sys.executable, "-m", "ecc.platforms", "record"]
    campaign = str(samples / "simulated/mobilenet/campaign")
    subprocess.run([*keep, campaign, "sim", "mobilenet"], cwd=finished, check=True)
    (finished / "recorded.yaml").write_text(RECORDED)
    errors = "results/smoke/energy_models/{}/mobilenet/errors.csv"
    code, output = snakemake(finished, *SMOKE, "recorded.yaml", "--", errors.format("recorded"))
    assert code == 0, output
    tables = [(samples / f"{name}/mobilenet/samples.csv") for name in ("simulated", "recorded")]
    assert tables[0].read_bytes() == tables[1].read_bytes()
    own, replayed = (
        pd.read_csv(finished / errors.format(name)).drop(columns="platform")
        for name in ("simulated", "recorded")
    )
    pd.testing.assert_frame_equal(own, replayed)


def test_a_killed_campaign_goes_on_where_it_was(finished, tmp_path):
    """Of a sensor that takes its time: the samples before the kill are those of the journal."""
    slow = {"kind": "simulated", "samples": 2000, "test_samples": 100}
    overlay = {"results": "results/slow", "platforms": {"slow": slow}}
    (finished / "slow.yaml").write_text(yaml.safe_dump(overlay))
    target = "results/slow/samples/slow/mobilenet_embedded/samples.csv"
    journal = (finished / target).parent / "campaign/windows.csv"
    arguments = (*SMOKE, "slow.yaml", "--", target)
    with (tmp_path / "log").open("w") as log:
        run = subprocess.Popen(command(*arguments), cwd=finished, stdout=log, stderr=log)
        while not journal.exists() or len(journal.read_bytes().splitlines()) < 100:
            assert run.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)
        for process in [*psutil.Process(run.pid).children(recursive=True), run]:
            process.kill()
        run.wait()
    taken = journal.read_bytes().splitlines()[:-1]
    subprocess.run([sys.executable, "profiles/unlock.py"], cwd=finished, check=True)
    code, output = snakemake(finished, *arguments)
    assert code == 0, output
    lines = journal.read_bytes().splitlines()
    assert lines[: len(taken)] == taken
    windows = pd.read_csv(journal)
    assert (windows.query("kind == 'sample'").groupby("sample").size() == 1).all()
    assert windows["segment"].nunique() == 2
    assert len(pd.read_csv(finished / target)) == 2000


def test_without_batches_every_run_is_a_job_with_the_same_files(finished):
    _, output = snakemake(finished, *SMOKE, "-n", "--forceall", "--config", "batch=[]")
    jobs = planned(output)
    assert jobs["compress_mobilenet_jetson_tx2"] == 3 * 3
    assert jobs["finetune_alexnet_simulated"] == 8


def test_the_papers_scale_can_be_planned_without_its_data(finished):
    code, output = snakemake(finished, "--configfile", "configs/paper.yaml", "-n")
    assert code == 0, output
    assert planned(output)["compress_mobilenet_gtx1080ti"] == 4 * 4 * 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("energy={sampels: 5}", "config key energy.sampels is unknown"),
        ("seed=1e-3", "config key seed: 0.001 must be a whole number"),
        ("device=gpu", "config key device: 'gpu'"),
    ],
)
def test_a_wrong_configuration_ends_with_one_line(finished, change, words):
    code, output = snakemake(finished, *SMOKE, "--config", change)
    assert code == 1
    assert words in output.splitlines()[-1]
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            "eap: {classes: [9, 4]}",
            "config key eap.classes: 9 is too many: mobilenet_embedded has 8",
        ),
        ("eap: {dense: {images: 1}}", "config key eap.dense.images: 1 must be at least 2"),
        (
            "evolution: {tiny: {platform: simulated}}",
            "config key evolution.tiny.platform: 'simulated' cannot tell the energy",
        ),
        ("platforms: {mine: {kind: eyeriss, metric: latency}}", "platforms.mine: eyeriss has no"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_named_in_one_line(finished, change, words):
    (finished / "unfit.yaml").write_text(change)
    code, output = snakemake(finished, *SMOKE, "unfit.yaml", "-n")
    assert code == 1
    assert words in output.splitlines()[-1]
    assert ".smk" not in output


@pytest.mark.parametrize(
    ("name", "budget", "words"),
    [
        ("low", "joules: 1.0e-6", "the smallest reachable energy is"),
        ("high", "joules: 1.0e+3", "above the energy of the dense network"),
    ],
)
def test_an_impossible_budget_is_named_and_loses_nothing(finished, name, budget, words):
    overlay = finished / f"{name}.yaml"
    smoke = (finished / "configs/smoke.yaml").read_text()
    overlay.write_text(smoke.replace("- name: alexnet", f"- name: {name}", 1))
    overlay.write_text(overlay.read_text().replace("[{reducible: 0.5}]", f"[{{{budget}}}]"))
    before = tables(finished)
    code, output = snakemake(finished, "--configfile", overlay.name)
    assert code == 1
    assert words in output
    assert "Traceback" not in output
    assert tables(finished) == before


def test_missing_data_is_named(finished):
    overlay = finished / "absent.yaml"
    smoke = (finished / "configs/smoke.yaml").read_text()
    absent = "  absent: {kind: imagenet, path: nowhere, classes: 8}\n\nnetworks:"
    overlay.write_text(
        smoke.replace("\nnetworks:", absent).replace("dataset: fractals", "dataset: absent")
    )
    code, output = snakemake(finished, "--configfile", overlay.name)
    assert code == 1
    assert "nowhere" in output
    assert "image-net.org" in output
    assert "Traceback" not in output


def test_a_killed_run_leaves_no_orphans_and_ends_with_the_same_tables(finished, tmp_path):
    folder = clone(tmp_path)
    log = (folder / "log").open("w")
    run = subprocess.Popen(command(*SMOKE), cwd=folder, stdout=log, stderr=log)
    while not list(folder.glob("results/smoke/compressed/**/metrics.json")):
        assert run.poll() is None, (folder / "log").read_text()
        time.sleep(0.1)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    deadline = time.monotonic() + 60  # a job that is importing torch notices afterwards
    while processes_in(folder) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert processes_in(folder) == []
    subprocess.run([sys.executable, "profiles/unlock.py"], cwd=folder, check=True)
    code, output = snakemake(folder, *SMOKE)
    assert code == 0, output
    assert tables(folder) == tables(finished)


FITTED = "results/smoke/energy_models/jetson_tx2/alexnet/errors.csv"


def test_an_intermediate_result_with_a_flipped_bit_is_named_and_made_again(finished):
    samples = finished / "results/smoke/samples/jetson_tx2/alexnet/samples.csv"
    before = samples.read_bytes()
    place = before.rindex(b".") + 1  # a digit of the last energy
    samples.write_bytes(before[:place] + bytes([before[place] ^ 1]) + before[place + 1 :])
    code, output = snakemake(finished, *SMOKE, "--", FITTED)
    assert code == 1
    assert "alexnet/samples.csv is not what its job wrote: delete it" in output
    assert "Traceback" not in output
    samples.unlink()
    code, output = snakemake(finished, *SMOKE, "--", FITTED)
    assert code == 0, output
    assert samples.read_bytes() == before


def test_results_dated_in_the_future_are_named_before_an_edit_goes_unseen(finished):
    file = finished / "results/smoke/networks/alexnet.json"
    dated = file.stat()
    os.utime(file, (time.time(), time.time() + 3600))
    code, output = snakemake(finished, *SMOKE)
    os.utime(file, (dated.st_atime, dated.st_mtime))
    assert code == 1
    assert "networks/alexnet.json is dated" in output.splitlines()[-1]


@pytest.mark.skipif(not CAN_MOUNT, reason="mounts a disk, which needs root")
def test_a_read_only_results_folder_ends_in_one_line(finished):
    script = 'mount --bind "$0" "$0"; mount -o remount,bind,ro "$0"; exec "$@"'
    asked = command(*SMOKE, "--forcerun", "tables", "--", "results/smoke/tables/widths.csv")
    done = subprocess.run(
        [*MOUNTS, script, "results/smoke", *asked],
        cwd=finished,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "\nresults/smoke cannot be written (Read-only file system): make it" in done.stderr
    assert "Traceback" not in done.stderr
