"""The protocol of `ecc.measuring` beside the way of ECC's authors, on the device that is there.

    python -m benchmarks.compare_sampling --device cuda:0 --sensor nvml --output compared.csv

Random widths of one network are measured several times in random order: by a campaign, with its
references and its drift taken out, and by the authors' loop (`ecc.measuring.polling`) of 1,000
forward passes with a synchronisation each, on a network that is built anew and not warmed up. Half
of the seconds belong to each; what is not measured by then is left out.

Prints a table: measurements, samples an hour (a campaign's references and repeats count as time,
its checks at the start do not), the mean, and repeatability, the relative standard deviation of
the measurements of one network. The file has a row a measurement. Repeatability is not accuracy.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ecc import runs
from ecc.errors import UserError
from ecc.measuring import campaign, journal
from ecc.measuring.interface import Clock, EnergyMeter, Rig, Settings, Span, SystemClock
from ecc.measuring.polling import polled_energy
from ecc.measuring.torch_runner import RunSettings, TorchRunner
from ecc.metrics import METRICS, UNITS
from ecc.networks import ARCHITECTURES, Network
from ecc.platforms import SENSORS

OURS, AUTHORS = "campaign", "authors"
CLASSES, SIZES = {"erfnet": 20}, {"erfnet": (512, 1024)}  # where not 1000 and 224x224
# What nvidia-smi shows on most boards.
AUTHORS_SENSOR = {"nvml": {"sensor": "average"}}

Widths = NDArray[np.int64]


class ForwardPasses:
    """A network as the authors run it: launched by the host, waited for after each pass."""

    batch = 1

    def __init__(self, network: Network, widths: Widths, device: str, clock: Clock):
        self._module = network.build(widths).eval().to(device)
        self._images = torch.randn(1, 3, *network.size, device=device)
        self._clock, self._iterations = clock, 0

    def feed(self) -> None:
        with torch.inference_mode():
            self._module(self._images)
        if self._images.is_cuda:
            torch.cuda.synchronize(self._images.device)
        self._iterations += 1

    def mark(self) -> tuple[int, float]:
        return self._iterations, self._clock.now()

    def between(self, first: tuple[int, float], last: tuple[int, float]) -> Span:
        return Span(last[0] - first[0], last[1] - first[1])

    def stop(self) -> None:
        """Everything was waited for."""


@dataclass
class PolledPower:
    """The power of any meter at a moment, as a tool that shows watts would tell it.

    One that sums power says what it is by two readings in a row; a counter that moves in steps by
    what it counted since the last question, where it has no second way.
    """

    meter: EnergyMeter

    def __post_init__(self) -> None:
        self._last = self.meter.read()

    def power_w(self) -> float:
        if self.meter.stepped and not math.isnan(told := self.meter.power_w()):
            return told
        before = self._last if self.meter.stepped else self.meter.read()
        self._last = now = self.meter.read()
        seconds = now.seconds - before.seconds
        return (now.total - before.total) / seconds if seconds > 0 else math.nan


def by_campaign(
    rig: Rig, network: Network, rows: Widths, seconds: float, seed: int
) -> tuple[pd.DataFrame, float]:
    """Rows of the table with columns sample and value, and samples an hour.

    What precedes the samples takes no longer than a third of the seconds.
    """
    plain = Settings()
    settings = Settings(
        warm_up_s=min(plain.warm_up_s, seconds / 15),
        period_check_s=min(plain.period_check_s, seconds / 15),
        cross_check_s=min(plain.cross_check_s, seconds / 8),
        idle_s=min(plain.idle_s, seconds / 15),
    )
    with TemporaryDirectory() as name:
        folder = Path(name)
        found = campaign.run(
            lambda: rig,
            network,
            rows,
            settings=settings,
            seed=seed,
            folder=folder,
            stop_after_s=seconds,
        )
        windows = journal.read(folder / journal.WINDOWS, rows.shape[1])
    samples = windows.loc[windows["kind"] == "sample", "started_s"]
    # The last window is a reference, before which the last sample was over.
    taken_s = windows["started_s"].iloc[-1] - samples.iloc[0]
    value = found[rig.meter.metric].to_numpy()
    return pd.DataFrame({"sample": found["sample"], "value": value}), 3600 * len(samples) / taken_s


def by_authors(
    meter: EnergyMeter,
    network: Network,
    rows: Widths,
    seconds: float,
    seed: int,
    *,
    device: str,
    clock: Clock,
    iterations: int,
) -> tuple[pd.DataFrame, float]:
    """As `by_campaign`."""
    begun, measured = clock.now(), []
    for row in np.random.default_rng([seed, 1]).permutation(len(rows)):
        workload = ForwardPasses(network, rows[row], device, clock)
        power: Any = PolledPower(meter)
        measured.append((int(row), polled_energy(power, workload, clock, iterations=iterations)))
        if clock.now() - begun >= seconds:
            break
    per_hour = 3600 * len(measured) / (clock.now() - begun)
    return pd.DataFrame(measured, columns=["sample", "value"]), per_hour


def repeatability(vectors: pd.Series, values: pd.Series) -> float:
    """Relative standard deviation of the values of one vector; NaN where none has two."""
    groups = values.groupby(vectors)
    relative = (groups.std() / groups.mean()).dropna()
    return float(np.sqrt((relative**2).mean()))


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 after an error, which is one line."""
    given = _parser().parse_args(arguments)
    try:
        compare(given, SystemClock())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def compare(given: argparse.Namespace, clock: Clock) -> None:
    name = given.network
    size = tuple(given.size or SIZES.get(name, (224, 224)))
    classes = CLASSES.get(name, 1000)
    network = Network(name, classes, multiplier=given.multiplier, size=size)
    module = SENSORS[given.sensor]
    random = np.random.default_rng([given.seed, 0])
    vectors = random.integers(
        1,
        network.full_widths,
        size=(given.vectors, len(network.full_widths)),
        endpoint=True,
    )
    rows, half_s = np.repeat(vectors, given.repeats, axis=0), given.seconds / 2

    run = RunSettings(device=given.device, threads=given.threads, seed=given.seed)
    with closing(TorchRunner(run, clock)) as runner:
        meter = module.meter(module.Settings(), given.device, clock)
        sensor, metric = meter.name, meter.metric
        rig = Rig(meter, runner, clock)  # the campaign closes the meter
        found = {OURS: by_campaign(rig, network, rows, half_s, given.seed)}
        settings = module.Settings(**AUTHORS_SENSOR.get(given.sensor, {}))
        with closing(module.meter(settings, given.device, clock)) as meter:
            found[AUTHORS] = by_authors(
                meter,
                network,
                rows,
                half_s,
                given.seed,
                device=given.device,
                clock=clock,
                iterations=given.iterations,
            )
        device = runner.device

    table = pd.concat([frame.assign(way=way) for way, (frame, _) in found.items()])
    table["vector"] = table["sample"] // given.repeats
    table = table.rename(columns={"value": metric})
    assert metric in METRICS
    runs.write_csv(given.output, table[["way", "vector", "sample", metric]])
    print(f"{name} {size[0]}x{size[1]} on {device}, {sensor}, {len(rows)} asked for")
    unit = UNITS[metric]
    print(f"{'way':<10}{'measured':>10}{'an hour':>10}{'mean ' + unit:>14}{'repeatability':>16}")
    for way, rows_of in table.groupby("way", sort=False):
        spread = repeatability(rows_of["vector"], rows_of[metric])
        told = "-" if math.isnan(spread) else f"{spread:.2%}"
        mean, an_hour = rows_of[metric].mean(), found[str(way)][1]
        print(f"{way:<10}{len(rows_of):>10}{an_hour:>10.0f}{mean:>14.4g}{told:>16}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.compare_sampling",
        description="the protocol of ecc.measuring beside that of ECC's authors",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--device", default="cuda:0", help="of torch: cuda:0 or cpu")
    parser.add_argument("--sensor", default="nvml", choices=sorted(SENSORS))
    parser.add_argument("--network", default="mobilenet", choices=sorted(ARCHITECTURES))
    parser.add_argument("--multiplier", type=float, default=1.0, help="of all full widths")
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--vectors", type=int, default=20, help="random width vectors")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each vector")
    parser.add_argument("--iterations", type=int, default=1000, help="forward passes, as authors")
    parser.add_argument("--seconds", type=float, default=300, help="in all")
    parser.add_argument("--threads", type=int, help="of a processor; where None, torch's own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("compare_sampling.csv"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
