"""The documentation: what its pages show is run, generated pages are current, the site is whole."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec

import pandas as pd
import pytest
import yaml
from test_cluster import PLUGINS
from test_docs import ROOT, pages, script
from test_layout import declared_rules
from test_workflow import clone

import ecc
from ecc import config, platforms
from ecc.evidence import efficiency, provenance, tables
from ecc.measuring.interface import SensorError
from ecc.platforms import __main__ as command

HOWTOS = sorted((ROOT / "docs/howto").glob("*.md"))
TUTORIAL, MEASURING = ROOT / "docs/tutorial.md", ROOT / "docs/measuring.md"
RESULTS = ROOT / "docs/reference/results.md"


def blocks(page, language):
    """Code blocks of a page; a command that goes on on another line is on one."""
    text = page.read_text().replace("\\\n", "")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def anchors(page):
    """What a code host calls the headings of a page."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_links_lead_to_headings_that_exist(page):
    for link, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
        assert anchor in anchors(page.parent / link if link else page), (link, anchor)


@pytest.mark.parametrize("page", [*HOWTOS, MEASURING], ids=lambda path: path.stem)
def test_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks(page, "python"):
        exec(block, names)
    if page.stem == "own_network":
        result = names["result"]
        assert result.measured_energy_j <= result.budget_j
    if page.stem == "own_platform":
        assert names["energy"].relative_error(names["model"], *names["test"]) < 1e-9


@pytest.mark.parametrize("page", [*HOWTOS, MEASURING], ids=lambda path: path.stem)
def test_yaml_of_a_page_is_a_valid_overlay(page):
    default = config.load(ROOT / "config.yaml")
    for block in blocks(page, "yaml"):
        if "..." not in block:
            overlay = config.merge(default, yaml.safe_load(block))
            config.check(overlay, ROOT / "configs/schema.yaml")


def test_reference_of_the_configuration_is_current():
    reference = script(ROOT / "docs/reference.py")
    assert reference.PAGE.read_text() == reference.page(), "run docs/reference.py"


def test_reference_of_python_has_what_ecc_offers():
    told = (ROOT / "docs/reference/api.md").read_text()
    assert {f"ecc.{name}" for name in ecc.__all__} <= set(re.findall(r"^::: (\S+)$", told, re.M))


def test_columns_of_tables_are_those_of_the_page():
    # Of tables without reference results.
    known = {
        "closing.csv": tables.CLOSING,
        "efficiency.csv": efficiency.RULES,
        "equal_terms.csv": tables.EQUAL_TERMS,
        "provenance.csv": provenance.FILES,
        "run_efficiency.csv": efficiency.RUN,
    }
    for table, section in re.findall(
        r"^## (\w+\.csv).*?$(.*?)(?=^## |\Z)", RESULTS.read_text(), re.M | re.S
    ):
        rows = [line for line in section.splitlines() if line.startswith("|")][2:]
        first = [line.split("|")[1] for line in rows]
        told = re.findall(r"`(\w+)`", " ".join(first))
        files = ROOT.glob(f"resources/reference_results/**/{table}")
        columns = known[table] if table in known else list(pd.read_csv(next(files)))
        assert set(told) <= set(columns)
        assert table != "accuracy_at_budget.csv" or set(told) == set(columns)


def test_tutorial_names_rules_that_exist():
    named = re.findall(r"^\| (`\w+`(?:, `\w+`)*)", TUTORIAL.read_text(), re.MULTILINE)
    found = set(re.findall(r"`(\w+)`", " ".join(named)))
    assert len(found) > 10
    assert found <= {name for name, _ in declared_rules()}


class Counter:
    """A clock and a file of microjoules, which rises by 20 W."""

    def __init__(self, root):
        self.file, self.seconds = root / "sys/class/hwmon/hwmon3/energy1_input", 0.0
        self.file.parent.mkdir(parents=True)
        (self.file.parent / "name").write_text("powermeter\n")
        self.sleep(0)

    def now(self):
        return self.seconds

    def sleep(self, seconds):
        self.seconds += max(seconds, 0.01)
        self.file.write_text(f"{20e6 * self.seconds:.0f}\n")


