"""Tables and figures of pruning single weights: along its rounds, and with fewer target classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ecc import runs
from ecc.evidence import eap, style
from ecc.logs import job


def eap_figures(
    arms: Sequence[str], classes: Sequence[str], title: str, files: Mapping[str, str]
) -> None:
    """`arms` and `classes` are files {arm}/classes-{number}/rounds.csv."""
    pruning = eap.pruning({Path(path).parts[-3]: pd.read_csv(path) for path in arms})
    fewer = eap.classes([pd.read_csv(path) for path in classes])
    runs.write_csv(files["pruning"], pruning)
    runs.write_csv(files["classes"], fewer)
    style.save(eap.draw_pruning(pruning, title), files["pruning_png"], files["pruning_pdf"])
    style.save(eap.draw_classes(fewer, title), files["classes_png"], files["classes_pdf"])


if __name__ == "__main__":
    with job(snakemake.log[0]):
        eap_figures(
            snakemake.input.arms,
            snakemake.input.classes,
            snakemake.params.title,
            dict(snakemake.output.items()),
        )
