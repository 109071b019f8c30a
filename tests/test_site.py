"""The documentation: what its pages show is run, generated pages are current, the site is whole."""

import os
import re
import subprocess
import sys
from dataclasses import fields
from importlib.util import find_spec

import pandas as pd
import pytest
import yaml
from test_cluster import PLUGINS
from test_docs import ROOT, pages, script
from test_layout import declared_rules
from test_page import LOADED
from test_workflow import clone

import ecc
from ecc import config, methods, platforms
from ecc.errors import UserError
from ecc.evidence import efficiency, provenance, tables
from ecc.measuring.interface import SensorError
from ecc.platforms import __main__ as command

HOWTOS = sorted((ROOT / "docs/howto").glob("*.md"))
TUTORIAL, MEASURING = ROOT / "docs/tutorial.md", ROOT / "docs/measuring.md"
METHOD_PAGES = sorted((ROOT / "docs/methods").glob("*.md"))
OWN_METHOD = ROOT / "docs/methods/README.md"
RESULTS = ROOT / "docs/reference/results.md"
SCHEMA = ROOT / "configs/schema.yaml"
shown_pages = pytest.mark.parametrize(
    "page", [*HOWTOS, MEASURING, *METHOD_PAGES], ids=lambda path: path.stem
)


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


@shown_pages
def test_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"Methods": methods.Methods}  # the page of methods shows a line of that module
    for block in blocks(page, "python"):
        exec(block, names)
    if page == OWN_METHOD:
        assert "greedy" in list(names["METHODS"])
    if page.stem == "own_network":
        result = names["result"]
        assert result.measured_energy_j <= result.budget_j
    if page.stem == "own_platform":
        assert names["energy"].relative_error(names["model"], *names["test"]) < 1e-9


@shown_pages
def test_yaml_of_a_page_is_a_valid_overlay(page, own_schema):
    default = config.load(ROOT / "config.yaml")
    for block in blocks(page, "yaml"):
        if "..." not in block:
            overlay = config.merge(default, yaml.safe_load(block))
            config.check(overlay, own_schema if page == OWN_METHOD else SCHEMA)


@pytest.fixture
def own_schema(tmp_path):
    """The schema with what the page of methods adds to it for a method of one's own."""
    schema, (added, _) = config.load(SCHEMA), blocks(OWN_METHOD, "yaml")
    added = yaml.safe_load(added)
    method, known = added.pop("method"), schema["$defs"]["method"]
    known["properties"]["method"]["enum"] += method["properties"]["method"]["enum"][1:]
    known["allOf"] += method["allOf"]
    schema["$defs"] |= added
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(schema))
    return tmp_path / "schema.yaml"


def test_schema_of_the_own_method_of_the_docs_has_its_settings(own_schema, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs/examples")
    own = script(ROOT / "docs/examples/own_method.py").Settings
    known = config.load(own_schema)["$defs"]["greedy"]["properties"]
    assert set(known) - {"method", "energy_model"} == {field.name for field in fields(own)}
    wrong = {"methods": {"greedy": {"method": "greedy", "step": 0}}}
    with pytest.raises(UserError, match=r"methods\.greedy\.step"):
        config.check(config.merge(config.load(ROOT / "config.yaml"), wrong), own_schema)


def test_own_method_of_the_docs_enters_the_workflow_by_its_steps(
    tmp_path, monkeypatch, own_schema, tiny_problem
):
    text = (ROOT / "docs/examples/own_method.py").read_text().partition("\nif __name__")[0]
    gone = r"^(import sys|from (compress_digits|ecc\.methods) import .*)\n"
    text = re.sub(gone, "", text, flags=re.MULTILINE)
    text = text.replace("import FixedZeros", "import Compressed, FixedZeros, Problem")
    (tmp_path / "greedy.py").write_text(text)
    module = script(tmp_path / "greedy.py")
    monkeypatch.setitem(sys.modules, "ecc.methods.greedy", module)
    names = {"Methods": methods.Methods}
    exec(blocks(OWN_METHOD, "python")[0], names)
    monkeypatch.setattr(methods, "METHODS", names["METHODS"])

    _, entry = blocks(OWN_METHOD, "yaml")
    settings = config.merge(config.load(ROOT / "config.yaml"), yaml.safe_load(entry))
    settings["experiments"][0]["methods"].append("greedy")
    with pytest.raises(UserError, match=r"methods\.greedy\.method: 'greedy' is unknown"):
        config.check(settings, SCHEMA)
    own = config.check(settings, own_schema)["methods"]["greedy"]
    problem = tiny_problem(0.5, iterations=3)
    result = methods.compress(own.pop("method"), problem, own)
    assert problem.inside(result.widths)


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
        assert LOADED.findall(text) == []
        assert "mermaid" not in re.findall(r'class="([^"]*)"', text)
    for path in tmp_path.rglob("*.css"):
        assert LOADED.findall(path.read_text()) == []


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
@shown_pages
def test_workflows_of_a_page_can_be_planned(page, folder):
    """Those of a profile whose executor is installed, and without a profile."""
    for line in "".join(blocks(page, "sh")).splitlines():
        executor = re.search(r"profiles/(\w+)", line)
        if executor and find_spec(f"snakemake_executor_plugin_{PLUGINS[executor[1]]}") is None:
            continue
        command, _, arguments = line.split(" #")[0].partition("snakemake ")
        if line.startswith((".venv/bin/snakemake ", "snakemake ")):
            assert "Job stats" in run(folder, f"{command}snakemake -n {arguments}"), line


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
