"""The house keeps its order: rules and scripts, schema and library, pins, imports without torch."""

import ast
import re
import subprocess
import sys
from dataclasses import fields
from functools import reduce
from importlib import metadata
from inspect import signature
from operator import getitem
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ecc import data, energy, methods, networks, platforms, sources, training
from ecc.measuring import interface
from ecc.measuring.simulated import Simulation
from ecc.measuring.torch_runner import RunSettings
from ecc.methods import METHODS

ROOT = Path(__file__).parents[1]
SCHEMA = yaml.safe_load((ROOT / "configs/schema.yaml").read_text())
DEFINITIONS = SCHEMA["$defs"]
SCRIPTS = {path.stem for path in (ROOT / "workflow_scripts").glob("*.py")}


def declared_rules():
    """(name, text) of every rule; of generated ones the name before wildcards."""
    text = "\n".join(path.read_text() for path in sorted((ROOT / "rules").glob("*.smk")))
    for block in re.split(r"^(?= *rule\b)", text, flags=re.MULTILINE)[1:]:
        declared = re.match(r' *rule (\w+):| *rule:\s+name:\s+f"(\w+?)_\{', block)
        yield declared[1] or declared[2], block


RULES = [(name, rule) for name, rule in declared_rules() if "script:" in rule]


@pytest.mark.parametrize(("name", "rule"), RULES, ids=[name for name, _ in RULES])
def test_rule_script_log_and_benchmark_have_one_name(name, rule):
    assert f'"../workflow_scripts/{name}.py"' in rule
    assert f'"<logs>/{name}/' in rule
    assert f'"<benchmarks>/{name}/' in rule
    assert f'library=library("{name}")' in rule


def test_every_script_has_its_rule():
    assert {name for name, _ in RULES} == SCRIPTS


def properties(schema, path=()):
    """(path, description) of every key that the schema knows."""
    for name, entry in schema.get("properties", {}).items():
        resolved = {**resolve(entry), **entry}
        yield (*path, name), resolved.get("description")
        yield from properties(resolved, (*path, name))
    for key in ("additionalProperties", "items", "then", "else"):
        if isinstance(schema.get(key), dict):
            yield from properties(resolve(schema[key]), path)
    for part in schema.get("allOf", []):
        yield from properties(resolve(part["then"]), path)


def resolve(entry):
    reference = entry.get("$ref")
    if not reference:
        return entry
    target = reduce(getitem, reference.removeprefix("#/").split("/"), SCHEMA)
    return {**resolve(target), **entry}


def test_schema_describes_every_key_and_forbids_unknown_ones():
    assert [path for path, description in properties(SCHEMA) if not description] == []
    closed = [SCHEMA, *(part for part in DEFINITIONS.values() if "properties" in part)]
    wrappers = [DEFINITIONS[name] for name in ("dataset", "method", "energy_model", "platform")]
    assert all(part in wrappers or part.get("additionalProperties") is False for part in closed)


def test_schema_knows_what_the_library_knows():
    network = SCHEMA["properties"]["networks"]["additionalProperties"]["properties"]
    model = DEFINITIONS["energy_model"]["properties"]
    assert network["architecture"]["else"]["enum"] == sorted(networks.ARCHITECTURES)
    for name, architecture in networks.ARCHITECTURES.items():
        assert set(DEFINITIONS[name]["properties"]) == {
            parameter.name
            for parameter in signature(architecture.build).parameters.values()
            if parameter.kind is parameter.KEYWORD_ONLY
        }
    assert DEFINITIONS["platform"]["properties"]["kind"]["enum"] == sorted(platforms.KINDS)
    assert set(DEFINITIONS["dataset"]["properties"]["kind"]["enum"]) == set(data.DATASETS)
    assert set(DEFINITIONS["method"]["properties"]["method"]["enum"]) == set(methods.METHODS)
    assert set(model["model"]["enum"]) == set(energy.KINDS)
    assert set(model["fit"]["enum"]) == {fit for _, fit in energy.FITS}


@pytest.mark.parametrize("kind", data.DATASETS)
def test_schema_has_the_settings_of_a_dataset(kind):
    assert set(DEFINITIONS[kind]["properties"]) == {"kind", *data.DATASETS[kind].defaults}


@pytest.mark.parametrize(
    ("definition", "settings", "more"),
    [
        ("stage", training.TrainingSettings, set()),
        ("phase", training.TrainingSettings, {"loss"}),
        *((name, module.Settings, {"method", "energy_model"}) for name, module in METHODS.items()),
    ],
)
def test_schema_has_the_settings_of_the_library(definition, settings, more):
    expected = {field.name for field in fields(settings)} - {"device"} | more
    assert set(DEFINITIONS[definition]["properties"]) == expected


SAMPLED = {"kind", "samples", "test_samples"}
RUN = {field.name for field in fields(RunSettings)} - {"seed"}


