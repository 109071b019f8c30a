"""Fits of the bilinear model: Adam as in the paper, and non-negative least squares.

Yang, Zhu, Liu, ECC, CVPR 2019, section 4.2. The model is linear in its coefficients, so that the
second gives at once what the first approaches over thousands of iterations.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecc.energy.bilinear import Bilinear, Features
from ecc.energy.model import Array, mean_error
from ecc.errors import UserError
from ecc.structure import Structure

Samples = tuple[NDArray[np.int64], Array]  # widths (n, groups), joules (n,)
RECORDED = 60  # iterations at which the test error is recorded, evenly on a logarithmic axis


def adam(
    model: type[Bilinear],
    structure: Structure,
    train: Samples,
    test: Samples,
    *,
    iterations: int = 10_000,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-3,
) -> tuple[Bilinear, pd.DataFrame]:
    """The paper's fit: Adam on the mean squared error of all samples, from zero, with a >= 0.

    Energies are divided by their mean, so that the settings mean the same on every device.
    `weight_decay` w adds w/2 |a|^2 to the loss; of a sum of squares over n samples it is w n.
    """
    import torch

    from ecc.optimizer import EagerAdam

    features = checked_features(model.form(structure), train)
    mean_j = train[1].mean()
    design = torch.from_numpy(features.matrix(train[0]))
    target = torch.from_numpy(train[1] / mean_j)
    test_design = features.matrix(test[0])
    a = torch.zeros(design.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = EagerAdam([a], lr=learning_rate, weight_decay=weight_decay)
    errors = {}
    record = recorded(iterations)
    with one_thread():
        for iteration in range(1, iterations + 1):
            optimizer.zero_grad()
            (design @ a - target).square().mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            with torch.no_grad():
                a.clamp_(min=0)
            if iteration in record:
                errors[iteration] = mean_error(test_design @ a.detach().numpy() * mean_j, test[1])
    return model(structure, a.detach().numpy() * mean_j), history(errors)


def least_squares(
    model: type[Bilinear],
    structure: Structure,
    train: Samples,
    test: Samples,
    *,
    reweightings: int = 0,
) -> tuple[Bilinear, pd.DataFrame]:
    """Coefficients a >= 0 with the smallest sum of squared relative residuals r = (Ê - E)/E.

    The error that is reported is the mean of |r|, not of r^2. Each of the `reweightings` repeats
    the fit with weights 1/|r|, which turns from the one towards the other.
    """
    features = checked_features(model.form(structure), train)
    design = features.matrix(train[0])
    design /= train[1][:, None]
    a = nonnegative(design.T @ design, design.T @ np.ones(len(design)))
    weighted = np.empty_like(design)
    for _ in range(reweightings):
        residuals = np.abs(design @ a - 1)
        weights = 1 / np.maximum(residuals, 0.3 * residuals.mean() + 1e-12)
        np.multiply(design, np.sqrt(weights)[:, None], out=weighted)
        a = nonnegative(weighted.T @ weighted, design.T @ weights)
    return model(structure, a), solved(features.matrix(test[0]) @ a, test[1])


def nonnegative(gram: Array, moment: Array) -> Array:
    """The x >= 0 that minimises |A x - b|^2, given A'A (f, f) and A'b (f,).

    The columns of A are scaled to length one and the rows reduced to a triangle, so that the
    active-set method works on f rows. 1e-12 keeps the triangle regular where columns depend on
    each other.
    """
    from scipy.linalg import solve_triangular  # here: fits alone need it, and it takes a while
    from scipy.optimize import nnls

    length = np.sqrt(gram.diagonal())
    scaled = gram / np.outer(length, length) + 1e-12 * np.eye(len(gram))
    triangle = np.linalg.cholesky(scaled)
    solution, _ = nnls(triangle.T, solve_triangular(triangle, moment / length, lower=True))
    return np.asarray(solution / length)


def checked_features(features: Features, train: Samples) -> Features:
    """The features. Raises UserError where there are fewer samples than coefficients."""
    needed = 1 + len(features.names)
    if len(train[1]) < needed:
        raise UserError(
            f"{len(train[1])} training samples for {needed} coefficients: raise energy.samples, "
            "or lower energy.test_samples"
        )
    return features


def recorded(iterations: int) -> set[int]:
    """Iterations to record, from 1 to the last, evenly on a logarithmic axis."""
    return set(np.geomspace(1, iterations, RECORDED).round().astype(int).tolist())


def history(errors: dict[int, float]) -> pd.DataFrame:
    return pd.DataFrame({"iteration": errors.keys(), "relative_test_error": errors.values()})


def solved(modelled_j: Array, measured_j: Array) -> pd.DataFrame:
    """The history of a fit in closed form: one row."""
    return history({1: mean_error(modelled_j, measured_j)})


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: faster at these sizes, and sums do not depend on the machine's cores."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
