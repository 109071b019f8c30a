# Data: the embedded ones are made, the user's are checked. The manifest says what is there.


rule prepare_data:
    output:
        manifest="<results>/data/{dataset}/manifest.json",
    log:
        "<logs>/prepare_data/{dataset}.log",
    benchmark:
        "<benchmarks>/prepare_data/{dataset}.tsv"
    priority: 10
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory("data"),
        runtime=duration("data"),
        gpu=gpus("data"),
    params:
        library=library("prepare_data"),
        settings=lambda wildcards: config["datasets"][wildcards.dataset],
    script:
        "../workflow_scripts/prepare_data.py"
