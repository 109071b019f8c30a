# EAP: energy of dense networks by layer and data type, pruning of single weights along its rounds in
# several ways, and with fewer target classes.

if EAP:
    refuse_unknown("platform", [name for name in PLATFORMS if kind_of(name) == "eyeriss"])
    refuse_unknown("class_arm", list(EAP["arms"]))
    refuse_unknown("dense.networks", list(config["networks"]))
    refuse_classes()

    rule layer_energy:
        input:
            own=[file for network in EAP["dense"]["networks"] for file in own_sources(network)],
        output:
            layers="<results>/eap/layers.csv",
        log:
            "<logs>/layer_energy/all.log",
        benchmark:
            "<benchmarks>/layer_energy/all.tsv"
        conda:
            "../envs/torch.yaml"
        threads: 1
        resources:
            mem_mb=memory("layers"),
            runtime=duration("layers"),
            gpu=gpus("layers"),
        params:
            library=library("layer_energy"),
            networks={name: settings.network(config, name) for name in EAP["dense"]["networks"]},
            platform=config["platforms"][EAP["platform"]],
            batch=EAP["dense"]["batch"],
            images=EAP["dense"]["images"],
            seed=config["seed"],
        script:
            "../workflow_scripts/layer_energy.py"

    rule eap_pruning:
        input:
            data=manifest,
            dense="<results>/dense/{experiment}/model.safetensors",
        output:
            rounds="<results>/eap/{experiment}/{arm}/classes-{classes}/seed{seed}/rounds.csv",
            layers="<results>/eap/{experiment}/{arm}/classes-{classes}/seed{seed}/layers.csv",
            model="<results>/eap/{experiment}/{arm}/classes-{classes}/seed{seed}/pruned.safetensors",
            metrics="<results>/eap/{experiment}/{arm}/classes-{classes}/seed{seed}/metrics.json",
        log:
            "<logs>/eap_pruning/{experiment}-{arm}-{classes}-{seed}.log",
        benchmark:
            "<benchmarks>/eap_pruning/{experiment}-{arm}-{classes}-{seed}.tsv"
        wildcard_constraints:
            arm="|".join(EAP["arms"]),
            classes=r"\d+",
        conda:
            "../envs/torch.yaml"
        threads: 1
        resources:
            mem_mb=memory("pruning"),
            runtime=duration("pruning"),
            gpu=gpus("pruning"),
        params:
            library=library("eap_pruning"),
            network=network_settings,
            dataset=dataset_settings,
            platform=config["platforms"][EAP["platform"]],
            training=settings.stage(config, EAP["finetuning"]),
            pruning=lambda wildcards: EAP["arms"][wildcards.arm],
        script:
            "../workflow_scripts/eap_pruning.py"

    rule eap_figures:
        input:
            arms=eap_rounds(EAP["arms"], [max(EAP["classes"])]),
            classes=eap_rounds([EAP["class_arm"]], EAP["classes"]),
            layers=rules.layer_energy.output.layers,
            published="resources/published/paper_values.csv",
            accuracies="resources/published/top5_accuracies.csv",
        output:
            layers=report(
                "<results>/tables/eap_layers.csv",
                caption=caption("eap_layers"),
                category="Energy by layer",
                labels={"what": "energy by layer and data type", "type": "table"},
            ),
            networks=report(
                "<results>/tables/eap_networks.csv",
                caption=caption("eap_networks"),
                category="Energy by layer",
                labels={"what": "networks compared", "type": "table"},
            ),
            results=report(
                "<results>/tables/eap_results.csv",
                caption=caption("eap_results"),
                category="Energy by layer",
                labels={"what": "published results", "type": "table"},
            ),
            results_png=report(
                "<results>/figures/eap_results.png",
                caption=caption("eap_results"),
                category="Energy by layer",
                labels={"what": "accuracy against energy", "type": "figure"},
            ),
            results_pdf="<results>/figures/eap_results.pdf",
            layers_png=report(
                "<results>/figures/eap_layers.png",
                caption=caption("eap_layers"),
                category="Energy by layer",
                labels={"what": "energy by layer and data type", "type": "figure"},
            ),
            networks_png=report(
                "<results>/figures/eap_networks.png",
                caption=caption("eap_networks"),
                category="Energy by layer",
                labels={"what": "networks compared", "type": "figure"},
            ),
            layers_pdf="<results>/figures/eap_layers.pdf",
            networks_pdf="<results>/figures/eap_networks.pdf",
            pruning=report(
                "<results>/tables/eap_pruning.csv",
                caption=caption("eap_pruning"),
                category="Single weights",
                labels={"what": "rounds of pruning", "type": "table"},
            ),
            classes=report(
                "<results>/tables/eap_classes.csv",
                caption=caption("eap_classes"),
                category="Single weights",
                labels={"what": "fewer target classes", "type": "table"},
            ),
            pruning_png=report(
                "<results>/figures/eap_pruning.png",
                caption=caption("eap_pruning"),
                category="Single weights",
                labels={"what": "rounds of pruning", "type": "figure"},
            ),
            classes_png=report(
                "<results>/figures/eap_classes.png",
                caption=caption("eap_classes"),
                category="Single weights",
                labels={"what": "fewer target classes", "type": "figure"},
            ),
            pruning_pdf="<results>/figures/eap_pruning.pdf",
            classes_pdf="<results>/figures/eap_classes.pdf",
        log:
            "<logs>/eap_figures/all.log",
        benchmark:
            "<benchmarks>/eap_figures/all.tsv"
        conda:
            "../envs/figures.yaml"
        threads: 1
        resources:
            mem_mb=memory("evidence"),
            runtime=duration("evidence"),
            gpu=gpus("evidence"),
        params:
            library=library("eap_figures"),
            title=PLATFORMS[EAP["platform"]].description,
        script:
            "../workflow_scripts/eap_figures.py"
