"""What made a result: rule, commit of the code, versions, hardware.

The standard library alone: rules ask for it as well.
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    *("torch", "torchvision", "torch-pruning", "snakemake", "numpy", "scipy", "pandas"),
    *("scikit-learn", "pymoo"),  # which data and evolution come from
)


def record_of(log: str | Path) -> Path:
    """The file that says what a job made and by what, beside its log."""
    return Path(log).with_suffix(".json")


def of_job(log: str | Path, outputs: Iterable[str | Path]) -> dict[str, Any]:
    """What made the outputs of the job with this log, logs/{rule}/{job}.log of a results folder.

    Its `files` are named from that folder.
    """
    log = Path(log)
    folder = log.absolute().parents[2]
    return {
        "rule": log.parent.name,
        "job": log.stem,
        "commit": commit(),
        "hardware": hardware(),
        "versions": versions(),
        "files": [Path(os.path.relpath(file, folder)).as_posix() for file in outputs],
    }


def write(log: str | Path, outputs: Iterable[str | Path]) -> None:
    record_of(log).write_text(json.dumps(of_job(log, outputs), indent=2) + "\n")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


@cache
def commit() -> str:
    """The commit of the code, with "-dirty" where files differ; "unknown" outside of git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def hardware() -> dict[str, str | int]:
    """The machine in words. Asks torch for a GPU only where torch is already loaded."""
    found: dict[str, str | int] = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
