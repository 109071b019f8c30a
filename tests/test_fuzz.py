"""A short run of the fuzzing of configurations and files, and what it is built of."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ecc import checkpoints, config
from ecc.errors import UserError
from tests.fuzz import __main__ as command, configurations, files, oracle

ROOT = Path(__file__).parents[1]


def fuzz(*arguments):
    command = [sys.executable, "-m", "tests.fuzz", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.workflow
def test_configurations_are_planned_or_refused_in_one_line():
    code, output = fuzz("--configurations", "60", "--files", "0")
    assert code == 0, output
    assert "60 tried" in output
    assert "0 wrong" in output


def test_damaged_files_are_read_or_refused_in_one_line():
    code, output = fuzz("--configurations", "0", "--files", "200")
    assert code == 0, output
    assert "200 tried" in output
    assert "0 wrong" in output


@pytest.fixture(scope="module")
def known():
    return configurations.Configurations()


FOUND = [
    ("search of evolution", "1/195"),
    ("claims", "1/385"),
    ("record of fine-tuning", "1/443"),
    ("published model.safetensors", "2/131"),
    ("record of compression", "5/231"),
    ("samples", "5/273"),
]


def test_what_fuzzing_has_found_in_files_is_refused(tmp_path):
    targets = {target.name: target for target in files.TARGETS}
    found = files.Files(tmp_path)
    for name, seed in FOUND:
        outcome = found.damaged(targets[name], seed)
        assert not outcome.wrong, outcome


def test_a_damaged_checkpoint_of_a_study_is_refused_or_not_used(tmp_path, monkeypatch):
    (study,) = [target for target in files.TARGETS if target.name == "study of single weights"]
    found = files.Files(tmp_path)
    seeds = [f"study/{number}" for number in range(12)]
    assert not any(found.damaged(study, seed).wrong for seed in seeds)
    # Without the checksum it would go on from what is damaged, and the cases tell.
    monkeypatch.setattr(checkpoints, "digest", lambda *_: "same")
    unchecked = files.Files(tmp_path / "unchecked")
    assert any(unchecked.damaged(study, seed).wrong for seed in seeds)


def test_the_same_seed_gives_the_same_cases(known):
    cases = known.cases(3, 20)
    assert known.cases(3, 20) == cases
    assert known.cases(4, 20) != cases


@pytest.mark.parametrize("base", dict.fromkeys(configurations.BASES), ids="-".join)
def test_the_oracle_finds_nothing_in_the_projects_own(known, base):
    assert not oracle.problems(known.schema, known.cached[base][0])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "training: {dropout: true}\ntraining: {}\n",
            "config key training is there more than once",
        ),
        ("eap: {classes: [8], classes: [4]}\n", "config key eap.classes is there more than once"),
        ("seed: 010\n", "config key seed: YAML reads 010 as 8: write 8"),
        ("datasets: {digits: {size: 1:30}}\n", "datasets.digits.size: YAML reads 1:30 as 90"),
        ('{"seed": 1, "seed": 2}\n', "config key seed is there more than once"),
    ],
)
def test_what_yaml_reads_as_something_else_is_refused(tmp_path, text, words):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"mine\.yaml: config key") as caught:
        config.check_text(path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_mapping_over_something_else_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("eap: {}\nbatch: {}\nnew: {}\n")
    with pytest.raises(UserError, match=r"mine\.yaml: config key batch: {} has no effect here"):
        config.check_text(path, {"eap": {}, "batch": ["seed"]})


def test_anchors_and_merge_keys_are_what_they_are(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("a: &a {b: 1, c: 1_000}\nd: {<<: *a, b: 2}\ne: [*a, *a]\n")
    config.check_text(path)


ENDLESS = "n" * 20
WRONG = [
    (("datasets", "digits", "size"), 2**63, "datasets.digits.size"),
    (("results",), "two\nlines", "config key results: 'two\\nlines' must be one line"),
    (("results",), "r" * 300, "config key results"),
    (("methods", "ecc", "rho1"), 10**400, "methods.ecc.rho1"),
    (("methods", "ecc", "method"), "uniform", "methods.ecc"),
    (("methods", "lcp", "tournament"), 17, "methods.lcp.tournament: 17 cannot be drawn"),
    (("datasets", ENDLESS), {"kind": "digits"}, f"config key datasets.{ENDLESS}"),
    (("datasets", 7), {"kind": "digits"}, "config key datasets: 7 must be text"),
    (("networks", "mine"), {"architecture": "a:b", "options": {1: 2}}, "networks.mine"),
    (("experiments", 0, "budgets", 0, "limits"), {"gtx1080ti": {"dense": 0.5}}, "itself"),
    (("experiments", 0, "budgets", 0, "limits"), {3: {"dense": 0.5}}, "budgets[0].limits"),
]


@pytest.mark.parametrize(("path", "value", "words"), WRONG)
def test_what_fuzzing_has_found_is_refused_in_one_line(path, value, words):
    settings = config.load(ROOT / "config.yaml")
    place = settings
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(UserError, match="config key") as caught:
        config.check(settings, ROOT / "configs/schema.yaml")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_names_of_rules_are_of_one_experiment_and_platform():
    settings = config.load(ROOT / "config.yaml")
    one, other, _ = settings["experiments"]
    settings["platforms"]["b_gtx1080ti"] = {"kind": "gtx1080ti"}
    one.update(name="a_b", platforms=["gtx1080ti"])
    other.update(name="a", platforms=["b_gtx1080ti"])
    with pytest.raises(UserError, match="a_b_gtx1080ti is there more than once"):
        config.check(settings, ROOT / "configs/schema.yaml")


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ({"seconds": 0.01}, "budgets[0]: a budget in seconds, where energy is measured"),
        ({"dense": 0.5, "limits": {"macs": {"joules": 1}}}, "budgets[0].limits.macs: a budget in"),
    ],
)
def test_budgets_in_another_unit_are_refused(budget, words):
    settings = config.load(ROOT / "config.yaml")
    settings["experiments"][0]["budgets"][0] = budget
    with pytest.raises(UserError) as caught:
        config.check_units(settings, dict.fromkeys(settings["platforms"], "energy_j"))
    assert words in str(caught.value)


def test_changes_are_written_as_they_are_meant():
    raw = configurations.Raw
    pairs = configurations.Pairs([(raw("<<"), {"a": 1}), ("b", raw("010")), ("b", raw("yes"))])
    text = yaml.dump({"x": pairs}, Dumper=configurations.Dumper)
    assert "b: 010" in text
    assert "b: yes" in text
    assert configurations.plain({"x": pairs}) == {"x": {"a": 1, "b": True}} == yaml.safe_load(text)


def test_counts_are_printed_where_one_is_wrong(monkeypatch, capsys):
    def wrong(given, counts):
        counts.update(tried=3, refused=2, wrong=1)
        command._tell("files", 2, "read as something else", given)

    monkeypatch.setattr(command, "files", wrong)
    with pytest.raises(command.WrongError, match="--index 2"):
        command.main(["--configurations", "0", "--files", "9", "--seed", "5"])
    assert "files, seed 5: 3 tried, 0 read, 2 refused, 1 wrong" in capsys.readouterr().out


def test_a_file_with_code_is_repeated_by_a_command_of_its_own():
    given = argparse.Namespace(seed=5, go_on=False)
    with pytest.raises(command.WrongError) as raised:
        command._tell("files", None, "the code in it was run", given)
    assert str(raised.value).endswith("--seed 5 --files 1 --configurations 0")
