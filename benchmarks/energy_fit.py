"""How much faster non-negative least squares fits a bilinear model than Adam as in the paper.

    python -m benchmarks.energy_fit

Prints one JSON line: seconds and relative test errors of both on 10,000 samples of MobileNet on
the emulated Jetson TX2, and `ratio`, seconds of Adam over seconds of least squares, for the
paper's chain form. A fit is timed on one thread, from samples to model and test error; least
squares is the median of 50 fits. Half a minute.
"""

import json
import os
from time import perf_counter

os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy is loaded, which then keeps to it

import numpy as np

from ecc import energy
from ecc.networks import Network
from ecc.platforms import Deployed, get

SAMPLES, TEST, FITS = 10_000, 2_000, 50
PAPER = {"iterations": 10_000, "learning_rate": 1e-3, "weight_decay": 1e-3}
# As in config.yaml.
NNLS = {"bilinear_graph": {}, "bilinear_chain": {"reweightings": 2}}


def main() -> None:
    structure = Network("mobilenet", classes=1001).structure
    frame = energy.sample(get("jetson_tx2"), Deployed(structure), SAMPLES, seed=0).samples
    widths, joules = frame.filter(like="width_").to_numpy(), frame["energy_j"].to_numpy()
    train, test = ((widths[rows], joules[rows]) for rows in energy.split(SAMPLES, TEST, seed=0))

    def timed(kind: str, fit: str, settings: dict[str, float]) -> tuple[float, float]:
        start = perf_counter()
        _, history = energy.fit(kind, fit, structure, *train, settings, test=test)
        return perf_counter() - start, float(history["relative_test_error"].iloc[-1])

    result: dict[str, object] = {"network": "mobilenet", "platform": "jetson_tx2 (emulated)"}
    timed("bilinear_chain", "adam", {"iterations": 10})  # imports torch
    for kind in NNLS:
        adam_s, adam_error = timed(kind, "adam", PAPER)
        fits = np.array([timed(kind, "nnls", NNLS[kind]) for _ in range(FITS)])
        nnls_s, nnls_error = np.median(fits, axis=0).tolist()
        result[kind] = {
            "adam_s": adam_s,
            "nnls_s": nnls_s,
            "adam_relative_test_error": adam_error,
            "nnls_relative_test_error": nnls_error,
            "ratio": adam_s / nnls_s,
        }
        result["ratio"] = adam_s / nnls_s
    print(json.dumps(result))


if __name__ == "__main__":
    main()
