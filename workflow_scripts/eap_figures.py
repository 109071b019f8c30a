"""Tables and figures of EAP: energy by layer, rounds of pruning, fewer target classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ecc import runs
from ecc.evidence import eap, eap_layers, style
from ecc.logs import job


def eap_figures(
    arms: Sequence[str],
    classes: Sequence[str],
    layers: str,
    published: str,
    accuracies: str,
    title: str,
    files: Mapping[str, str],
) -> None:
    """`arms` and `classes` are files {arm}/classes-{number}/seed{seed}/rounds.csv."""
    dense = pd.read_csv(layers)
    stated = pd.read_csv(published)
    networks = eap_layers.networks(dense, stated)
    results = eap_layers.results(networks, stated, pd.read_csv(accuracies))
    pruning = eap.pruning([(Path(path).parts[-4], pd.read_csv(path)) for path in arms])
    fewer = eap.classes([pd.read_csv(path) for path in classes])
    for name, table, draw in (
        ("layers", dense, eap_layers.draw_layers),
        ("networks", networks, eap_layers.draw_networks),
        ("results", results, eap_layers.draw_results),
        ("pruning", pruning, eap.draw_pruning),
        ("classes", fewer, eap.draw_classes),
    ):
        runs.write_csv(files[name], table)
        style.save(draw(table, title), files[f"{name}_png"], files[f"{name}_pdf"])


if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.input, snakemake.output):
        eap_figures(
            snakemake.input.arms,
            snakemake.input.classes,
            snakemake.input.layers,
            snakemake.input.published,
            snakemake.input.accuracies,
            snakemake.params.title,
            dict(snakemake.output.items()),
        )
