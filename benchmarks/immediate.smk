# Jobs that end at once, with all that a job of the workflow has: sources as inputs, parameters, a
# log, a benchmark and a script of its own process. For `python -m benchmarks.job_overhead`.
from pathlib import Path

from ecc.sources import imported

BASE = Path(workflow.basedir).parent
SOURCES = imported(BASE / "benchmarks" / "immediate.py", BASE / "ecc")


rule all:
    input:
        expand("{number}/done.json", number=range(int(config["jobs"]))),


rule immediate:
    input:
        library=SOURCES,
    output:
        done="{number}/done.json",
    log:
        "logs/{number}.log",
    benchmark:
        "benchmarks/{number}.tsv"
    threads: 1
    resources:
        mem_mb=1000,
        runtime="1h",
    params:
        settings={"batch_size": 64, "learning_rate": 1.0e-3},
    script:
        "immediate.py"
