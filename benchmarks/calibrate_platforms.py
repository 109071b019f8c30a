"""Finds the calibrated constants of the emulated platforms from published energies.

    python -m benchmarks.calibrate_platforms

Prints one JSON line: the constants found, and the relative differences from the published dense
energies with them and with the rounded constants of the library. Seconds on one core.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import least_squares

from ecc.networks import Network
from ecc.platforms.emulated import EmulatedDevice
from ecc.platforms.gtx1080ti import GTX1080TI
from ecc.platforms.jetson_tx2 import JETSON_TX2
from ecc.platforms.published_tx2 import PUBLISHED_TX2
from ecc.structure import Structure

PUBLISHED = Path(__file__).parents[1] / "resources" / "published" / "paper_values.csv"

# The calibrated constants, and plausible values from which the search starts.
FREE = {
    "jetson_tx2": {
        "mac_j": 20e-12,
        "byte_j": 40e-12,
        "launch_s": 100e-6,
        "activation_passes": 5.0,
    },
    "gtx1080ti": {"byte_j": 200e-12, "depthwise_macs_per_s": 30e9, "activation_passes": 1.5},
}
# Dense energies weigh more than the published AlexNet model at random widths.
DENSE_WEIGHT = 20.0
MODEL_WEIGHT = 3.0


def structures() -> dict[str, Structure]:
    return {
        "alexnet": Network("alexnet", classes=1000).structure,
        "mobilenet": Network("mobilenet", classes=1001).structure,
        "erfnet": Network("erfnet", classes=20, size=(512, 1024)).structure,
    }


def differences(
    device: EmulatedDevice, networks: dict[str, Structure], published: dict[str, float]
) -> dict[str, float]:
    """Relative difference of dense energy from the published one, by network."""
    found = {}
    for name, energy_j in published.items():
        structure = networks[name]
        found[name] = float(device.energy(structure, [structure.full_widths])[0] / energy_j - 1)
    return found


def model_differences(device: EmulatedDevice, alexnet: Structure, count: int) -> NDArray[Any]:
    """Relative differences from the published AlexNet model at random widths, (count,)."""
    widths = np.random.default_rng(0).integers(
        1, alexnet.full_widths, size=(count, len(alexnet.groups)), endpoint=True
    )
    return device.energy(alexnet, widths) / PUBLISHED_TX2.energy(alexnet, widths) - 1


def calibrate(
    device: EmulatedDevice, networks: dict[str, Structure], published: dict[str, float]
) -> EmulatedDevice:
    """The device with its free constants fitted by least squares."""
    start = FREE[device.name]

    def candidate(scales: NDArray[Any]) -> EmulatedDevice:
        scaled = np.array(list(start.values())) * scales
        return replace(device, **dict(zip(start, scaled.tolist(), strict=True)))

    def residuals(scales: NDArray[Any]) -> NDArray[Any]:
        trial = candidate(scales)
        dense = DENSE_WEIGHT * np.array(list(differences(trial, networks, published).values()))
        if device.name != "jetson_tx2":
            return dense
        model = model_differences(trial, networks["alexnet"], 500)
        return np.concatenate([dense, MODEL_WEIGHT * model / np.sqrt(model.size)])

    return candidate(least_squares(residuals, np.ones(len(start)), bounds=(0.2, 5.0)).x)


def main() -> None:
    values = pd.read_csv(PUBLISHED)
    dense = values[(values.experiment == "dense") & (values.quantity == "energy")]
    networks = structures()
    report: dict[str, Any] = {}
    for library in (JETSON_TX2, GTX1080TI):
        rows = dense[dense.platform == library.name]
        published = {str(k): float(v) for k, v in zip(rows.network, rows.value, strict=True)}
        fitted = calibrate(library, networks, published)
        report[library.name] = {
            "constants": {key: float(f"{getattr(fitted, key):.4g}") for key in FREE[library.name]},
            "differences": differences(fitted, networks, published),
            "library_differences": differences(library, networks, published),
        }
    against = model_differences(JETSON_TX2, networks["alexnet"], 10_000)
    report["jetson_tx2"]["mean_difference_from_published_model"] = float(np.abs(against).mean())
    print(json.dumps(report))


if __name__ == "__main__":
    main()
