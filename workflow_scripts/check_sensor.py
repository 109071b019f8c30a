"""Opens the sensor of a platform, so that what it lacks is known before anything is trained."""

from collections.abc import Mapping
from typing import Any

from ecc import runs
from ecc.logs import job
from ecc.platforms import make
from ecc.platforms.measured import Measured


def check_sensor(platform: str, settings: Mapping[str, Any], output: str) -> None:
    device = make(platform, settings)
    assert isinstance(device, Measured)
    runs.write_json(output, device.check())


if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.input, snakemake.output):
        check_sensor(
            snakemake.wildcards.platform, snakemake.params.platform, snakemake.output.sensor
        )
