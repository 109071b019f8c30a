"""Comparing two runs: any number that was edited is found, and what no run repeats is not."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from ecc import files
from ecc.errors import UserError
from ecc.evidence.reproduction import CHECKSUMS, changed, compare, main, write_checksums

ROOT = Path(__file__).parents[1]


def beside(folder):
    """The results of another run, which are in a folder of this one."""
    (folder / "logs/tables").mkdir(parents=True)
    (folder / "logs/tables/all.log").touch()
    (folder / "metrics.json").write_text("1.0")
    return folder / "metrics.json"


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "reference"
    (folder / "tables").mkdir(parents=True)
    (folder / "finetuned").mkdir()
    (folder / "logs").mkdir()
    table = {"method": ["ecc", "uniform"], "accuracy": [0.9, 0.7], "energy_j": [1.0, 2.0]}
    pd.DataFrame(table).to_csv(folder / "tables/accuracy_at_budget.csv", index=False)
    pd.DataFrame({"seconds": [1.0]}).to_csv(folder / "tables/timings.csv", index=False)
    (folder / "logs/run.json").write_text("{}")
    metrics = {"accuracy": 0.9, "groups": [{"width": 3}], "seconds": 1.0, "hardware": {"cores": 2}}
    (folder / "finetuned/metrics.json").write_text(json.dumps(metrics))
    shutil.copytree(folder, tmp_path / "found")
    return folder, tmp_path / "found"


def edit(path, before, after):
    text = path.read_text()
    assert text.count(before) == 1
    path.write_text(text.replace(before, after))


def test_a_copy_has_not_moved(run, capsys):
    assert compare(*run).empty
    assert main([str(folder) for folder in run]) == 0
    assert "2 files" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "before", "after", "where"),
    [
        ("tables/accuracy_at_budget.csv", "0.7", "0.70000001", "row 2, accuracy"),
        ("tables/accuracy_at_budget.csv", "uniform", "amc", "row 2, method"),
        ("finetuned/metrics.json", '"width": 3', '"width": 4', "groups.0.width"),
    ],
)
@pytest.mark.parametrize("side", [0, 1])
def test_one_edited_value_is_found_on_either_side(run, file, before, after, where, side, capsys):
    edit(run[side] / file, before, after)
    moved = compare(*run)
    assert list(moved["where"]) == [where]
    assert main([str(folder) for folder in run]) == 1
    assert f"{file}: {where}:" in capsys.readouterr().out


def test_what_no_second_run_repeats_is_left_out(run):
    edit(run[1] / "tables/timings.csv", "1.0", "9.0")
    edit(run[1] / "finetuned/metrics.json", '"seconds": 1.0', '"seconds": 7.0')
    edit(run[1] / "finetuned/metrics.json", '"cores": 2', '"cores": 64')
    assert compare(*run).empty


def test_files_and_rows_that_are_missing_are_found(run):
    (run[1] / "finetuned/metrics.json").unlink()
    edit(run[1] / "tables/accuracy_at_budget.csv", "uniform,0.7,2.0\n", "")
    moved = compare(*run)
    assert "is missing" in list(moved["found"])
    assert "rows" in list(moved["where"])


def test_tolerances_are_of_scores_and_of_other_numbers(run):
    edit(run[1] / "tables/accuracy_at_budget.csv", "0.7", "0.72")
    edit(run[1] / "tables/accuracy_at_budget.csv", "2.0", "2.01")
    assert len(compare(*run)) == 2
    assert list(compare(*run, accuracy=0.03)["where"]) == ["row 2, energy_j"]
    assert compare(*run, accuracy=0.03, relative=0.01).empty
    assert len(compare(*run, accuracy=0.01, relative=0.001)) == 2


def test_reasons_repeat_numbers_and_are_left_out_where_those_have_a_tolerance(run):
    for folder, reason in zip(run, ("3 of 4 runs", "2 of 4 runs"), strict=True):
        table = {"verdict": ["holds"], "ours": [0.75], "reason": [reason]}
        pd.DataFrame(table).to_csv(folder / "tables/claims.csv", index=False)
    assert list(compare(*run)["where"]) == ["row 1, reason"]
    assert compare(*run, accuracy=0.1).empty


def test_a_folder_that_is_not_there_is_said(run, tmp_path, capsys):
    assert main([str(run[0]), str(tmp_path / "none")]) == 2
    assert "run the workflow first" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["tables/timings.csv", "finetuned/metrics.json", "figures/1.png"])
def test_a_file_that_changed_after_its_run_is_found(run, file, capsys):
    for folder in run:
        (folder / "figures").mkdir()
        (folder / "figures/1.png").write_bytes(b"1.0")
    found = run[1]
    write_checksums(found, found / CHECKSUMS)
    assert changed(found).empty
    assert changed(run[0]).empty  # has no checksums
    edit(found / file, "1.0", "1.5")
    assert list(changed(found)["file"]) == [file]
    assert main([str(folder) for folder in run]) == 1
    assert f"{file}: checksums.txt" in capsys.readouterr().out
    (found / file).unlink()
    assert list(changed(found)["found"]) == ["is missing"]


@pytest.mark.parametrize(
    "file",
    [
        "samples/sim/mobilenet/campaign/windows.csv",
        "closing/mobilenet/sim/ecc/round-0/windows.csv",
        "benchmarks/compress/a.tsv",
    ],
)
def test_an_edit_of_what_no_second_run_repeats_is_found(run, file):
    for folder in run:
        (folder / file).parent.mkdir(parents=True)
        (folder / file).write_text("energy_j\n1.0\n")
    (run[1] / file).write_text("energy_j\n2.0\n")
    assert compare(*run).empty
    write_checksums(run[0], run[0] / CHECKSUMS)
    edit(run[0] / file, "1.0", "1.5")
    assert list(changed(run[0])["file"]) == [file]


@pytest.mark.parametrize("file", ["report.html", "exported/a/model.onnx"])
def test_an_edit_of_what_is_made_after_the_checksums_is_found_by_its_seal(run, file):
    folder = run[0]
    write_checksums(folder, folder / CHECKSUMS)
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text("1.0")
    files.seal(folder / file)
    other = beside(folder / "other")
    files.seal(other)
    edit(other, "1.0", "1.5")
    assert changed(folder).empty
    edit(folder / file, "1.0", "1.5")
    assert list(changed(folder)["file"]) == [file]


def test_checksums_are_of_results_alone_and_as_sha256sum_has_them(run):
    folder = run[0]
    beside(folder / "reproduced")
    beside(folder / "scaling/cores-1")
    (folder / "README.md").write_text("")
    (folder / "benchmarks/checksums").mkdir(parents=True)
    (folder / "benchmarks/checksums/all.tsv").write_text("of the job that writes them")
    write_checksums(folder, folder / CHECKSUMS)
    names = [line.split("  ")[1] for line in (folder / CHECKSUMS).read_text().splitlines()]
    tables = ["tables/accuracy_at_budget.csv", "tables/timings.csv"]
    assert names == ["finetuned/metrics.json", *tables]
    subprocess.run(["sha256sum", "--check", CHECKSUMS], cwd=folder, check=True)


@pytest.mark.parametrize("name", ["mobilenet", "logs", "benchmarks"])
def test_an_experiment_that_has_the_name_of_another_folder_is_of_the_run(run, name):
    own = f"dense/{name}/metrics.json"
    for folder in run:
        beside(folder / "mobilenet")
        (folder / own).parent.mkdir(parents=True)
        (folder / own).write_text("1.0")
    write_checksums(run[0], run[0] / CHECKSUMS)
    for file in (own, "mobilenet/metrics.json"):
        edit(run[0] / file, "1.0", "1.5")
    assert list(changed(run[0])["file"]) == [own]
    assert list(compare(*run)["file"]) == [own]


def test_checksums_are_not_written_of_a_file_that_its_job_did_not_write(run):
    folder = run[0]
    table = folder / "tables/accuracy_at_budget.csv"
    files.seal(table)
    (table.parent / f".{table.name}.1.part").touch()
    write_checksums(folder, folder / CHECKSUMS)
    assert not re.search(r"\.sha256|\.part", (folder / CHECKSUMS).read_text())
    edit(table, "0.7", "0.8")
    with pytest.raises(UserError, match=f"-- {table}"):
        write_checksums(folder, folder / CHECKSUMS)
    assert list(changed(folder)["file"]) == ["tables/accuracy_at_budget.csv"]


def test_pixels_are_made_again_by_way_of_their_manifest(run):
    folder = run[0] / "data/digits"
    folder.mkdir(parents=True)
    for name in ("manifest.json", "pixels.safetensors"):
        (folder / name).write_text("{}")
    files.seal(folder / "pixels.safetensors")
    (folder / "pixels.safetensors").write_text("[]")
    with pytest.raises(UserError, match=rf"delete it and {folder}/manifest.json, and run .*-- "):
        write_checksums(run[0], run[0] / CHECKSUMS)


@pytest.mark.parametrize("file", ["tables/accuracy_at_budget.csv", "finetuned/metrics.json"])
def test_a_file_that_is_not_whole_is_listed(run, file):
    (run[1] / file).write_bytes(b'{"accuracy": "\xff')
    assert file in set(compare(*run)["file"])


@pytest.mark.parametrize(
    ("there", "code", "words"),
    [
        (None, 2, "nothing to compare with: neither results/tables nor resources/"),
        ("results/tables", 0, "RAN"),
        ("resources/reference_results/default", 0, "RAN"),
    ],
)
def test_make_reproduce_does_not_begin_where_there_is_nothing_to_compare(
    tmp_path, there, code, words
):
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "config.yaml").write_text("results: results\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").symlink_to(shutil.which("true"))
    if there:
        (tmp_path / there).mkdir(parents=True)
    asked = ["make", "reproduce", "-o", ".venv/ready", "BIN=bin", "SNAKEMAKE=echo RAN"]
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert words in done.stdout
    assert code == 0 or "RAN" not in done.stdout
