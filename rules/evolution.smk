# Evolution: networks evolved for accuracy alone, and for accuracy and energy, and what they cost.
# These rules exist only where the configuration has studies of this kind.

if STUDIES:
    refuse_studies()

    rule evolve:
        input:
            data=lambda wildcards: f"<results>/data/{study(wildcards)['dataset']}/manifest.json",
        output:
            networks="<results>/evolution/{study}/{arm}/seed{seed}/networks.csv",
            history="<results>/evolution/{study}/{arm}/seed{seed}/history.csv",
            metrics="<results>/evolution/{study}/{arm}/seed{seed}/metrics.json",
        log:
            "<logs>/evolve/{study}-{arm}-{seed}.log",
        benchmark:
            "<benchmarks>/evolve/{study}-{arm}-{seed}.tsv"
        wildcard_constraints:
            study="|".join(STUDIES),
            arm="accuracy|energy",
        conda:
            "../envs/torch.yaml"
        threads: lambda wildcards: study(wildcards)["workers"]
        resources:
            mem_mb=memory("evolution"),
            runtime=duration("evolution"),
            gpu=gpus("evolution"),
        params:
            library=library("evolve"),
            study=study,
            dataset=lambda wildcards: config["datasets"][study(wildcards)["dataset"]],
            platform=lambda wildcards: config["platforms"][study(wildcards)["platform"]],
            training=lambda wildcards: settings.stage(config, study(wildcards)["training"]),
        script:
            "../workflow_scripts/evolve.py"

    rule evolution_figures:
        input:
            networks=study_parts("<results>/evolution/{study}/{arm}/seed{seed}/networks.csv"),
            history=study_parts("<results>/evolution/{study}/{arm}/seed{seed}/history.csv"),
        output:
            **{
                f"{name}_png": report(
                    f"<results>/figures/evolution_{name}.png",
                    caption=caption(f"evolution_{name}"),
                    category="Evolution",
                    labels={"what": name, "type": "figure"},
                )
                for name in EVOLUTION_FIGURES
            },
            **{
                f"{name}_pdf": f"<results>/figures/evolution_{name}.pdf"
                for name in EVOLUTION_FIGURES
            },
            networks=report(
                "<results>/tables/evolution_networks.csv",
                caption=caption("evolution_networks"),
                category="Evolution",
                labels={"what": "all networks", "type": "table"},
            ),
            history=report(
                "<results>/tables/evolution_history.csv",
                caption=caption("evolution_hypervolume"),
                category="Evolution",
                labels={"what": "generations", "type": "table"},
            ),
            nearly_as_good=report(
                "<results>/tables/evolution_nearly_as_good.csv",
                caption=caption("evolution_spread"),
                category="Evolution",
                labels={"what": "spread among the best", "type": "table"},
            ),
        log:
            "<logs>/evolution_figures/all.log",
        benchmark:
            "<benchmarks>/evolution_figures/all.tsv"
        conda:
            "../envs/figures.yaml"
        threads: 1
        resources:
            mem_mb=memory("evidence"),
            runtime=duration("evidence"),
            gpu=gpus("evidence"),
        params:
            library=library("evolution_figures"),
            platforms={
                name: PLATFORMS[entry["platform"]].description for name, entry in STUDIES.items()
            },
        script:
            "../workflow_scripts/evolution_figures.py"