def test_own_sensor_of_the_docs_is_listed_and_read(tmp_path, monkeypatch):
    sensor = script(ROOT / "docs/examples/own_sensor.py")
    monkeypatch.setitem(platforms.SENSORS, "hwmon", sensor)
    assert "no energy1_input" in sensor.probe(tmp_path)[0].lacks
    clock = Counter(tmp_path)
    assert not sensor.probe(tmp_path)[0].lacks
    assert "20.0 W" in command.check("hwmon", clock, tmp_path)
    meter = sensor.meter(sensor.Settings(), "cpu", clock, tmp_path)
    begin = meter.read()
    clock.sleep(2)
    end = meter.read()
    assert end.total - begin.total == pytest.approx(20 * (end.seconds - begin.seconds))
    clock.file.write_text("5\n")
    with pytest.raises(SensorError, match="reset"):
        meter.read()
    with pytest.raises(SensorError, match="no other with"):
        sensor.meter(sensor.Settings("other"), "cpu", clock, tmp_path)


def test_site_is_whole_and_asks_nothing_of_the_network(tmp_path):
    """Strict: a link or a name of the library that leads nowhere ends the build."""
    build = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    shown = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.html")}
    for page in (ROOT / "docs").rglob("*.md"):
        own = page.relative_to(ROOT / "docs")
        name = "index" if own.stem == "README" else own.stem
        assert own.with_name(f"{name}.html") in shown
    for path in tmp_path.rglob("*.html"):
        text = path.read_text()
        assert not re.search(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=.?(?:https?:)?//", text)
        assert "mermaid" not in re.findall(r'class="([^"]*)"', text)
    for path in tmp_path.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import).?(?:https?:)?//", path.read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of the repository, as a clone is after `make .venv/ready`."""
    found = clone(tmp_path_factory.mktemp("clone"))
    (found / ".venv").symlink_to(sys.prefix)
    return found


def run(folder, line):
    """What a line of a page prints; it must succeed."""
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.workflow
@pytest.mark.parametrize("page", HOWTOS, ids=lambda path: path.stem)
def test_workflows_of_a_page_can_be_planned(page, folder):
    """Those of a profile whose executor is installed, and without a profile."""
    for line in "".join(blocks(page, "sh")).splitlines():
        executor = re.search(r"profiles/(\w+)", line)
        if executor and find_spec(f"snakemake_executor_plugin_{PLUGINS[executor[1]]}") is None:
            continue
        if line.startswith(".venv/bin/snakemake"):
            assert "Job stats" in run(folder, f"{line.split(' #')[0]} -n"), line


@pytest.mark.workflow
def test_tutorial_leads_to_a_network(folder, monkeypatch, capsys):
    """Line by line, in fewer iterations than it has, at one budget."""
    overlay = folder / "docs/examples/tutorial.yaml"
    shorter = re.sub(r"iterations: \d+", "iterations: 6", overlay.read_text())
    shorter = shorter.replace("{reducible: 0.4}, ", "")
    overlay.write_text(shorter.replace("energy: {", "energy: {samples: 300, test_samples: 100, "))
    monkeypatch.chdir(folder)
    names = {}
    for language, block in re.findall(
        r"^```(sh|python)\n(.*?)^```$", TUTORIAL.read_text(), re.M | re.S
    ):
        if language == "python":
            exec(block, names)
        elif not block.startswith("make "):
            run(folder, block)
    told = capsys.readouterr().out.split()
    chosen = names["runs"].query("method == 'ecc'").nsmallest(1, "budget_j")
    assert float(told[-1]) == pytest.approx(chosen["after"].item(), abs=1e-6)
    for path in re.findall(r"\| `([\w/]+\.\w+)` \|", TUTORIAL.read_text()):
        assert (folder / "results/tutorial" / path).exists(), path
