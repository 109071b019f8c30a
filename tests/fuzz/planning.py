"""Plans of configurations: Snakemake's dry run, in a process that has loaded all of it before.

The command line's own `main` is called in a fork, so that nothing of one plan is left for the next
and an exit, an exception and what is printed are seen as a terminal shows them.
"""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

from ecc.sources import imported

from .configurations import DEFAULT, ROOT, Case, Configurations

PARTS = ("Snakefile", "rules", "workflow_scripts", "ecc", "profiles", "docs", "envs", "resources")
SCHEMA = "configs/schema.yaml"
TIMEOUT_S = 300
# What Snakemake says before it has read a configuration.
PREAMBLE = re.compile(
    "Using workflow specific profile|Config file config.yaml is extended|Assuming unrestricted|host"
)
REFUSED = re.compile(r"(\S+: )?config key (?P<key>.+)")
JOBS = re.compile(r"^\w+ +\d+$", re.MULTILINE)


@dataclass(frozen=True)
class Plan:
    """`digest` is of all jobs: what they read, write and are given."""

    code: int
    output: str
    digest: str = ""

    @property
    def said(self) -> list[str]:
        """The lines of a refusal."""
        lines = [line for line in self.output.splitlines() if line.strip()]
        return [line for line in lines if not PREAMBLE.match(line)]


def folder(path: Path) -> Path:
    """A place to run Snakemake in: the project, but for its configuration."""
    (path / "configs").mkdir(parents=True, exist_ok=True)
    for part in (*PARTS, SCHEMA):
        if not (path / part).exists():
            (path / part).symlink_to(ROOT / part)
    return path


def arguments(case: Case) -> list[str]:
    overlays = [f"configs/{name}" for name in case.overlays]
    return ["--cores", "2", "-n", *(["--configfile", *overlays] if overlays else [])]


def write(case: Case, place: Path) -> None:
    for name, text in case.files.items():
        (place / ("" if name == DEFAULT else "configs") / name).write_text(text, encoding="utf-8")


def warm() -> None:
    """Loads what a dry run loads."""
    sys.path.insert(0, str(ROOT))
    from snakemake import cli, dag, report, script, workflow  # noqa: F401
    from snakemake.executors import dryrun, local  # noqa: F401

    from ecc import logs, platforms  # noqa: F401
    from ecc.evidence import names, plan  # noqa: F401

    with redirect_stderr(StringIO()):
        cli.parse_args(["--cores", "2", "-n"])


def plan(case: Case, place: Path) -> Plan:
    """The dry run of a case in `place`."""
    write(case, place)
    output, digest = place / "output", place / "digest"
    digest.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        _dry_run(place, arguments(case), output, digest)
    _, status = os.waitpid(child, 0)
    text = output.read_text(errors="replace")
    told = digest.read_text() if digest.exists() else ""
    return Plan(os.waitstatus_to_exitcode(status), text, told)


def _dry_run(place: Path, argv: Sequence[str], output: Path, digest: Path) -> None:
    """Never returns: the process ends as the command would."""
    code: Any = 70
    try:
        signal.alarm(TIMEOUT_S)
        os.chdir(place)
        out = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(out, stream)
        sys.stdout, sys.stderr = (os.fdopen(fd, "w", buffering=1) for fd in (1, 2))
        from snakemake import api, cli

        real: Callable[..., Any] = api.DAGApi.execute_workflow

        def execute(self: Any, *args: Any, **kwargs: Any) -> Any:
            found = real(self, *args, **kwargs)
            digest.write_text(_digest(self.workflow_api._workflow.dag))
            return found

        api.DAGApi.execute_workflow = execute
        try:
            cli.main(list(argv))
        except SystemExit as end:
            code = end.code or 0
            if isinstance(code, str):  # as the interpreter does
                print(code, file=sys.stderr)
                code = 1
    except BaseException:
        traceback.print_exc()
    finally:
        for own in (sys.stdout, sys.stderr):
            own.flush()
        os._exit(code)


def _digest(dag: Any) -> str:
    """Of all jobs but that which writes the whole configuration down."""
    found = sorted(
        repr(
            (
                job.rule.name,
                sorted(job.wildcards_dict.items()),
                sorted(map(str, job.input)),
                sorted(map(str, job.output)),
                [repr(value) for value in job.params],
                sorted(job.params.keys()),
                job.threads,
            )
        )
        for job in dag.jobs
        if job.rule.name != "claims"
    )
    return hashlib.sha256("\n".join(found).encode()).hexdigest()


def by_command(case: Case, place: Path) -> Plan:
    """The same by the command itself."""
    write(case, place)
    command = [sys.executable, "-m", "snakemake", *arguments(case)]
    done = subprocess.run(
        command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    return Plan(done.returncode, done.stdout.decode(errors="replace"))


def agree(one: Plan, other: Plan) -> bool:
    """Whether two plans of a case have the same end, and say the same."""
    if one.code or other.code:
        return one.code == other.code and one.said == other.said
    return JOBS.findall(one.output) == JOBS.findall(other.output)


class Judge:
    """What is wrong with the plan of a case, in one process that plans one after another."""

    def __init__(self, place: Path):
        self.place = folder(place)
        for script in (self.place / "workflow_scripts").glob("*.py"):
            imported(script, self.place / "ecc")  # kept for all plans
        self.configurations = known_configurations()
        self.digests: dict[tuple[str, ...], str] = {}

    def __call__(self, case: Case) -> tuple[str, str]:
        """("accepted" or "refused", what is wrong if something is)."""
        found = plan(case, self.place)
        verdict = "refused" if found.code else "accepted"
        wrong = self._refusal(case, found) if found.code else self._plan(case, found)
        return verdict, f"{wrong}\n{found.output[-3000:]}" if wrong else ""

    def _refusal(self, case: Case, found: Plan) -> str:
        if "Traceback" in found.output:
            return "a traceback"
        if not case.refused:
            return "refused, but nothing is wrong with it"
        if case.broken:
            return "" if found.said[:1] == ["WorkflowError:"] and len(found.said) == 2 else "how?"
        if len(found.said) != 1:
            return f"{len(found.said)} lines, not one"
        told = REFUSED.fullmatch(found.said[0])
        if found.code != 1 or told is None:
            return "no key is named"
        if len(found.said[0]) > 2000:
            return "a line of more than 2000 characters"
        if not any(_names(told["key"], path) for path in case.paths):
            return "another key is named"
        return ""

    def _plan(self, case: Case, found: Plan) -> str:
        if case.refused:
            return "accepted, but it has to be refused"
        if not found.digest or "Job stats:" not in found.output:
            return "no plan"
        if case.effective and found.digest == self._unchanged(case.base):
            return "accepted, but the plan does not change"
        return ""

    def _unchanged(self, base: tuple[str, ...]) -> str:
        if base not in self.digests:
            self.digests[base] = plan(self.configurations.unchanged(base), self.place).digest
        return self.digests[base]


def _names(told: str, path: tuple[str | int, ...]) -> bool:
    """Whether a message says the name of what is at `path`, or of what it is in."""
    parts = [f"[{part}]" if type(part) is int else str(part) for part in path[-2:]]
    words = [part for part in parts if len(part) > 1]
    shown = [word if word.isprintable() else ascii(word)[1:-1] for word in words]
    return not words or any(word[:40] in told for word in shown)


@cache
def known_configurations() -> Configurations:
    return Configurations()


def clear(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
