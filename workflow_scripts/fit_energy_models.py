"""Fits energy models of a network on a platform and tests them on samples they have not seen."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ecc import energy, runs
from ecc.errors import UserError
from ecc.logs import job
from ecc.structure import Structure


def fit_energy_models(
    structure: str,
    samples: str,
    models: Sequence[Mapping[str, Any]],
    *,
    test_samples: int,
    seed: int,
    keys: Mapping[str, str],
    files: Sequence[str],
    errors: str,
    history: str,
    residuals: str,
) -> None:
    """`keys` are platform and network, in front of every row; `files` hold the fitted models."""
    traced = Structure.read(structure)
    widths, energy_j = energy.read_samples(samples, traced, minimum=test_samples + 1)
    train, test = energy.split(len(widths), test_samples, seed)
    rows, histories, erring = [], [], []
    for model, file in zip(models, files, strict=True):
        settings = dict(model)
        kind, fit = settings.pop("model"), settings.pop("fit")
        try:
            fitted, course = energy.fit(
                kind,
                fit,
                traced,
                widths[train],
                energy_j[train],
                settings,
                test=(widths[test], energy_j[test]),
            )
        except UserError as error:
            raise UserError(f"{samples}, {kind} by {fit}: {error}") from error
        fitted.save(file)
        error = energy.relative_error(fitted, widths[test], energy_j[test])
        logging.info("%s by %s: relative test error %.4f", kind, fit, error)
        row = {**keys, "model": kind, "fit": fit}
        rows.append(
            {
                **row,
                "relative_test_error": error,
                "train_samples": len(train),
                "test_samples": len(test),
            }
        )
        histories.append(course.assign(**row)[[*row, *course.columns]])
        found = energy.residuals(fitted, widths[test], energy_j[test])
        erring.append(found.assign(**row)[[*row, *found.columns]])
    runs.write_csv(errors, pd.DataFrame(rows))
    runs.write_csv(history, pd.concat(histories, ignore_index=True))
    runs.write_csv(residuals, pd.concat(erring, ignore_index=True))


if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.input, snakemake.output):
        fit_energy_models(
            snakemake.input.structure,
            snakemake.input.samples,
            snakemake.params.models,
            test_samples=snakemake.params.test_samples,
            seed=snakemake.params.seed,
            keys=dict(snakemake.wildcards.items()),
            files=snakemake.output.models,
            errors=snakemake.output.errors,
            history=snakemake.output.history,
            residuals=snakemake.output.residuals,
        )
