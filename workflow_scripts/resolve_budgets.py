"""Turns the budgets of an experiment on a platform into joules, and refuses impossible ones."""

from collections.abc import Iterable

from ecc import energy, runs
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
    dense_j = runs.read_json(dense)["dense_energy_j"]
    minimum_j = float(model.energy(bounds))
    try:
        budget_j = {
            label: Budget.from_label(label).resolve(dense_j, minimum_j) for label in budgets
        }
    except UserError as error:
        raise UserError(f"config key experiments, {experiment}: {error}") from error
    runs.write_json(
        output,
        {
            "dense_energy_j": dense_j,
            "minimum_energy_j": minimum_j,
            "lower_bounds": bounds.tolist(),
            "budget_j": budget_j,
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
