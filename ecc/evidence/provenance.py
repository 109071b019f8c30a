"""Which rule, commit, hardware and versions made every result file, by the records of its jobs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ecc import runs
from ecc.evidence.reproduction import CHECKSUMS
from ecc.evidence.tables import in_words

FILES = ["file", "rule", "job", "commit", "hardware", "versions"]
MADE_BY = ["rule", "commit", "hardware", "versions"]


def by_file(folder: str | Path, own: Mapping[str, Any]) -> pd.DataFrame:
    """One row a file of a results folder: one that is there, by the last job that names it, or one
    that the job with the record `own` is about to write. Not the checksums, which come after it.
    """
    folder = Path(folder)
    paths = sorted(folder.glob("logs/*/*.json"), key=lambda path: path.stat().st_mtime)
    rows = {
        file: (
            *(file, record["rule"], record["job"], record["commit"]),
            *(in_words(record["hardware"]), in_words(record["versions"])),
        )
        for record in [*map(runs.read_json, paths), own]
        for file in record["files"]
        if record is own or (file != CHECKSUMS and (folder / file).exists())
    }
    return pd.DataFrame([rows[file] for file in sorted(rows)], columns=FILES)


def by_rule(files: pd.DataFrame) -> pd.DataFrame:
    """How many jobs and files each rule made, a row a commit, hardware and versions."""
    groups = files.groupby(MADE_BY, sort=True)
    counts = groups.agg(jobs=("job", "nunique"), files=("file", "size")).reset_index()
    return counts[["rule", "jobs", "files", *MADE_BY[1:]]]