@pytest.mark.parametrize("kind", platforms.SENSORS)
def test_schema_has_the_settings_of_a_sensor(kind):
    own = {field.name for field in fields(platforms.SENSORS[kind].Settings)}
    run = RUN - {"device", "graphs"} if kind == "rapl" else RUN
    assert set(DEFINITIONS[kind]["properties"]) == {*SAMPLED, "protocol", *own, *run}


def test_schema_has_the_settings_of_campaigns_and_of_the_simulation():
    protocol = {field.name for field in fields(interface.Settings)}
    assert set(DEFINITIONS["protocol"]["properties"]) == protocol
    simulated = {field.name for field in fields(Simulation)}
    expected = {*SAMPLED, "protocol", "device", *simulated}
    assert set(DEFINITIONS["simulated"]["properties"]) == expected


def test_default_names_emulated_and_recorded_platforms_alone():
    entries = yaml.safe_load((ROOT / "config.yaml").read_text())["platforms"].values()
    assert {entry["kind"] for entry in entries} <= {*platforms.PLATFORMS, "recorded"}


def pins(text):
    return dict(re.findall(r"^[ -]*([\w-]+)(?:\[\w+\])?==([\w.]+)$", text, re.MULTILINE))


@pytest.mark.parametrize("path", sorted((ROOT / "envs").glob("*.yaml")), ids=lambda path: path.stem)
def test_conda_environments_have_the_pinned_versions(path):
    pinned = pins((ROOT / "envs/requirements.txt").read_text())
    (from_pip,) = (
        entry["pip"]
        for entry in yaml.safe_load(path.read_text())["dependencies"]
        if isinstance(entry, dict)
    )
    own = pins("\n".join(from_pip))
    assert len(own) == len(from_pip)
    assert own.items() <= pinned.items()


def requirements_of(names):
    """The distributions of these names and all that they need here, by their canonical names."""
    found, ahead = {}, [Requirement(name) for name in names]
    while ahead:
        wanted = ahead.pop()
        key = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if key in found:
            continue
        found[key] = metadata.distribution(wanted.name)
        for text in found[key].requires or []:
            needed = Requirement(text)
            extras = [{"extra": extra} for extra in wanted.extras or [""]]
            if needed.marker is None or any(map(needed.marker.evaluate, extras)):
                ahead.append(needed)
    return {name: found[name, extras].version for name, extras in found}


def test_the_lock_has_all_that_the_requirements_need():
    lock = pins((ROOT / "envs/lock.txt").read_text())
    locked = {canonicalize_name(name): version for name, version in lock.items()}
    files = [*(ROOT / "envs").glob("requirements*.txt")]
    assert len(files) == 3
    text = "\n".join(path.read_text() for path in files)
    wanted = re.findall(r"^([\w-]+(?:\[\w+\])?)==", text, re.MULTILINE)
    assert len(wanted) > 30
    needed = requirements_of(wanted)
    assert len(needed) > 100
    assert needed.items() <= locked.items()


IMPORT_NAMES = {
    "sklearn": "scikit-learn",
    "PIL": "pillow",
    "yaml": "PyYAML",
    "pynvml": "nvidia-ml-py",
    "torch_pruning": "torch-pruning",
    "markupsafe": "jinja2",  # comes with it
}


def needed(script):
    """Packages that importing a script may import, through the library too."""
    names = set()
    for file in (script, *map(Path, sources.imported(script, ROOT / "ecc"))):
        ahead = [*ast.parse(file.read_text()).body]
        while ahead:  # not in functions, which may never be called
            node = ahead.pop()
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                continue
            if isinstance(node, ast.If | ast.Try | ast.With):
                ahead += node.body
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module)
    tops = {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"ecc"}
    return {IMPORT_NAMES.get(name, name) for name in tops}


@pytest.mark.parametrize(("name", "rule"), RULES, ids=[name for name, _ in RULES])
def test_conda_environment_of_a_rule_has_what_its_script_imports(name, rule):
    environment = re.search(r'"\.\./(envs/\w+\.yaml)"', rule)[1]
    (from_pip,) = (
        entry["pip"]
        for entry in yaml.safe_load((ROOT / environment).read_text())["dependencies"]
        if isinstance(entry, dict)
    )
    missing = needed(ROOT / f"workflow_scripts/{name}.py") - set(pins("\n".join(from_pip)))
    if missing:  # what a registry loads by name may not be wanted
        code = f"import sys, workflow_scripts.{name}; print(*sys.modules)"
        told = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
        loaded = {module.split(".")[0] for module in told.split()}
        missing &= {IMPORT_NAMES.get(module, module) for module in loaded}
    assert missing == set()


@pytest.mark.parametrize(
    "module", ["config", "structure", "budgets", "platforms", "energy", "evidence.tables", "runs"]
)
def test_small_jobs_do_not_import_torch(module):
    code = f"import sys, ecc.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
