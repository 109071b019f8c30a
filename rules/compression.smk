# Compression: dense network x energy model x budget x method, measured and narrowed where it is over
# budget, fine-tuned slim, measured again.
# One rule an experiment and platform, because each has its own budgets and seeds; `batch` says how
# many of them one job covers. One job measures all of a method: a sensor has to warm up.

for experiment, on in PAIRS:
    here = Names(experiment=experiment, platform=on)

    rule:
        name:
            f"compress_{experiment}_{on}"
        input:
            data=manifest(here),
            dense=f"<results>/dense/{experiment}/model.safetensors",
            budgets=f"<results>/budgets/{experiment}/{on}.json",
            energy_model=later(of_method, here),
            limits=of_limits("<results>/energy_models/{platform}/{network}/{model}")(here),
        output:
            masked=batched(f"<results>/compressed/{RUN}/masked.safetensors", experiment, on),
            history=batched(f"<results>/compressed/{RUN}/history.csv", experiment, on),
            metrics=batched(f"<results>/compressed/{RUN}/metrics.json", experiment, on),
        log:
            f"<logs>/compress/{experiment}-{on}-{{method}}{APART}.log",
        benchmark:
            f"<benchmarks>/compress/{experiment}-{on}-{{method}}{APART}.tsv"
        priority: longest_first
        conda:
            "../envs/torch.yaml"
        threads: processes("compression")(here)
        resources:
            mem_mb=memory("compression", here),
            runtime=duration("compression", here),
            gpu=gpus("compression", here),
        params:
            library=library("compress")(here),
            runs=later(covered_runs, here),
            network=network_settings(here),
            dataset=dataset_settings(here),
            training=stage("compression")(here),
            method=method_settings,
            limiting=limiting(here),
        script:
            "../workflow_scripts/compress.py"

    # A network that measures more than its budget is narrowed before it is fine-tuned.
    if closing_rounds(experiment):

        rule:
            name:
                f"close_budgets_{experiment}_{on}"
            input:
                data=manifest(here),
                budgets=f"<results>/budgets/{experiment}/{on}.json",
                energy_models=of_limits(
                    "<results>/energy_models/{platform}/{network}/{model}", own=True
                )(here),
                recorded=recorded(here),
                masked=all_of(f"<results>/compressed/{RUN}/masked.safetensors", experiment, on),
                metrics=all_of(f"<results>/compressed/{RUN}/metrics.json", experiment, on),
            output:
                closing=all_of(f"<results>/compressed/{RUN}/closing.json", experiment, on),
            log:
                f"<logs>/close_budgets/{experiment}-{on}-{{method}}.log",
            benchmark:
                f"<benchmarks>/close_budgets/{experiment}-{on}-{{method}}.tsv"
            priority: 5
            conda:
                "../envs/torch.yaml"
            threads: later(undisturbed, here)
            resources:
                mem_mb=memory("closing", here),
                runtime=duration("closing", here),
                gpu=gpus("closing", here),
            params:
                library=library("close_budgets")(here),
                on=budgeted_on(here),
                network=network_settings(here),
                dataset=dataset_settings(here),
                device=config["device"],
                rounds=closing_rounds(experiment),
                repeats=config["energy"]["repeats"],
                seed=config["seed"],
                name=f"{experiment}/{on}/{{method}}",
                journal=f"{config['results']}/closing/{experiment}/{on}/{{method}}",
            script:
                "../workflow_scripts/close_budgets.py"

        # Of a file that many jobs wait for, Snakemake looks through all inputs and outputs of the
        # job that makes it, for each of them: with hundreds of runs a sixth of planning.
        rule:
            name:
                f"closed_{experiment}_{on}"
            input:
                all_of(f"<results>/compressed/{RUN}/closing.json", experiment, on),
            output:
                touch(closed(experiment, on)),
            priority: 5
            localrule: True
            threads: 1
            resources:
                mem_mb=memory("budgets"),
                runtime=duration("budgets"),
                gpu=gpus("budgets"),

    rule:
        name:
            f"finetune_{experiment}_{on}"
        input:
            data=manifest(here),
            dense=f"<results>/dense/{experiment}/model.safetensors",
            dense_metrics=f"<results>/dense/{experiment}/metrics.json",
            budgets=f"<results>/budgets/{experiment}/{on}.json",
            masked=batched(f"<results>/compressed/{RUN}/masked.safetensors", experiment, on),
            compression=batched(f"<results>/compressed/{RUN}/metrics.json", experiment, on),
            closed=closed(experiment, on),
        output:
            slim=batched(f"<results>/finetuned/{RUN}/slim.safetensors", experiment, on),
            history=batched(f"<results>/finetuned/{RUN}/history.csv", experiment, on),
            metrics=batched(f"<results>/finetuned/{RUN}/metrics.json", experiment, on),
        log:
            f"<logs>/finetune/{experiment}-{on}-{{method}}{APART}.log",
        benchmark:
            f"<benchmarks>/finetune/{experiment}-{on}-{{method}}{APART}.tsv"
        priority: 5
        conda:
            "../envs/torch.yaml"
        threads: processes("finetuning")(here)
        resources:
            mem_mb=memory("finetuning", here),
            runtime=duration("finetuning", here),
            gpu=gpus("finetuning", here),
        params:
            library=library("finetune")(here),
            runs=later(covered_runs, here),
            names=later(common_names, here),
            network=network_settings(here),
            dataset=dataset_settings(here),
            phases=phases(here),
        script:
            "../workflow_scripts/finetune.py"

    rule:
        name:
            f"verify_energy_{experiment}_{on}"
        input:
            structure=of_network("<results>/networks/{network}.json")(here),
            energy_models=of_limits(
                "<results>/energy_models/{platform}/{network}/{model}", own=True
            )(here),
            recorded=recorded(here),
            metrics=all_of(f"<results>/finetuned/{RUN}/metrics.json", experiment, on),
        output:
            energy=all_of(f"<results>/finetuned/{RUN}/energy.json", experiment, on),
        log:
            f"<logs>/verify_energy/{experiment}-{on}-{{method}}.log",
        benchmark:
            f"<benchmarks>/verify_energy/{experiment}-{on}-{{method}}.tsv"
        conda:
            "../envs/torch.yaml"
        threads: later(undisturbed, here)
        resources:
            mem_mb=memory("verification", here),
            runtime=duration("verification", here),
            gpu=gpus("verification", here),
        params:
            library=library("verify_energy")(here),
            on=budgeted_on(here),
            network=network_settings(here),
            repeats=config["energy"]["repeats"],
            seed=config["seed"],
            name=f"{experiment}/{on}/{{method}}",
            journal=f"{config['results']}/verified/{experiment}/{on}/{{method}}",
        script:
            "../workflow_scripts/verify_energy.py"
