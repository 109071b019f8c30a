"""Energy of dense networks by layer and data type, on an accelerator that skips zeros."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
import torch

from ecc import finegrained, platforms, runs
from ecc.data.photographs import crops
from ecc.errors import UserError
from ecc.logs import job
from ecc.networks import Network


def layer_energy(
    networks: Mapping[str, Mapping[str, Any]],
    platform: Mapping[str, Any],
    batch: int,
    images: int,
    seed: int,
    output: str,
) -> None:
    accelerator = replace(platforms.make("eap", platform), batch=batch)
    frames = []
    for name, settings in networks.items():
        try:
            network = Network(**settings)
            seen = crops(network.size, images, seed)
            frame = finegrained.dense_layers(network, accelerator, seen, seed)
        except UserError as error:
            raise UserError(f"config key eap.dense.networks: {name}: {error}") from error
        frames.append(frame.assign(network=name)[["network", *frame.columns]])
    runs.write_csv(output, pd.concat(frames, ignore_index=True))


if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.input, snakemake.output):
        torch.set_num_threads(snakemake.threads)
        layer_energy(
            snakemake.params.networks,
            snakemake.params.platform,
            snakemake.params.batch,
            snakemake.params.images,
            snakemake.params.seed,
            snakemake.output.layers,
        )
