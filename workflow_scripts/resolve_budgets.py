"""Turns budgets of an experiment on a platform into joules or seconds; refuses impossible ones."""

from collections.abc import Iterable, Mapping

import numpy as np

from ecc import energy, metrics, records, runs
from ecc.budgets import Budget, Range, lower_bounds
from ecc.counts import COUNTS, Count
from ecc.errors import UserError
from ecc.logs import job
from ecc.structure import Structure


def resolve_budgets(
    structure: str,
    platform: str,
    platforms: Mapping[str, tuple[str, str]],
    *,
    experiment: str,
    budgets: Iterable[str],
    smallest_width: float,
    output: str,
) -> None:
    """`platforms` are dense.json and energy model of `platform` and of those that limits name.

    Dense energy is the measured one; the smallest reachable is by the energy model. A budget that
    the dense network meets by its model is refused, unless one of its limits binds.
    """
    traced = Structure.read(structure)
    full = traced.full_widths
    bounds = lower_bounds(full, smallest_width)
    ranges = {}
    for name, (dense, model) in platforms.items():
        measured = records.read(dense, "dense energy")
        smallest, modelled = energy.load(model, traced).energy(np.stack([bounds, full])).tolist()
        dense, metric = measured["dense_energy_j"], measured["metric"]
        ranges[name] = Range(dense, smallest, metric, modelled)
    for name in COUNTS:
        count = Count(name, traced)
        smallest, dense = count.energy(np.stack([bounds, full])).tolist()
        ranges[name] = Range(dense, smallest, "count", dense)
    own = ranges[platform]
    try:
        parsed = {label: Budget.from_label(label) for label in budgets}
        budget_j = {label: budget.resolve(own) for label, budget in parsed.items()}
        limits = {label: budget.resolve_limits(ranges) for label, budget in parsed.items()}
        for budget in parsed.values():
            budget.check_binding(own, ranges)
    except UserError as error:
        raise UserError(f"config key experiments, {experiment}: {error}") from error
    energies = {
        "dense_energy_j": own.dense,
        "minimum_energy_j": own.smallest,
        "budget_j": budget_j,
    }
    runs.write_json(
        output,
        {
            "metric": own.metric,
            **metrics.to_file(energies, own.metric),
            "limits": limits,
            "lower_bounds": bounds.tolist(),
        },
    )


if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.input, snakemake.output):
        resolve_budgets(
            snakemake.input.structure,
            snakemake.wildcards.platform,
            dict(
                zip(
                    snakemake.params.platforms,
                    zip(snakemake.input.dense, snakemake.input.energy_models, strict=True),
                    strict=True,
                )
            ),
            experiment=snakemake.wildcards.experiment,
            budgets=snakemake.params.budgets,
            smallest_width=snakemake.params.smallest_width,
            output=snakemake.output.budgets,
        )
