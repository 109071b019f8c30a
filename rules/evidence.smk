# Evidence: tidy tables of all runs, and the figures of the paper drawn from them.


rule tables:
    input:
        metrics=all_runs(f"<results>/finetuned/{RUN}/metrics.json"),
        energies=verified(),
        errors=[f"<results>/energy_models/{p}/{n}/errors.csv" for p, n in SAMPLED],
        history=[f"<results>/energy_models/{p}/{n}/history.csv" for p, n in SAMPLED],
        residuals=[f"<results>/energy_models/{p}/{n}/residuals.csv" for p, n in SAMPLED],
        dense=[f"<results>/samples/{p}/{n}/dense.json" for p, n in SAMPLED],
        published="resources/published/paper_values.csv",
        methods="resources/published/methods.csv",
    output:
        accuracy_at_budget=report(
            "<results>/tables/accuracy_at_budget.csv",
            caption=caption("accuracy_at_budget"),
            category="Accuracy at budget",
            labels={"what": "all runs", "type": "table"},
        ),
        comparison=report(
            "<results>/tables/comparison.csv",
            caption=caption("comparison"),
            category="Accuracy at budget",
            labels={"what": "methods over seeds", "type": "table"},
        ),
        table_01=report(
            "<results>/tables/table_01.csv",
            caption=caption("table_01"),
            category="Accuracy at budget",
            labels={"what": "Table 1", "type": "table"},
        ),
        table_02=report(
            "<results>/tables/table_02.csv",
            caption=caption("table_02"),
            category="Accuracy at budget",
            labels={"what": "Table 2", "type": "table"},
        ),
        closing=report(
            "<results>/tables/closing.csv",
            caption=caption("closing"),
            category="Accuracy at budget",
            labels={"what": "budgets closed by measurement", "type": "table"},
        ),
        limits=report(
            "<results>/tables/limits.csv",
            caption=caption("limits"),
            category="Accuracy at budget",
            labels={"what": "limits beside energy budgets", "type": "table"},
        ),
        widths=report(
            "<results>/tables/widths.csv",
            caption=caption("widths"),
            category="Widths",
            labels={"what": "all runs", "type": "table"},
        ),
        energy_model_errors=report(
            "<results>/tables/energy_model_errors.csv",
            caption=caption("energy_model_errors"),
            category="Energy models",
            labels={"what": "relative test errors", "type": "table"},
        ),
        energy_model_history=report(
            "<results>/tables/energy_model_history.csv",
            caption=caption("energy_model_history"),
            category="Energy models",
            labels={"what": "errors along the fits", "type": "table"},
        ),
        energy_model_residuals=report(
            "<results>/tables/energy_model_residuals.csv",
            caption=caption("energy_model_residuals"),
            category="Energy models",
            labels={"what": "residuals by width", "type": "table"},
        ),
        energy_anchors=report(
            "<results>/tables/energy_anchors.csv",
            caption=caption("energy_anchors"),
            category="Energy models",
            labels={"what": "published dense energies", "type": "table"},
        ),
    log:
        "<logs>/tables/all.log",
    benchmark:
        "<benchmarks>/tables/all.tsv"
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=memory("evidence"),
        runtime=duration("evidence"),
        gpu=gpus("evidence"),
    params:
        library=library("tables"),
        titles=TITLES,
    script:
        "../workflow_scripts/tables.py"


rule figures:
    input:
        tables=rules.tables.output,
    output:
        **{
            name: report(
                f"<results>/figures/{name}.png",
                caption=caption(name),
                category=CATEGORIES[plan.FIGURES[name].kind],
                labels={"what": plan.title(name), "type": "figure"},
            )
            for name in FIGURES
        },
        pdf=expand("<results>/figures/{name}.pdf", name=FIGURES),
    log:
        "<logs>/figures/all.log",
    benchmark:
        "<benchmarks>/figures/all.tsv"
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=memory("evidence"),
        runtime=duration("evidence"),
        gpu=gpus("evidence"),
    params:
        library=library("figures"),
        titles=TITLES,
        names=FIGURES,
    script:
        "../workflow_scripts/figures.py"


