"""What schedulers are told: profiles, the resources of rules, the container."""

import ast
import re
import subprocess
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from snakemake.cli import get_argument_parser
from test_layout import declared_rules

from ecc.config import merge
from ecc.data import DATASETS
from ecc.gpus import FILES, used
from ecc.networks import ARCHITECTURES, Network
from tests.faults.workspace import PARTS, clone, snakemake

ROOT = Path(__file__).parents[1]
PROFILES = sorted(path.parent.name for path in (ROOT / "profiles").glob("*/profile.yaml"))
PLUGINS = {"slurm": "slurm", "generic": "cluster_generic", "kubernetes": "kubernetes"}
SMOKE = ("--configfile", "configs/smoke.yaml")
# Peak in MB and seconds of the longest job of a rule in the default run, on 2 cores.
TOOK = {
    "prepare_data": (839, 17.2),
    "train_dense": (866, 70.6),
    "trace_network": (1204, 16.9),
    "sample_energy": (158, 4.4),
    "fit_energy_models": (805, 43.2),
    "resolve_budgets": (119, 5.0),
    "compress": (1099, 382.3),
    "close_budgets": (1070, 25.2),
    "finetune": (1706, 126.8),
    "verify_energy": (140, 3.1),
    "tables": (92, 1.6),
    "figures": (219, 11.3),
    "claims": (153, 5.9),
    "timings": (80, 1.4),
}


