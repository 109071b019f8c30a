# Table of contents of the workflow:
#   measure    network x platform -> samples -> energy models -> errors
#   compress   dense network x energy model x budget x method -> fine-tuned slim network, measured
#   show       metrics of all runs -> tables, figures -> report
#
#   snakemake --cores all                                        the embedded default
#   snakemake --cores 2 --configfile configs/smoke.yaml          a minute or two
#   snakemake --cores 2 --configfile configs/paper.yaml -n       the paper's scale, planned
#   snakemake --report results/report.html                       after a run, as `make report`
#   snakemake --cores all export                                 networks to take away
import logging

from snakemake.utils import min_version

min_version("9.27")
logging.raiseExceptions = False  # a log on a full disk would print a traceback a line


configfile: "config.yaml"


report: "docs/report/workflow.rst"


include: "rules/common.smk"


pathvars:
    results=config["results"],
    logs="<results>/logs",
    benchmarks="<results>/benchmarks",


include: "rules/resources.smk"
include: "rules/data.smk"
include: "rules/dense.smk"
include: "rules/energy.smk"
include: "rules/compression.smk"
include: "rules/export.smk"
include: "rules/eap.smk"
include: "rules/evolution.smk"
include: "rules/evidence.smk"


onstart:
    hold_results()
    tell_host()


onerror:
    say_what_failed()


rule all:
    default_target: True
    input:
        list(EVIDENCE),
        rules.claims.output,
        rules.checksums.output,


rule export:
    input:
        all_runs(f"<results>/exported/{RUN}/model.onnx", "ecc", seeds_each=1),
