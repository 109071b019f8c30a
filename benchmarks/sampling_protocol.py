"""How exactly the protocol of `ecc.measuring` measures what a simulated device truly takes.

    python -m benchmarks.sampling_protocol

Random networks of 0.5 to 7 ms and 80 to 600 W run on a simulated GPU, one effect of its sensor at
a time and then together. Prints a table: bias and standard deviation, in percent of the truth, of
a campaign with 1.0 s a sample, of the authors' way (`ecc.measuring.polling`) in the same time, and
of the authors' way with their 1,000 forward passes; and the samples an hour of the campaign. The
truth is the energy of the device, by the sensor as it is in the first windows of the campaign: the
drift begins when its checks are over. An averaging sensor is given its time to settle, so its
samples take longer. Some minutes on one core.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecc.measuring import campaign, drift, journal
from ecc.measuring.interface import Buildable, Settings
from ecc.measuring.polling import polled_energy
from ecc.measuring.simulated import Simulation, rig
from ecc.runs import read_json
from ecc.structure import Group, Structure

CLEAN = Simulation(lag_s=0.0, noise=0.0, drift=0.0)
LAG_S, NOISE = 0.05, 0.01
SETTINGS = Settings(repeats=0.0)
# With the settling before the last two of them.
CHECKS_S = (
    SETTINGS.warm_up_s
    + SETTINGS.period_check_s
    + SETTINGS.cross_check_s
    + SETTINGS.idle_s
    + 2 * SETTINGS.settle_s
)
DRIFT: dict[str, Any] = {"drift": 0.05, "drift_s": 3600.0, "drift_from_s": CHECKS_S}
ALL = replace(CLEAN, lag_s=LAG_S, noise=NOISE, **DRIFT)
STEPS = 1000  # in which time and power of a network can be chosen
WIDE = Structure((Group("time", STEPS), Group("power", STEPS)), (), 3, 1)


@dataclass(frozen=True)
class Scenario:
    """A sensor, and seconds of the iterations of the networks on it."""

    simulation: Simulation
    iteration_s: tuple[float, float] = (0.0005, 0.007)


SCENARIOS = {
    "counter, 100 ms, looks 25 % of the time": Scenario(CLEAN),
    "+ lag 50 ms": Scenario(replace(CLEAN, lag_s=LAG_S)),
    "+ drift 5 %": Scenario(replace(CLEAN, **DRIFT)),
    "+ noise 1 %": Scenario(replace(CLEAN, noise=NOISE)),
    "lag, drift and noise": Scenario(ALL),
    "the same, counter of 10 ms": Scenario(replace(ALL, period_s=0.01)),
    "the same, instant power only": Scenario(replace(ALL, sensor="power")),
    "the same, power averaged over 1 s": Scenario(replace(ALL, sensor="averaged")),
    "the same, iterations of 10 ms": Scenario(ALL, (0.01, 0.01)),
    "iterations of 10 ms, no lag": Scenario(CLEAN, (0.01, 0.01)),
    "iterations of 10 ms, no lag, no gaps": Scenario(
        replace(CLEAN, gaps_from_s=math.inf), (0.01, 0.01)
    ),
}


class Networks:
    """Networks whose first width is their time and whose second is their power."""

    structure, size = WIDE, (1, 1)

    def build(self, widths: NDArray[np.int64]) -> Any:
        raise NotImplementedError("what a simulated device runs is never built")


def cost_of(scenario: Scenario) -> Callable[[Buildable, NDArray[np.int64]], tuple[float, float]]:
    """Joules of an image and seconds of an iteration, at widths (2,)."""
    short, long = scenario.iteration_s

    def cost(network: Buildable, widths: NDArray[np.int64]) -> tuple[float, float]:
        time, power = widths / STEPS
        seconds = short + (long - short) * float(time)
        return (80.0 + 520.0 * float(power)) * seconds, seconds

    return cost


def table(samples: int, seed: int = 0, scenarios: tuple[str, ...] = ()) -> pd.DataFrame:
    """One row a scenario (all, or those named): percent of the truth, and samples an hour."""
    rows = []
    for name in scenarios or tuple(SCENARIOS):
        scenario = SCENARIOS[name]
        widths = np.random.default_rng([seed, 7]).integers(1, STEPS + 1, size=(samples, 2))
        cost = cost_of(scenario)
        truth = np.array([cost(Networks(), row)[0] for row in widths])
        energies, settings, an_hour = ours(scenario, widths, seed)
        seconds = settings.sample_s
        row: dict[str, Any] = {"sensor": name, "seconds_a_sample": seconds}
        ways = {
            "ours": energies,
            "polled": polled(scenario, widths, seed, seconds=seconds),
            "polled_1000": polled(scenario, widths, seed),
        }
        for way, joules in ways.items():
            error = 100 * (joules / truth - 1)
            row |= {f"{way}_bias_percent": error.mean(), f"{way}_sd_percent": error.std(ddof=1)}
        rows.append(row | {"samples_an_hour": an_hour})
    return pd.DataFrame(rows)


def ours(
    scenario: Scenario, widths: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.float64], Settings, float]:
    """Joules of every row of widths by a campaign; its settings; samples an hour."""
    opened = rig(scenario.simulation, cost_of(scenario), seed)
    settings = SETTINGS
    if opened.meter.settle_s > settings.settle_s:
        longer = opened.meter.settle_s - settings.settle_s
        settings = replace(
            settings, settle_s=opened.meter.settle_s, sample_s=settings.sample_s + longer
        )
    with TemporaryDirectory() as folder:
        path = Path(folder)
        frame = campaign.run(
            lambda: opened, Networks(), widths, settings=settings, seed=seed, folder=path
        )
        windows = journal.read(path / journal.WINDOWS, widths.shape[1])
        said = drift.repeatability(windows, read_json(path / campaign.PROVENANCE))
    return frame["energy_j"].to_numpy(), settings, said["samples_per_hour"]


def polled(
    scenario: Scenario, widths: NDArray[np.int64], seed: int, **ends: float
) -> NDArray[np.float64]:
    """Joules of every row of widths, one after the other, by the authors' way."""
    opened = rig(scenario.simulation, cost_of(scenario), seed)
    joules = []
    for row in widths:
        workload = opened.runner.load(opened.runner.prepare(Networks(), row))
        iterations = 1000 if not ends else 10**9
        joules.append(
            polled_energy(opened.meter, workload, opened.clock, iterations=iterations, **ends)
        )
        workload.stop()
    return np.array(joules)


def main() -> None:
    parser = argparse.ArgumentParser(description="errors of the protocol on simulated sensors")
    parser.add_argument("--samples", type=int, default=1000, help="networks a row")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = table(arguments.samples, arguments.seed)
    print(markdown(rows))


def markdown(rows: pd.DataFrame) -> str:
    """The table as the docs show it."""
    lines = [
        "| Sensor | s a sample | Protocol: bias % | sd % | Authors' way, same time: bias % | sd % "
        "| Authors' way, 1,000 passes: bias % | sd % | Samples an hour |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows.itertuples(index=False):
        name, seconds, *errors, an_hour = row
        cells = [f"{seconds:.1f}", *(f"{error:.2f}" for error in errors), f"{an_hour:.0f}"]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
