# Something to take away: a fine-tuned network as safetensors, torch.export and ONNX, with its card.
# Any run by its path; `snakemake export` makes those of ECC and the first seed of each experiment.


rule export_network:
    input:
        data=manifest,
        slim=f"<results>/finetuned/{RUN}/slim.safetensors",
        metrics=f"<results>/finetuned/{RUN}/metrics.json",
        energy=f"<results>/finetuned/{RUN}/energy.json",
    output:
        weights=f"<results>/exported/{RUN}/model.safetensors",
        program=f"<results>/exported/{RUN}/model.pt2",
        onnx=f"<results>/exported/{RUN}/model.onnx",
        card=f"<results>/exported/{RUN}/README.md",
    log:
        "<logs>/export_network/{experiment}-{platform}-{budget}-{method}-{seed}.log",
    benchmark:
        "<benchmarks>/export_network/{experiment}-{platform}-{budget}-{method}-{seed}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory("export"),
        runtime=duration("export"),
        gpu=gpus("export"),
    params:
        library=library("export_network"),
        platform=platform_settings,
        network=network_settings,
        settings=exported_settings,
    script:
        "../workflow_scripts/export_network.py"
