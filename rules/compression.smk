# Compression: dense network x energy model x budget x method, measured and narrowed where it is over
# budget, fine-tuned slim, measured again.
# One rule an experiment and platform, because each has its own budgets and seeds; `batch` says how
# many of them one job covers. One job measures all of a method: a sensor has to warm up.

for experiment, on in PAIRS:

    rule:
        name:
            f"compress_{experiment}_{on}"
        input:
            library=library("compress"),
            data=manifest,
            dense="<results>/dense/{experiment}/model.safetensors",
            budgets="<results>/budgets/{experiment}/{platform}.json",
            energy_model=of_method,
            limits=of_limits("<results>/energy_models/{platform}/{network}/{model}"),
        output:
            masked=batched(f"<results>/compressed/{RUN}/masked.safetensors", experiment, on),
            history=batched(f"<results>/compressed/{RUN}/history.csv", experiment, on),
            metrics=batched(f"<results>/compressed/{RUN}/metrics.json", experiment, on),
        log:
            f"<logs>/compress/{{experiment}}-{{platform}}-{{method}}{APART}.log",
        benchmark:
            f"<benchmarks>/compress/{{experiment}}-{{platform}}-{{method}}{APART}.tsv"
        wildcard_constraints:
            experiment=experiment,
            platform=on,
        priority: longest_first
        conda:
            "../envs/torch.yaml"
        threads: processes("compression")
        resources:
            mem_mb=memory("compression"),
            runtime=duration("compression"),
            gpu=gpus("compression"),
        params:
            runs=covered_runs,
            network=network_settings,
            dataset=dataset_settings,
            training=stage("compression"),
            method=method_settings,
            limiting=limiting,
        script:
            "../workflow_scripts/compress.py"

    # A network that measures more than its budget is narrowed before it is fine-tuned.
    if closing_rounds(experiment):

        rule:
            name:
                f"close_budgets_{experiment}_{on}"
            input:
                library=library("close_budgets"),
                data=manifest,
                budgets="<results>/budgets/{experiment}/{platform}.json",
                energy_models=of_limits(
                    "<results>/energy_models/{platform}/{network}/{model}", own=True
                ),
                recorded=recorded,
                masked=all_of(f"<results>/compressed/{RUN}/masked.safetensors", experiment, on),
                metrics=all_of(f"<results>/compressed/{RUN}/metrics.json", experiment, on),
            output:
                closing=all_of(f"<results>/compressed/{RUN}/closing.json", experiment, on),
            log:
                "<logs>/close_budgets/{experiment}-{platform}-{method}.log",
            benchmark:
                "<benchmarks>/close_budgets/{experiment}-{platform}-{method}.tsv"
            wildcard_constraints:
                experiment=experiment,
                platform=on,
            priority: 5
            conda:
                "../envs/torch.yaml"
            threads: undisturbed
            resources:
                mem_mb=memory("closing"),
                runtime=duration("closing"),
                gpu=gpus("closing"),
            params:
                on=budgeted_on,
                network=network_settings,
                dataset=dataset_settings,
                device=config["device"],
                rounds=closing_rounds(experiment),
                repeats=config["energy"]["repeats"],
                seed=config["seed"],
                name="{experiment}/{platform}/{method}",
                journal=f"{config['results']}/closing/{{experiment}}/{{platform}}/{{method}}",
            script:
                "../workflow_scripts/close_budgets.py"

    rule:
        name:
            f"finetune_{experiment}_{on}"
        input:
            library=library("finetune"),
            data=manifest,
            dense="<results>/dense/{experiment}/model.safetensors",
            dense_metrics="<results>/dense/{experiment}/metrics.json",
            budgets="<results>/budgets/{experiment}/{platform}.json",
            masked=batched(f"<results>/compressed/{RUN}/masked.safetensors", experiment, on),
            compression=batched(f"<results>/compressed/{RUN}/metrics.json", experiment, on),
            closing=closed(experiment, on),
        output:
            slim=batched(f"<results>/finetuned/{RUN}/slim.safetensors", experiment, on),
            history=batched(f"<results>/finetuned/{RUN}/history.csv", experiment, on),
            metrics=batched(f"<results>/finetuned/{RUN}/metrics.json", experiment, on),
        log:
            f"<logs>/finetune/{{experiment}}-{{platform}}-{{method}}{APART}.log",
        benchmark:
            f"<benchmarks>/finetune/{{experiment}}-{{platform}}-{{method}}{APART}.tsv"
        wildcard_constraints:
            experiment=experiment,
            platform=on,
        priority: 5
        conda:
            "../envs/torch.yaml"
        threads: processes("finetuning")
        resources:
            mem_mb=memory("finetuning"),
            runtime=duration("finetuning"),
            gpu=gpus("finetuning"),
        params:
            runs=covered_runs,
            names=common_names,
            network=network_settings,
            dataset=dataset_settings,
            phases=phases,
        script:
            "../workflow_scripts/finetune.py"

    rule:
        name:
            f"verify_energy_{experiment}_{on}"
        input:
            library=library("verify_energy"),
            structure=of_network("<results>/networks/{network}.json"),
            energy_models=of_limits(
                "<results>/energy_models/{platform}/{network}/{model}", own=True
            ),
            recorded=recorded,
            metrics=all_of(f"<results>/finetuned/{RUN}/metrics.json", experiment, on),
        output:
            energy=all_of(f"<results>/finetuned/{RUN}/energy.json", experiment, on),
        log:
            "<logs>/verify_energy/{experiment}-{platform}-{method}.log",
        benchmark:
            "<benchmarks>/verify_energy/{experiment}-{platform}-{method}.tsv"
        wildcard_constraints:
            experiment=experiment,
            platform=on,
        conda:
            "../envs/torch.yaml"
        threads: undisturbed
        resources:
            mem_mb=memory("verification"),
            runtime=duration("verification"),
            gpu=gpus("verification"),
        params:
            on=budgeted_on,
            network=network_settings,
            repeats=config["energy"]["repeats"],
            seed=config["seed"],
            name="{experiment}/{platform}/{method}",
            journal=f"{config['results']}/verified/{{experiment}}/{{platform}}/{{method}}",
        script:
            "../workflow_scripts/verify_energy.py"