rule method_figures:
    input:
        accuracies="<results>/tables/accuracy_at_budget.csv",
        limits="<results>/tables/limits.csv",
        residuals="<results>/tables/energy_model_residuals.csv",
        converged=converged(),
        searches=all_runs(f"<results>/finetuned/{RUN}/metrics.json", "amc"),
        histories=all_runs(f"<results>/compressed/{RUN}/history.csv", "amc"),
    output:
        **{
            f"{name}_png": report(
                f"<results>/figures/{name}.png",
                caption=caption(name),
                category="Energy models" if name == "residuals" else "Accuracy at budget",
                labels={"what": what, "type": "figure"},
            )
            for name, what in METHOD_FIGURES.items()
        },
        **{f"{name}_pdf": f"<results>/figures/{name}.pdf" for name in METHOD_FIGURES},
    log:
        "<logs>/method_figures/all.log",
    benchmark:
        "<benchmarks>/method_figures/all.tsv"
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=memory("evidence"),
        runtime=duration("evidence"),
        gpu=gpus("evidence"),
    params:
        library=library("method_figures"),
        titles=TITLES,
    script:
        "../workflow_scripts/method_figures.py"


rule timings:
    input:
        metrics=all_runs(f"<results>/finetuned/{RUN}/metrics.json"),
        benchmarks=benchmarks(),
    output:
        timings=report(
            "<results>/tables/timings.csv",
            caption=caption("timings"),
            category="Timings",
            labels={"what": "seconds and memory", "type": "table"},
        ),
        equal_terms=report(
            "<results>/tables/equal_terms.csv",
            caption=caption("equal_terms"),
            category="Accuracy at budget",
            labels={"what": "what each method used", "type": "table"},
        ),
    log:
        "<logs>/timings/all.log",
    benchmark:
        "<benchmarks>/timings/all.tsv"
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=memory("evidence"),
        runtime=duration("evidence"),
        gpu=gpus("evidence"),
    params:
        library=library("timings"),
    script:
        "../workflow_scripts/timings.py"


rule measurements:
    input:
        structures=[f"<results>/networks/{n}.json" for _, n in SAMPLED],
        sweeps=[f"<results>/samples/{p}/{n}/sweep.csv" for p, n in SAMPLED],
    output:
        **{
            f"{name}_png": report(
                f"<results>/figures/{name}.png",
                caption=caption(name),
                category="Measurements",
                labels={"what": name, "type": "figure"},
            )
            for name in MEASUREMENTS
        },
        **{f"{name}_pdf": f"<results>/figures/{name}.pdf" for name in MEASUREMENTS},
        repeatability=report(
            "<results>/tables/repeatability.csv",
            caption=caption("repeatability"),
            category="Measurements",
            labels={"what": "campaigns of sensors", "type": "table"},
        ),
    log:
        "<logs>/measurements/all.log",
    benchmark:
        "<benchmarks>/measurements/all.tsv"
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=memory("evidence"),
        runtime=duration("evidence"),
        gpu=gpus("evidence"),
    params:
        library=library("measurements"),
        pairs=SAMPLED,
        platforms=lambda wildcards: {p: config["platforms"][p] for p, _ in SAMPLED},
        titles=TITLES,
    script:
        "../workflow_scripts/measurements.py"


# Where the time went of all jobs that come before this one.
rule efficiency:
    input:
        tables=rules.tables.output,
        figures=rules.figures.output,
        method_figures=rules.method_figures.output,
        measurements=rules.measurements.output,
        eap_figures=rules.eap_figures.output if EAP else [],
        evolution_figures=rules.evolution_figures.output if STUDIES else [],
    output:
        efficiency=report(
            "<results>/tables/efficiency.csv",
            caption=caption("efficiency"),
            category="Timings",
            labels={"what": "where the time went", "type": "table"},
        ),
        run_efficiency=report(
            "<results>/tables/run_efficiency.csv",
            caption=caption("efficiency"),
            category="Timings",
            labels={"what": "parallel efficiency", "type": "table"},
        ),
    log:
        "<logs>/efficiency/all.log",
    benchmark:
        "<benchmarks>/efficiency/all.tsv"
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=memory("evidence"),
        runtime=duration("evidence"),
        gpu=gpus("evidence"),
    params:
        library=library("efficiency"),
        benchmarks=f"{config['results']}/benchmarks",
        experiments={
            entry["name"]: {"network": entry["network"], "dataset": entry["dataset"]}
            for entry in config["experiments"]
        },
        threads=threads_held(),
    script:
        "../workflow_scripts/efficiency.py"


