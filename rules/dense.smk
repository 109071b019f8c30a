# Dense networks: one an experiment, trained from random weights or from published ones. All that
# follows waits for them.

refuse_missing_weights()


rule train_dense:
    input:
        data=manifest,
        traced=traced_before,
        weights=published_weights,
        sensors=lambda wildcards: sensors(of_experiment(wildcards)["platforms"]),
    output:
        model="<results>/dense/{experiment}/model.safetensors",
        history="<results>/dense/{experiment}/history.csv",
        metrics="<results>/dense/{experiment}/metrics.json",
    log:
        "<logs>/train_dense/{experiment}.log",
    benchmark:
        "<benchmarks>/train_dense/{experiment}.tsv"
    priority: 10
    conda:
        "../envs/torch.yaml"
    threads: processes("dense")
    resources:
        mem_mb=memory("dense"),
        runtime=duration("dense"),
        gpu=gpus("dense"),
    params:
        library=library("train_dense"),
        network=network_settings,
        dataset=dataset_settings,
        training=stage("dense"),
        seed=config["seed"],
    script:
        "../workflow_scripts/train_dense.py"
