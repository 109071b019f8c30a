# Energy: network x platform -> samples -> energy models -> errors, and the budgets in joules.


rule trace_network:
    output:
        structure="<results>/networks/{network}.json",
    log:
        "<logs>/trace_network/{network}.log",
    benchmark:
        "<benchmarks>/trace_network/{network}.tsv"
    priority: 10
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory("tracing"),
        runtime=duration("tracing"),
        gpu=gpus("tracing"),
    params:
        library=library("trace_network"),
        settings=lambda wildcards: settings.network(config, wildcards.network),
    script:
        "../workflow_scripts/trace_network.py"


# Before networks are trained for a platform whose sensor is not there, or may not be read.
rule check_sensor:
    output:
        sensor="<results>/samples/{platform}/sensor.json",
    log:
        "<logs>/check_sensor/{platform}.log",
    benchmark:
        "<benchmarks>/check_sensor/{platform}.tsv"
    priority: 20
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory("sensor"),
        runtime=duration("sensor"),
        gpu=gpus("sensor"),
    params:
        library=library("check_sensor"),
        platform=platform_settings,
    script:
        "../workflow_scripts/check_sensor.py"


# Where `energy.chunk` is set, some of the samples of an emulated device: to the same numbers as in
# one job for all.
if "chunk" in config["energy"]:

    rule sample_chunk:
        input:
            structure="<results>/networks/{network}.json",
        output:
            chunk=temp("<results>/samples/{platform}/{network}/chunks/{first}.csv"),
        log:
            "<logs>/sample_chunk/{platform}-{network}-{first}.log",
        benchmark:
            "<benchmarks>/sample_chunk/{platform}-{network}-{first}.tsv"
        wildcard_constraints:
            first=r"\d+",
        priority: 10
        conda:
            "../envs/torch.yaml"
        threads: 1
        resources:
            mem_mb=memory("sampling"),
            runtime=duration("sampling"),
            gpu=gpus("sampling"),
        params:
            library=library("sample_chunk"),
            platform=platform_settings,
            size=chunk_size,
            seed=config["seed"],
        script:
            "../workflow_scripts/sample_chunk.py"


# A sensor must see nothing but its own samples: where one measures, the job takes all cores. What
# it has measured is kept in `campaign` beside the outputs, and a killed job goes on from there.
rule sample_energy:
    input:
        structure="<results>/networks/{network}.json",
        recorded=recorded,
        sensor=lambda wildcards: sensors([wildcards.platform]),
        chunks=chunks,
    output:
        samples="<results>/samples/{platform}/{network}/samples.csv",
        dense="<results>/samples/{platform}/{network}/dense.json",
        sweep="<results>/samples/{platform}/{network}/sweep.csv",
        provenance="<results>/samples/{platform}/{network}/provenance.json",
    log:
        "<logs>/sample_energy/{platform}-{network}.log",
    benchmark:
        "<benchmarks>/sample_energy/{platform}-{network}.tsv"
    priority: 10  # before compression: the longest of its jobs are to start first
    conda:
        "../envs/torch.yaml"
    threads: undisturbed
    resources:
        mem_mb=memory("sampling"),
        runtime=duration("sampling"),
        gpu=gpus("sampling"),
    params:
        library=library("sample_energy"),
        platform=platform_settings,
        network=lambda wildcards: settings.network(config, wildcards.network),
        samples=lambda wildcards: settings.samples(config, wildcards.platform)[0],
        repeats=config["energy"]["repeats"],
        sweeps=sweeps,
        seed=config["seed"],
    script:
        "../workflow_scripts/sample_energy.py"


# One rule a network: those named under `energy` are fitted with all models, others with the ones
# that experiments use.
for network, models in MODELS.items():

    rule:
        name:
            f"fit_energy_models_{network}"
        input:
            structure="<results>/networks/{network}.json",
            samples="<results>/samples/{platform}/{network}/samples.csv",
        output:
            models=expand(
                "<results>/energy_models/{platform}/{network}/{model}",
                model=map(settings.model_file, models),
                allow_missing=True,
            ),
            errors="<results>/energy_models/{platform}/{network}/errors.csv",
            history="<results>/energy_models/{platform}/{network}/history.csv",
            residuals="<results>/energy_models/{platform}/{network}/residuals.csv",
        log:
            "<logs>/fit_energy_models/{platform}-{network}.log",
        benchmark:
            "<benchmarks>/fit_energy_models/{platform}-{network}.tsv"
        wildcard_constraints:
            network=network,
        priority: 10
        conda:
            "../envs/torch.yaml"
        threads: 1
        resources:
            mem_mb=memory("fitting"),
            runtime=duration("fitting"),
            gpu=gpus("fitting"),
        params:
            library=library("fit_energy_models"),
            models=lambda wildcards: MODELS[wildcards.network],
            test_samples=lambda wildcards: settings.samples(config, wildcards.platform)[1],
            seed=config["seed"],
        script:
            "../workflow_scripts/fit_energy_models.py"


rule resolve_budgets:
    input:
        structure=of_network("<results>/networks/{network}.json"),
        dense=of_limits("<results>/samples/{platform}/{network}/dense.json", own=True),
        energy_models=of_limits("<results>/energy_models/{platform}/{network}/{model}", own=True),
    output:
        budgets="<results>/budgets/{experiment}/{platform}.json",
    log:
        "<logs>/resolve_budgets/{experiment}-{platform}.log",
    benchmark:
        "<benchmarks>/resolve_budgets/{experiment}-{platform}.tsv"
    priority: 10
    conda:
        "../envs/numeric.yaml"
    threads: 1
    resources:
        mem_mb=memory("budgets"),
        runtime=duration("budgets"),
        gpu=gpus("budgets"),
    params:
        library=library("resolve_budgets"),
        platforms=lambda wildcards: [wildcards.platform, *limiting(wildcards)],
        budgets=lambda wildcards: budgets(wildcards.experiment, wildcards.platform),
        smallest_width=lambda wildcards: of_experiment(wildcards)["smallest_width"],
    script:
        "../workflow_scripts/resolve_budgets.py"