def planned(folder, *arguments):
    """Threads and resources of every job of a dry run that does something: (rule, what it asks)."""
    if "--workflow-profile" not in arguments:
        arguments = ("--workflow-profile", "none", *arguments)
    code, output = snakemake(folder, "-n", *arguments)
    assert code == 0, output
    jobs = []
    for block in re.split(r"^(?:local)?rule ", output, flags=re.MULTILINE)[1:]:
        told = re.search(r"^ +resources: (.*)$", block, re.MULTILINE)
        asked = dict(re.findall(r"(\w+)=([^,\s]+)", told[1] if told else ""))
        threads = re.search(r"^ +threads: (\d+)$", block, re.MULTILINE)
        asked["threads"] = threads[1] if threads else "1"
        jobs.append((re.match(r"\w+", block)[0], asked))
    return [(name, asked) for name, asked in jobs if name != "all"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return clone(tmp_path_factory.mktemp("cluster"))


@pytest.fixture(scope="module")
def default_jobs(folder):
    return planned(folder)


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_hold_options_that_there_are(name):
    options = {
        word.removeprefix("--")
        for action in get_argument_parser()._actions
        for word in action.option_strings
    }
    profile = yaml.safe_load((ROOT / f"profiles/{name}/profile.yaml").read_text())
    executor = profile.get("executor", "local")
    absent = executor != "local" and find_spec(f"snakemake_executor_plugin_{PLUGINS[name]}") is None
    unknown = {key for key in profile if not (absent and key.startswith(f"{executor}-"))} - options
    assert unknown == set()


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_plan_the_smoke_configuration(name, folder):
    if name in PLUGINS and find_spec(f"snakemake_executor_plugin_{PLUGINS[name]}") is None:
        pytest.skip(f"the executor of profiles/{name} is not installed")
    code, output = snakemake(folder, *SMOKE, "--workflow-profile", f"profiles/{name}", "-n")
    assert code == 0, output
    assert f"profiles/{name}" in output
    assert "Job stats" in output


def test_the_slurm_profile_names_partitions_that_the_plugin_reads():
    partitions = pytest.importorskip("snakemake_executor_plugin_slurm.partitions")
    found = partitions.read_partition_file(ROOT / "profiles/slurm/partitions.yaml")
    assert {each.name: each.limits.max_gpu for each in found}["gpus"] > 0


RULES = list(declared_rules())


@pytest.mark.parametrize(("name", "rule"), RULES, ids=[name for name, _ in RULES])
def test_every_rule_states_threads_memory_time_and_gpus(name, rule):
    assert re.search(r"^ +threads: ", rule, re.MULTILINE)
    stages = {re.search(rf"{key}\(\"(\w+)\"", rule)[1] for key in ("memory", "duration", "gpus")}
    assert len(stages) == 1


def test_jobs_ask_for_more_than_they_took_and_not_for_much_more(default_jobs):
    found = {}
    for name, asked in default_jobs:
        rule = re.sub(r"_(mobilenet|alexnet|erfnet).*", "", name)
        most = found.get(rule, (0, 0))
        found[rule] = (max(most[0], int(asked["mem_mb"])), max(most[1], int(asked["runtime"])))
    for rule, (memory_mb, minutes) in found.items():
        peak_mb, seconds = TOOK.get(rule, (250, 30))
        assert 1.5 * peak_mb <= memory_mb <= 4 * peak_mb + 1500, rule
        assert 2 * seconds <= 60 * minutes <= 15 * seconds + 1800, rule


def test_the_page_of_clusters_says_what_jobs_of_the_default_run_ask_for(default_jobs):
    page = (ROOT / "docs/howto/cluster.md").read_text()
    told = re.findall(r"^\| (.+?) \| .+? \| ([\d, to]+) \| ([\d, to]+) \| .+$", page, re.MULTILINE)
    rows = [re.findall(r"`([a-z_]+)", names) for names, _, _ in told]
    assert sum(map(len, rows)) > 8
    asked = {row: (set(), set()) for row in range(len(told))}
    for name, resources in default_jobs:
        (own,) = [r for r, names in enumerate(rows) if name.startswith(tuple(names))] or [-1]
        for values, key in zip(asked[own % len(told)], ("mem_mb", "runtime"), strict=True):
            values.add(int(resources[key]))
    for row, (_, *columns) in enumerate(told):
        for values, column in zip(asked[row], columns, strict=True):
            numbers = [int(number) for number in re.findall(r"\d+", column)]
            assert (min(values), max(values)) == (numbers[0], numbers[-1]), told[row]


@pytest.mark.parametrize("arguments", [(), SMOKE, ("--configfile", "configs/paper.yaml")])
def test_jobs_ask_for_whole_numbers_of_everything(folder, arguments, default_jobs):
    for name, asked in planned(folder, *arguments) if arguments else default_jobs:
        for resource in ("mem_mb", "runtime", "gpu", "threads"):
            assert asked[resource].isdigit(), (name, resource)
        assert int(asked["runtime"]) <= 14 * 24 * 60, name


def small(folder, *arguments, **changes):
    """What jobs of the small configuration ask for, the most of each rule; `changes` are its."""
    config = merge(yaml.safe_load((ROOT / "tests/cluster/small.yaml").read_text()), changes)
    (folder / "small.yaml").write_text(yaml.safe_dump(config))
    found = {}
    for name, asked in planned(folder, "--configfile", "small.yaml", *arguments):
        rule = re.sub(r"_mobilenet.*", "", name)
        most = found.setdefault(rule, dict.fromkeys(("mem_mb", "runtime", "gpu"), 0))
        most.update({key: max(value, int(asked[key])) for key, value in most.items()})
    return found


def test_a_second_attempt_asks_for_more(folder):
    first, second = small(folder), small(folder, "--attempt", "2")
    assert first.keys() == second.keys()
    for rule, before in first.items():
        assert second[rule]["mem_mb"] > before["mem_mb"], rule
        assert second[rule]["runtime"] > before["runtime"], rule


def test_more_work_in_a_job_asks_for_more(folder):
    (entry,) = yaml.safe_load((ROOT / "tests/cluster/small.yaml").read_text())["experiments"]
    runs = {**entry, "seeds": [0, 1, 2, 3], "compression": {"iterations": 20_000}}
    apart = small(folder, experiments=[runs], batch=[])
    together = small(folder, experiments=[runs], batch=["budget", "seed"])
    larger = small(folder, experiments=[runs], batch=[], networks={NETWORK: {"multiplier": 1.0}})
    for rule in ("compress", "finetune"):
        assert together[rule]["runtime"] > apart[rule]["runtime"], rule
        assert together[rule]["mem_mb"] == apart[rule]["mem_mb"], rule
        assert larger[rule]["runtime"] > apart[rule]["runtime"], rule
        assert larger[rule]["mem_mb"] > apart[rule]["mem_mb"], rule


def test_tables_of_more_runs_ask_for_more(folder):
    (entry,) = yaml.safe_load((ROOT / "tests/cluster/small.yaml").read_text())["experiments"]
    few, many = (
        small(folder, experiments=[{**entry, "seeds": list(range(count))}]) for count in (1, 1000)
    )
    for rule in ("tables", "claims", "checksums"):
        assert many[rule]["mem_mb"] > few[rule]["mem_mb"], rule
        assert many[rule]["runtime"] > few[rule]["runtime"], rule


@pytest.mark.parametrize("visible", [None, "0", "", "-1"])
@pytest.mark.parametrize("file", [None, *FILES])
def test_a_gpu_is_one_whose_driver_is_there_and_that_is_not_hidden(
    file, visible, tmp_path, monkeypatch
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    if file:
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).touch()
    there = file is not None and visible in (None, "0")
    assert used("auto", tmp_path) == there
    assert used("cuda:1", tmp_path)
    assert not used("cpu", tmp_path)


NETWORK = "mobilenet_embedded"
TRAINED = ("train_dense", "compress", "close_budgets", "finetune")


def test_jobs_that_train_on_gpus_ask_for_them(folder):
    found = small(folder, device="cpu")
    assert {most["gpu"] for most in found.values()} == {0}
    found = small(folder, device="cuda")
    assert {rule for rule, most in found.items() if most["gpu"] == 1} == set(TRAINED)
    found = small(folder, device="cuda", training={"processes": 4})
    assert all(found[rule]["gpu"] == 4 for rule in ("train_dense", "compress", "finetune"))


def test_a_job_that_measures_a_gpu_asks_for_it(folder):
    gpu = {"kind": "nvml", "samples": 20, "test_samples": 5}
    (entry,) = yaml.safe_load((ROOT / "tests/cluster/small.yaml").read_text())["experiments"]
    measured = {**entry, "platforms": ["gpu"]}
    found = small(folder, device="cpu", platforms={"gpu": gpu}, experiments=[measured])
    asking = {rule for rule, most in found.items() if most["gpu"]}
    assert asking == {"check_sensor", "sample_energy", "close_budgets", "verify_energy"}


@pytest.mark.parametrize(("profile", "most"), [("default", 1), ("slurm", 4)])
def test_only_the_profile_of_one_machine_limits_gpus(folder, profile, most):
    if profile == "slurm":
        pytest.importorskip("snakemake_executor_plugin_slurm")
    given = ("--workflow-profile", f"profiles/{profile}", "--quiet", "host")
    found = small(folder, *given, device="cuda", training={"processes": 4})
    assert found["train_dense"]["gpu"] == most


def told(name):
    """A mapping of rules/resources.smk, which knows the library's numbers without importing it."""
    text = (ROOT / "rules/resources.smk").read_text()
    pattern = rf"^{name} = (\{{.*?\}}$)"
    return ast.literal_eval(re.search(pattern, text, re.MULTILINE | re.DOTALL)[1])


def test_images_of_datasets_are_those_of_the_library():
    made = told("MADE")
    assert {*made, *told("IMAGES")} == set(DATASETS)
    for kind, counts in made.items():
        assert counts.items() <= DATASETS[kind].defaults.items()


def test_weights_of_networks_are_those_of_the_library():
    sizes = told("SIZES")
    assert sizes.keys() == ARCHITECTURES.keys()
    for name, (weights, _, _) in sizes.items():
        with torch.device("meta"):
            built = Network(name, classes=1000).build()
        assert weights * 1e6 == pytest.approx(sum(p.numel() for p in built.parameters()), rel=0.1)


COPIED = re.compile(r"^COPY (.+) \S+$", re.MULTILINE)


def test_the_container_has_a_python_that_the_project_takes_and_files_that_there_are():
    text = (ROOT / "envs/Containerfile").read_text()
    version = re.search(r"^FROM \S+/python:(\d+\.\d+)\.\d+-", text, re.MULTILINE)[1]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    least = project["requires-python"].removeprefix(">=")
    assert tuple(map(int, version.split("."))) >= tuple(map(int, least.split(".")))
    copied = [file for line in COPIED.findall(text) for file in line.split()]
    assert all((ROOT / file).exists() for file in copied)
    # Whatever a run in a copy of the repository needs is in the container too.
    assert set(PARTS) <= set(copied)


def test_the_job_of_kubernetes_runs_what_the_container_has():
    text = (ROOT / "envs/Containerfile").read_text()
    place = Path(re.search(r"^WORKDIR (\S+)$", text, re.MULTILINE)[1])
    spec = yaml.safe_load((ROOT / "profiles/kubernetes/job.yaml").read_text())["spec"]["template"]
    pod = spec["spec"]
    (container,) = pod["containers"]
    (volume,) = pod["volumes"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"]}
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted == {str(place / "results"), str(place / ".snakemake")}
    unlock, run = container["args"][0].split(" && exec ")
    assert (ROOT / unlock.removeprefix("python ")).is_file()
    given = get_argument_parser().parse_args(run.removeprefix("snakemake ").split())
    assert all((ROOT / file).is_file() for file in given.configfile)


def test_the_status_of_a_job_is_read_from_what_slurm_says(tmp_path):
    said = {"COMPLETED": "success", "PENDING": "running", "TIMEOUT": "failed"}
    said |= {"PREEMPTED": "failed"}
    said |= {"slurm_load_jobs error: Invalid job id specified": "failed"}
    said |= {"slurm_load_jobs error: Unable to contact slurm controller": "running"}
    squeue = tmp_path / "squeue"
    for line, status in said.items():
        squeue.write_text(f"#!/bin/sh\necho '{line}'\n")
        squeue.chmod(0o755)
        done = subprocess.run(
            [ROOT / "profiles/generic/status.sh", "7"],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == f"{status}\n"
