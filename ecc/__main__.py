"""A campaign without the workflow, for as long as there is time; the same command goes on later.

python -m ecc campaign --platform "{kind: nvml, batch: 1}" \\
    --network "{architecture: mobilenet, classes: 1001}" --samples 10000 --seconds 500

Measures what the workflow's rule measures. `campaign` is the folder that
`python -m ecc.platforms record` keeps.
"""

import argparse
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from ecc import platforms
from ecc.energy.sampling import asked
from ecc.errors import UserError
from ecc.measuring import campaign
from ecc.networks import Network
from ecc.platforms.measured import Measured


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 after an error, which is one line."""
    parser = argparse.ArgumentParser("python -m ecc", description="take a campaign")
    parser.add_argument("folder", type=Path, help="of the campaign; what is in it is kept")
    parser.add_argument("--platform", type=yaml.safe_load, required=True, help="as in the config")
    parser.add_argument("--network", type=yaml.safe_load, required=True, help="of ecc.networks")
    parser.add_argument("--samples", type=int, default=10000, help="random width vectors")
    parser.add_argument("--repeats", type=int, default=5, help="of the dense network, sweeps, ..")
    parser.add_argument("--sweep", type=yaml.safe_load, action="append", default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=math.inf, help="after which to end")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        size = {"size": tuple(chosen.network.get("size", (224, 224)))}
        network = Network(**{**chosen.network, **size})
        device = platforms.make("campaign", chosen.platform)
        if not isinstance(device, Measured):
            raise UserError(f"platform kind {chosen.platform['kind']} has no sensor to read")
        parts = asked(
            device,
            network.structure,
            chosen.samples,
            seed=chosen.seed,
            repeats=chosen.repeats,
            sweeps=chosen.sweep,
        )
        frame = campaign.run(
            device.open,
            network,
            np.concatenate(parts),
            settings=device.protocol,
            seed=chosen.seed,
            folder=chosen.folder,
            stop_after_s=chosen.seconds,
            about=dict(device.about),
        )
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(frame)} of {sum(map(len, parts))} rows are in {chosen.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
