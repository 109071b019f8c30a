"""Turns budgets of an experiment on a platform into joules or seconds; refuses impossible ones."""

from collections.abc import Iterable

from ecc import energy, metrics, runs
from ecc.budgets import Budget, lower_bounds
from ecc.errors import UserError
from ecc.logs import job
from ecc.structure import Structure


def resolve_budgets(
    structure: str,
    dense: str,
    energy_model: str,
    *,
    experiment: str,
    budgets: Iterable[str],
    smallest_width: float,
    output: str,
) -> None:
    """Dense energy is the measured one; the smallest reachable is by the energy model."""
    traced = Structure.read(structure)
    model = energy.load(energy_model, traced)
    bounds = lower_bounds(traced.full_widths, smallest_width)
    measured = metrics.from_file(runs.read_json(dense))
    dense_j, metric = measured["dense_energy_j"], measured["metric"]
    minimum_j = float(model.energy(bounds))
    try:
        budget_j = {
            label: Budget.from_label(label).resolve(dense_j, minimum_j, metric) for label in budgets
        }
    except UserError as error:
        raise UserError(f"config key experiments, {experiment}: {error}") from error
    runs.write_json(
        output,
        {
            "metric": metric,
            **metrics.to_file(
                {
                    "dense_energy_j": dense_j,
                    "minimum_energy_j": minimum_j,
                    "budget_j": budget_j,
                },
                metric,
            ),
            "lower_bounds": bounds.tolist(),
        },
    )


if __name__ == "__main__":
    with job(snakemake.log[0]):
        resolve_budgets(
            snakemake.input.structure,
            snakemake.input.dense,
            snakemake.input.energy_model,
            experiment=snakemake.wildcards.experiment,
            budgets=snakemake.params.budgets,
            smallest_width=snakemake.params.smallest_width,
            output=snakemake.output.budgets,
        )
