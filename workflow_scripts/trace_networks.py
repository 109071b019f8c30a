"""Traces networks at their deployment size: their channel groups and operations."""

from collections.abc import Mapping
from typing import Any

from ecc import runs
from ecc.logs import job
from ecc.networks import Network


def trace_networks(networks: Mapping[str, dict[str, Any]], structures: Mapping[str, str]) -> None:
    for name, settings in networks.items():
        runs.write_text(structures[name], Network(**settings).structure.to_json() + "\n")


if __name__ == "__main__":
    with job(snakemake.log[0]):
        networks = snakemake.params.networks
        trace_networks(networks, dict(zip(networks, snakemake.output.structures, strict=True)))
