"""What the docs name exists: commands, files, links, config keys; the example runs."""

import importlib.util
import re
import shutil
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import ecc
from ecc import config, data, methods, networks, platforms
from ecc.evidence.plan import FIGURES
from ecc.evidence.reproduction import CHECKSUMS, changed
from ecc.evidence.tables import comparison

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "results/*.md", "resources/*.md")
    for path in ROOT.glob(pattern)
)
README = (ROOT / "README.md").read_text()
RULES = "\n".join(path.read_text() for path in sorted((ROOT / "rules").glob("*.smk")))
SCHEMA = config.load(ROOT / "configs/schema.yaml")
EXAMPLES = sorted((ROOT / "docs/examples").glob("*.yaml"))

pages = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def script(path):
    """A script of the docs, imported as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    search = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = search
    return module


def spans(text):
    """Code between single backticks; one that runs over a line's end is on one line."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def commands(text):
    """Lines of shell blocks without their comments, and code in the text that starts a command."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    lines = [line.split("#")[0] for block in blocks for line in block.splitlines()]
    return lines + [span for span in spans(text) if span.startswith(("make ", ".venv/", "sbatch "))]


def keys(schema):
    """Names of all keys that the schema knows, at any depth."""
    if isinstance(schema, list):
        return set().union(*map(keys, schema))
    if not isinstance(schema, dict):
        return set()
    return set(schema.get("properties", {})).union(*map(keys, schema.values()))


@pages
def test_links_inside_the_repository_resolve(page):
    links = re.findall(r"\]\(([^)]+)\)", page.read_text())
    inside = [link.split("#")[0] for link in links if not link.startswith("http")]
    assert [link for link in inside if not (page.parent / link).exists()] == []


@pages
def test_images_are_in_the_repository(page):
    assert not re.search(r"!\[[^]]*\]\(http", page.read_text())


@pages
def test_commands_name_what_exists(page):
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([\w./-]+):", makefile, re.MULTILINE))
    for command in commands(page.read_text()):
        assert set(re.findall(r"\bmake ([\w./-]+)", command)) <= targets, command
        for name in re.findall(r"-m (benchmarks\.\w+)", command):
            assert (ROOT / f"{name.replace('.', '/')}.py").exists(), command
        for name in re.findall(r"(?<![\w./-])(?:[\w-]+/)+[\w-]+\.(?:py|yaml)", command):
            assert name.startswith("results/") or (ROOT / name).exists(), command
        for name in re.findall(r"\b([A-Z]+)=", command):
            assert re.search(rf"^{name} \?=", makefile, re.MULTILINE), command


@pages
def test_files_named_exist(page):
    """Paths from the root or the page; what a run makes, and templates, cannot be there yet."""
    for span in spans(page.read_text()):
        if re.fullmatch(r"\w[\w.-]*/[\w./-]*", span) and not span.startswith(("results/", "data/")):
            places = [
                place for place in (ROOT, page.parent) if (place / span.split("/")[0]).is_dir()
            ]
            assert not places or any((place / span).exists() for place in places), span


@pages
def test_config_keys_named_exist(page):
    """Code such as `device: auto` and `methods.ecc.rho1` names keys of the schema."""
    known = keys(SCHEMA)
    for span in spans(page.read_text()):
        if found := re.fullmatch(r"([a-z][a-z0-9_]*): \S.*", span):
            assert found[1] in known, span
        elif re.match(r"(datasets|networks|platforms|energy|training|methods|experiments)\.", span):
            name = span.split(".")[-1].removesuffix("[]")
            assert name in {*known, "csv", "<name>"}, span


@pytest.mark.parametrize("overlay", EXAMPLES, ids=lambda path: path.stem)
def test_overlays_of_the_docs_are_valid(overlay):
    config.check(config.load(ROOT / "config.yaml", overlay), ROOT / "configs/schema.yaml")


def test_readme_tells_of_every_figure_table_and_registered_name():
    assert set(re.findall(r"`((?:figure|table)_\d\d)`", README)) == set(FIGURES)
    tables = set(re.findall(r"<results>/tables/(\w+)\.csv", RULES))
    told = set(re.findall(r"`(?:results/tables/)?(\w+)\.csv`", README))
    assert told == tables
    for registry in (platforms.PLATFORMS, data.DATASETS):
        assert [name for name in registry if f"`{name}`" not in README] == []


def test_every_method_and_network_is_told_of():
    told = "\n".join(page.read_text() for page in PAGES).lower()
    for registry in (methods.METHODS, networks.ARCHITECTURES):
        assert [name for name in registry if name not in told] == []


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == project["version"]
    assert f"## [{project['version']}]" in (ROOT / "CHANGELOG.md").read_text()
    assert citation["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    assert [paper["year"] for paper in citation["references"]] == [2019, 2017, 2019]


def test_python_in_the_readme_runs():
    names = {}
    for block in re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE):
        exec(block, names)
    error = names["model"].energy(names["widths"]) / names["joules"] - 1
    assert abs(error).mean() < 0.02


def test_example_compresses_the_digits():
    example = script(ROOT / "docs/examples/compress_digits.py")
    found = example.main(replace(example.TRAINING, iterations=8))
    assert list(found.index) == ["uniform", "ecc"]
    assert ((found["measured_energy_j"] / found["budget_j"]).between(0.9, 1.03)).all()
    assert found.filter(like="accuracy").stack().between(0, 1).all()


def test_example_compresses_in_one_call_and_takes_the_network_away(tmp_path):
    path = ROOT / "docs/examples/compress.py"
    assert len(path.read_text().splitlines()) < 40
    example = script(path)
    found = example.main(tmp_path, replace(example.TRAINING, iterations=6))
    assert found.measured_energy_j <= found.budget_j == pytest.approx(0.6 * found.dense_energy_j)
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(ecc.load(tmp_path / "network")(images), found.model(images))
    for name in ("model.safetensors", "model.pt2", "model.onnx", "README.md"):
        assert (tmp_path / "network" / name).stat().st_size > 1000


@pytest.fixture
def own_method(monkeypatch):
    """The example of an own method, registered as its page says."""
    monkeypatch.syspath_prepend(ROOT / "docs/examples")
    example = script(ROOT / "docs/examples/own_method.py")
    monkeypatch.setitem(methods.METHODS, "greedy", example)
    return example


def test_own_method_of_the_docs_compresses_the_digits(own_method):
    assert len((ROOT / "docs/examples/own_method.py").read_text().splitlines()) < 60
    training = replace(sys.modules["compress_digits"].TRAINING, iterations=8)
    found = own_method.main(training, methods=("uniform", "greedy"))
    assert list(found.index) == ["uniform", "greedy"]
    assert (found["measured_energy_j"] <= 1.03 * found["budget_j"]).all()
    assert found.filter(like="accuracy").stack().between(0, 1).all()


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("fraction", [1.0, 0.8, 0.45])
def test_own_method_of_the_docs_is_on_equal_terms(own_method, tiny_problem, fraction, step):
    problem = tiny_problem(fraction, iterations=5, lower_bounds=np.array([2, 3, 1]))
    result = methods.compress("greedy", problem, {"step": step})
    assert problem.joules(result.widths) <= problem.budget_j
    assert (result.widths >= problem.smallest).all()
    assert (result.widths == problem.full_widths).all() == (fraction == 1.0)
    assert np.array_equal(problem.channels.count(result.model), result.widths)
    assert result.iterations == problem.train.asked["batches"] == 5
    assert problem.holdout.asked["ordered"] == 0


@pytest.fixture
def tables(tmp_path):
    """Tables of a run of two methods with two seeds at one budget, and of one energy model."""
    runs = pd.DataFrame(
        {
            "experiment": "mobilenet",
            "platform": "jetson_tx2",
            "method": ["ecc", "ecc", "uniform", "uniform"],
            "budget_fraction": 0.5,
            "budget_j": 0.01,
            "limits": "none",
            "score": "accuracy",
            "dense_accuracy": 0.95,
            "accuracy_before_finetuning": [0.8, 0.82, 0.1, 0.1],
            "accuracy": [0.9, 0.92, 0.7, 0.72],
            "modelled_energy_j": 0.01,
            "measured_energy_j": [0.0098, 0.0099, 0.01, 0.0102],
            "within_budget": [True, True, True, False],
        }
    )
    runs.to_csv(tmp_path / "accuracy_at_budget.csv", index=False)
    comparison(runs).to_csv(tmp_path / "comparison.csv", index=False)
    update = script(ROOT / "docs/update.py")
    models = [key.rsplit("_", 1) for key in update.MODELS]
    errors = pd.DataFrame(models, columns=["model", "fit"])
    errors = errors.assign(platform="jetson_tx2", network="mobilenet", relative_test_error=0.0264)
    errors.to_csv(tmp_path / "energy_model_errors.csv", index=False)
    anchors = pd.DataFrame({"relative_difference": [0.001, -0.004]})
    anchors.to_csv(tmp_path / "energy_anchors.csv", index=False)
    lead = {"source": "ECC, Figure 4", "claim": "ECC leads.", "paper": 0.026, "ours": 0.2}
    untested = {"source": "EAP", "claim": "It takes less.", "verdict": "not testable at this scale"}
    decided = [lead | {"low": 0.1, "high": 0.3, "verdict": "holds", "reason": "3 seeds"}, untested]
    pd.DataFrame(decided).to_csv(tmp_path / "claims.csv", index=False)
    return tmp_path


def test_update_fills_the_readme_from_tables(tables):
    update = script(ROOT / "docs/update.py")
    text = update.filled(README, tables, update.README)
    assert "| MobileNet, Jetson TX2 | 0.50 (0.0100 J) | 0.810 → **0.910** | 0.100 → 0.710 |" in text
    assert "| MobileNet, Jetson TX2 | 2.64 |" in text
    told = " ".join(text.split())
    assert "3 of 4 slim networks are within their budget; the worst exceeds it by 2.0 %" in told
    assert "within 0.40 % of the 2 published" in told
    verdicts = " ".join(update.verdicts(tables).split())
    assert verdicts.startswith("Of 2 claims of the papers, 1 hold in the complete run")
    assert "0 do not hold, 1 are not testable" in verdicts
    assert update.claims(tables).splitlines()[2:] == [
        "| ECC, Figure 4 | ECC leads. | 0.026 | 0.2 (0.1 to 0.3) | holds | 3 seeds |",
        "| EAP | It takes less. |  |  | not testable at this scale |  |",
    ]
    assert update.filled(text, tables, update.README) == text
    with pytest.raises(ValueError, match="accuracy"):
        update.filled("no blocks", tables, update.README)


def test_update_fills_the_page_of_the_methods_from_tables(tables):
    update = script(ROOT / "docs/update.py")
    terms = {
        "experiment": "mobilenet",
        "platform": ["gtx1080ti", "jetson_tx2"] * 2,
        "method": ["ecc", "ecc", "uniform", "uniform"],
        **{key: [1000.0, 2000.0, 10.0, 20.0] for key in update.TERMS},
        "peak_memory_mb": [1.0, 5.0, 2.0, 3.0],
        "accuracy": [0.5, 0.6, 0.7, 0.8],
        "hardware": "a processor",
    }
    pd.DataFrame(terms).to_csv(tables / "equal_terms.csv", index=False)
    assert update.methods(tables).splitlines() == [
        "| Method | Jetson TX2, 0.50 |",
        "| --- | --- |",
        "| ECC | **0.910** ± 0.014 |",
        "| uniform width | 0.710 ± 0.014 |",
    ]
    lines = update.terms(tables).splitlines()
    assert lines[2] == "| uniform width | 15 | 15 | 15 | 15 | 15 | 3 | 0.750 |"
    assert lines[3] == "| ECC | 1,500 | 1,500 | 1,500 | 1,500 | 1,500 | 5 | 0.550 |"
    assert "a processor" in lines[-1]
    assert update.iterations(tables).startswith("As in `configs/methods.yaml`:\n\n| Method |")
    page = (ROOT / "docs/methods/README.md").read_text()
    own = [blocks for path, _, blocks in update.PAGES if path == "docs/methods/README.md"]
    for blocks in own:
        page = update.filled(page, tables, blocks)
    assert len(own) == 2
    assert "| ECC | **0.910** ± 0.014 |" in page


def test_update_fills_the_ablation_from_a_table(tables):
    update = script(ROOT / "docs/update.py")
    found = pd.read_csv(tables / "comparison.csv").replace({"uniform": "ecc_outputs"})
    found.to_csv(tables / "comparison.csv", index=False)
    assert update.ablation(tables).splitlines() == [
        "As in `configs/methods.yaml`:",
        "",
        "| Method | Jetson TX2, 0.50 |",
        "| --- | --- |",
        "| ECC | **0.910** ± 0.014 |",
        "| ECC by outputs | 0.710 ± 0.014 |",
        "",
        "| Gain over | Jetson TX2, 0.50 |",
        "| --- | --- |",
        "| ECC | -0.200 (-14.1 spreads) |",
    ]


def test_reference_results_are_those_of_a_run_and_their_checksums_tell_of_an_edit(tmp_path):
    update = script(ROOT / "docs/update.py")
    for reference in (ROOT / "resources/reference_results").iterdir():
        names = {line.split("  ")[1] for line in (reference / CHECKSUMS).read_text().splitlines()}
        assert names == {path.name for path in reference.glob("*.csv")}
        assert changed(reference).empty, f"{reference}: run docs/update.py"
    made, kept = tmp_path / "tables", tmp_path / "reference"
    shutil.copytree(reference, made)
    shutil.copytree(reference, kept)
    with (made / "comparison.csv").open("a") as file:
        file.write("one,more\n")
    update.refer(made, kept)
    assert (kept / "comparison.csv").read_bytes() == (made / "comparison.csv").read_bytes()
    assert changed(kept).empty
    assert list(changed(made)["file"]) == ["comparison.csv"]


def test_numbers_of_the_docs_are_those_of_the_reference_results():
    update = script(ROOT / "docs/update.py")
    checked = 0
    for page, folder, blocks in update.PAGES:
        reference = ROOT / "resources/reference_results" / (folder or "default")
        if reference.is_dir():
            text = (ROOT / page).read_text()
            assert update.filled(text, reference, blocks) == text, page
            checked += 1
    assert checked >= 3
