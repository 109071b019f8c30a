"""Faults of the whole workflow, on the smoke configuration: kills, disks, clocks, damaged files.

    python -m tests.faults                        50 kills, then every other fault
    python -m tests.faults --kills 3 --faults     3 kills alone
    python -m tests.faults --kills 0 --faults damaged_files two_at_once
    python -m tests.faults --folder /tmp/faults   keeps its copies there; another call goes on
                                                  from the run that ended in its `finished`

An uninterrupted run comes first: its tables are what every other one has to end with, byte for
byte but for seconds. Snakemake is then killed by SIGKILL at random moments, itself alone or with
its whole process group, and started again as a user does: `profiles/unlock.py`, the same command.
Single jobs of it are killed besides. The other faults are those of `disks.FAULTS`; full and
read-only disks are mounts, which need root, and are skipped otherwise.

Prints what was tried and the counts. Ends with 1 at the first thing that goes wrong, with the seed:
`--seed N` repeats its draws, and the copies stay. Takes about an hour and a half on 2 cores.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from tests.faults import disks, kills, workspace

OWN_MOUNTS = "ECC_FAULTS_MOUNTS"  # set in the process whose mounts nobody else sees


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=None, help="of the draws; random by default")
    parser.add_argument("--faults", nargs="*", default=list(disks.FAULTS), choices=disks.FAULTS)
    parser.add_argument("--folder", type=Path, help="for the copies; a temporary one by default")
    given = parser.parse_args()
    if workspace.CAN_MOUNT and OWN_MOUNTS not in os.environ:
        os.environ[OWN_MOUNTS] = "1"
        again = [sys.executable, "-m", "tests.faults", *sys.argv[1:]]
        os.execvp("unshare", [*workspace.MOUNTS, 'exec "$0" "$@"', *again])
    seed = random.randrange(2**31) if given.seed is None else given.seed
    folder = (given.folder or Path(tempfile.mkdtemp(prefix="faults-"))).resolve()
    _say(f"seed {seed}, in {folder}")
    finished = folder / "finished"
    counts, survived = {"tried": 0, "passed": 0, "skipped": 0}, Counter[str]()
    wrong = ""
    try:
        _uninterrupted(finished)
        expected = workspace.tables(finished)
        if given.kills:
            shutil.rmtree(folder / "killed", ignore_errors=True)
            place = workspace.clone(folder / "killed")
            kills.kill_often(place, expected, given.kills, seed, _say, survived)
            _say(f"{given.kills} kills of the workflow survived: the tables are the same")
        for name in given.faults:
            if name in disks.MOUNT and os.environ.get(OWN_MOUNTS) is None:
                _say(f"{name}: skipped, it mounts a disk and needs root")
                counts["skipped"] += 1
                continue
            counts["tried"] += 1
            rng = random.Random(f"{seed}/{name}")
            seen = disks.FAULTS[name](disks.Case(finished, folder / name, rng, expected))
            counts["passed"] += 1
            _say(f"{name}: passed\n{seen}")
            shutil.rmtree(folder / name)
    except Exception as error:
        is_told = isinstance(error, kills.WrongError)
        wrong = str(error) if is_told else traceback.format_exc()
        _say(f"WRONG: {wrong}\nrepeat with --seed {seed}; the copies are in {folder}")
    told = ", ".join(f"{number} {name}" for name, number in sorted(survived.items()))
    _say(f"kills: {told or 'none'}")
    told = ", ".join(f"{number} {what}" for what, number in counts.items())
    _say(f"faults: {told}, {int(bool(wrong))} wrong; seed {seed}")
    if given.folder is None and not wrong:
        shutil.rmtree(folder)
    return 1 if wrong else 0


def _uninterrupted(folder: Path) -> None:
    """A clone in which the smoke configuration has run, if it has not yet."""
    if not folder.exists():
        workspace.clone(folder)
    code, output = workspace.snakemake(folder, *workspace.SMOKE)
    if code:
        raise kills.WrongError(f"the uninterrupted run fails:\n{output[-3000:]}")


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