# Tables and figures of this run with their rules, those that only some runs have among them.
EVIDENCE = {
    file: rule
    for rule, made in {
        "tables": rules.tables.output,
        "figures": rules.figures.output,
        "method_figures": rules.method_figures.output,
        "measurements": rules.measurements.output,
        "eap_figures": rules.eap_figures.output if EAP else [],
        "evolution_figures": rules.evolution_figures.output if STUDIES else [],
        "efficiency": rules.efficiency.output,
        "timings": rules.timings.output,
    }.items()
    for file in made
}


CLAIMED = ("claims", "ranking", "differences", "provenance")
# What has a text in docs/report.
CAPTIONED = [
    name
    for name in dict.fromkeys([*CLAIMED, *(Path(file).stem for file in EVIDENCE)])
    if (BASE / "docs/report" / f"{name}.rst").exists()
]


rule claims:
    input:
        template="ecc/evidence/page.html",
        shown=expand("docs/report/{name}.rst", name=CAPTIONED),
        converged=converged(),
        searches=all_runs(f"<results>/finetuned/{RUN}/metrics.json", "amc"),
        sweeps=[f"<results>/samples/{p}/{n}/sweep.csv" for p, n in SAMPLED],
        claims="resources/claims.yaml",
        published="resources/published/paper_values.csv",
        tables=[file for file in EVIDENCE if file.endswith(".csv")],
        figures=[file for file in EVIDENCE if file.endswith(".png")],
    output:
        page=report(
            "<results>/index.html",
            caption=caption("claims"),
            category="Does it hold?",
            labels={"what": "all claims, figures and tables", "type": "page"},
        ),
        settings="<results>/settings.yaml",
        captions=expand("<results>/captions/{name}.rst", name=CAPTIONED),
        claims=report(
            "<results>/tables/claims.csv",
            caption=caption("claims"),
            category="Does it hold?",
            labels={"what": "claims", "type": "table"},
        ),
        ranking=report(
            "<results>/tables/ranking.csv",
            caption=caption("ranking"),
            category="Does it hold?",
            labels={"what": "methods over all budgets", "type": "table"},
        ),
        differences=report(
            "<results>/tables/differences.csv",
            caption=caption("differences"),
            category="Does it hold?",
            labels={"what": "methods less ECC at every budget", "type": "table"},
        ),
        provenance=report(
            "<results>/tables/provenance.csv",
            caption=caption("provenance"),
            category="Provenance",
            labels={"what": "what made every file", "type": "table"},
        ),
    log:
        "<logs>/claims/all.log",
    benchmark:
        "<benchmarks>/claims/all.tsv"
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=memory("evidence"),
        runtime=duration("evidence"),
        gpu=gpus("evidence"),
    params:
        library=library("claims"),
        titles=TITLES,
        settings=dict(config),
        made_by={Path(file).stem: rule for file, rule in EVIDENCE.items()}
        | dict.fromkeys(CLAIMED, "claims"),
        described=described(),
        sampled=SAMPLED,
    script:
        "../workflow_scripts/claims.py"


# Of all result files, in whichever run they were made: `make reproduce` notices an edited one.
rule checksums:
    input:
        evidence=list(EVIDENCE),
        claims=rules.claims.output,
    output:
        checksums="<results>/checksums.txt",
    log:
        "<logs>/checksums/all.log",
    benchmark:
        "<benchmarks>/checksums/all.tsv"
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=memory("evidence"),
        runtime=duration("evidence"),
        gpu=gpus("evidence"),
    params:
        library=library("checksums"),
    script:
        "../workflow_scripts/checksums.py"
