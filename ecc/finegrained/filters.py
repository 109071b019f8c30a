"""One layer's filters made sparse: magnitude, restoration by output error, least squares.

Yang, Chen, Sze, "Designing Energy-Efficient Convolutional Neural Networks using Energy-Aware
Pruning", CVPR 2017, section 4. Shapes: X (n, k) sampled inputs of the layer, unfolded; Y_hat (n, f)
outputs of the original layer there, without bias; A (f, k) the filters.
"""

import numpy as np
from numpy.typing import NDArray

from ecc.errors import UserError
from ecc.methods.eap import restoration
from ecc.methods.reconstruction import least_squares

Array = NDArray[np.float32]
Support = NDArray[np.bool_]


def largest(weights: Array, fraction: float) -> Support:
    """Magnitude pruning within each filter: `fraction` of the nonzero weights of A (f, k) go.

    Every filter that has weights keeps at least one.
    """
    magnitudes = np.abs(weights)
    alive = (weights != 0).sum(axis=1)
    removed = ((fraction + 1e-12) * alive).astype(int)  # 1 - 0.9 is a little less than a tenth
    kept = np.maximum(alive - removed, np.minimum(alive, 1))
    ranks = np.argsort(np.argsort(-magnitudes, axis=1, kind="stable"), axis=1)
    support: Support = ranks < kept[:, None]
    return support


def restore(
    inputs: Array, target: Array, weights: Array, support: Support, *, tolerance: float, most: int
) -> Support:
    """Restores weights of one filter, each time the one that lowers the output error most.

    X (n, k), y_hat (n,), the filter's weights before pruning (k,) and what magnitude pruning left
    (k,). The error is ||y_hat - X a||_1; restoration ends when `most` weights remain, when the
    error is at most `tolerance` of ||y_hat - mean||_1, and where no weight lowers it further.
    """
    removed = np.flatnonzero(~support & (weights != 0))
    parts = (inputs[:, removed] * weights[removed]).T.copy()  # (removed, n)
    residual = target - inputs[:, support] @ weights[support]
    until = tolerance * float(np.abs(target - target.mean()).sum())
    chosen, _ = restoration(parts, residual, until=until, most=most - int(support.sum()))
    restored = support.copy()
    restored[removed[chosen]] = True
    return restored


def prune_filters(
    inputs: Array,
    targets: Array,
    weights: Array,
    *,
    removed: float,
    kept: float,
    tolerance: float,
    ridge: float,
) -> Array:
    """Filters A (f, k) that magnitude pruning, restoration and least squares leave of `weights`.

    X (n, k), Y_hat (n, f). Magnitude pruning takes `removed` of a filter's nonzero weights, and at
    most `kept` of them (q) remain after restoration.
    Raises UserError for values that are not finite.
    """
    if not (np.isfinite(inputs).all() and np.isfinite(targets).all()):
        raise UserError("activations are not finite: train the network with a lower learning_rate")
    wide = inputs.astype(np.float64)
    gram, projected = wide.T @ wide, wide.T @ targets.astype(np.float64)
    supports, most = largest(weights, removed), largest(weights, 1 - kept).sum(axis=1)
    pruned = np.zeros_like(weights)
    for row, (own, support, q) in enumerate(zip(weights, supports, most, strict=True)):
        support = restore(inputs, targets[:, row], own, support, tolerance=tolerance, most=q)
        if not support.any():  # a filter that was zero before
            continue
        part = gram[np.ix_(support, support)]
        pruned[row, support] = least_squares(
            part, projected[support, row], own[support].astype(np.float64), ridge
        )
    return pruned
