"""The script of `immediate.smk`: what a job costs that does nothing and imports next to nothing."""

import json
from pathlib import Path

from ecc.logs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        Path(snakemake.output.done).write_text(json.dumps(snakemake.params.settings))
