"""Traces a network at its deployment size: its channel groups and operations."""

from collections.abc import Mapping
from typing import Any

from ecc import runs
from ecc.errors import UserError
from ecc.logs import job
from ecc.networks import Network


def trace_network(name: str, settings: Mapping[str, Any], output: str) -> None:
    try:
        structure = Network(**settings).structure
    except UserError as error:
        raise UserError(f"config key networks.{name}: {error}") from error
    runs.write_text(output, structure.to_json() + "\n")


if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.input, snakemake.output):
        trace_network(
            snakemake.wildcards.network, snakemake.params.settings, snakemake.output.structure
        )
