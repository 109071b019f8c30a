"""What this machine can measure: `python -m ecc.platforms`, and a try of one of its sensors.

python -m ecc.platforms              # sensors, emulated platforms, recorded campaigns
python -m ecc.platforms check rapl   # opens a sensor and reads it for three seconds
python -m ecc.platforms widths results/networks/mobilenet.json 10000 widths.csv
python -m ecc.platforms record results/samples/gpu/mobilenet/campaign nvidia_h200 mobilenet

`widths` writes what collector/collect.py is to measure; `record` keeps a campaign, of the workflow
or of the collector, as resources/measurements/<device>/<network>.
"""

import argparse
import math
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from ecc.errors import UserError
from ecc.measuring.interface import Clock, EnergyMeter, Found, SensorError, SystemClock
from ecc.platforms import PLATFORMS, SENSORS
from ecc.platforms.recorded import MEASUREMENTS, found, record, write_widths
from ecc.structure import Structure, draw_widths

CHECK_S = 3.0
POLL_S = 0.0002  # far below the period of any counter
MISSING = "unknown"

Row = tuple[str, Found]


def listing(root: Path = Path("/")) -> str:
    """Tables of what there is: a name, whether it can be used, what it is, what is lacking."""
    sensors = [(kind, entry) for kind, module in SENSORS.items() for entry in module.probe(root)]
    emulated = [(name, Found(platform.description)) for name, platform in PLATFORMS.items()]
    recorded = [("recorded", entry) for entry in found()]
    parts = {"Sensors": sensors, "Emulated platforms": emulated, "Recorded campaigns": recorded}
    width = max(len(name) for rows in parts.values() for name, _ in rows)
    return "\n\n".join(_table(title, rows, width) for title, rows in parts.items())


def check(kind: str, clock: Clock, root: Path = Path("/")) -> str:
    """What the sensor of that kind tells in three seconds; raises UserError where it does not."""
    if kind not in SENSORS:
        raise UserError(f"no sensor '{kind}': known are {', '.join(SENSORS)}")
    module = SENSORS[kind]
    with closing(module.meter(module.Settings(), module.DEVICE, clock, root)) as meter:
        told = {"sensor": meter.name, **_observed(meter, clock)}
    return "\n".join(f"{name:<12} {value}" for name, value in told.items())


def main(
    arguments: Sequence[str] | None = None,
    *,
    root: Path = Path("/"),
    clock: Clock | None = None,
) -> int:
    """The exit code: 1 after an error, which is one line."""
    parser = argparse.ArgumentParser("python -m ecc.platforms", description="what can be measured")
    commands = parser.add_subparsers(dest="command")
    checking = commands.add_parser("check", help="open a sensor and read it for three seconds")
    checking.add_argument("kind", help=f"one of {', '.join(SENSORS)}")
    writing = commands.add_parser("widths", help="write random width vectors for the collector")
    writing.add_argument("structure", type=Path, help="networks/<network>.json of the results")
    writing.add_argument("count", type=int, help="how many")
    writing.add_argument("file", type=Path, help="CSV to write")
    writing.add_argument("--seed", type=int, default=0, help="`seed` of the configuration")
    keeping = commands.add_parser("record", help="keep a campaign, to be replayed anywhere")
    keeping.add_argument("campaign", type=Path, help="folder of windows.csv and campaign.json")
    keeping.add_argument("device", help="name of its folder in resources/measurements")
    keeping.add_argument("network", help="name of its files")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "check":
            print(check(chosen.kind, clock or SystemClock(), root))
        elif chosen.command == "widths":
            structure = Structure.read(chosen.structure)
            write_widths(_rows(structure, chosen.count, chosen.seed), chosen.file)
        elif chosen.command == "record":
            print(record(chosen.campaign, MEASUREMENTS / chosen.device, chosen.network))
        else:
            print(listing(root))
    except UserError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    return 0


def _rows(structure: Structure, count: int, seed: int) -> NDArray[np.int64]:
    """Random widths, and five times each the dense network and that of one channel a group."""
    if count < 1:
        raise UserError(f"{count} samples: give at least 1")
    full = structure.full_widths
    ends = [np.repeat([row], 5, axis=0) for row in (full, np.ones_like(full))]
    return np.concatenate([draw_widths(structure, count, seed), *ends])


def _table(title: str, rows: Iterable[Row], width: int) -> str:
    lines = [title]
    for name, entry in rows:
        usable = "no" if entry.lacks else "yes"
        lines.append(f"  {name:<{width}}  {usable:<3}  {entry.what}")
        if entry.lacks:
            lines.append(f"  {'':<{width}}       {entry.lacks}")
    return "\n".join(lines if lines[1:] else [title, "  none"])


def _observed(meter: EnergyMeter, clock: Clock) -> dict[str, str]:
    begin = last = meter.read()
    moved, readings = [begin.seconds], 1
    while last.seconds - begin.seconds < CHECK_S:
        clock.sleep(POLL_S)
        reading = meter.read()
        readings += 1
        if reading.total != last.total:
            moved.append(reading.seconds)
        last = reading
    if len(moved) < 2:
        raise SensorError(f"{meter.name}: the counter did not move in {CHECK_S:g} s")
    period_s = median(after - before for before, after in pairwise(moved))
    status, limit_w = meter.status(), meter.limit_w
    told = {
        "readings": f"{readings} in {last.seconds - begin.seconds:.1f} s",
        "period": f"{1e3 * period_s:.1f} ms between two movements of the counter",
    }
    if meter.metric == "energy_j":
        mean_w = (last.total - begin.total) / (last.seconds - begin.seconds)
        told |= {
            "power": _in(mean_w, "W"),
            "instant": _in(meter.power_w(), "W"),
            "limit": _in(limit_w, "W"),
        }
    return told | {
        "temperature": _in(status.temperature_c, "°C"),
        "clock": _in(status.clock_mhz, "MHz"),
        "throttled": ", ".join(status.throttled) or "no",
        "capped": "yes" if status.capped else "no",
    }


def _in(value: float, unit: str) -> str:
    return f"{value:.1f} {unit}" if math.isfinite(value) else MISSING


if __name__ == "__main__":
    sys.exit(main())
