"""Platforms: one device, emulated or real, per file; one line each in `PLATFORMS`."""

from ecc.errors import UserError
from ecc.platforms.eyeriss import EYERISS
from ecc.platforms.gtx1080ti import GTX1080TI
from ecc.platforms.interface import Deployed, HasStructure, Platform
from ecc.platforms.jetson_tx2 import JETSON_TX2
from ecc.platforms.published_tx2 import PUBLISHED_TX2

__all__ = ["PLATFORMS", "Deployed", "HasStructure", "Platform", "get"]

PLATFORMS: dict[str, Platform] = {
    "eyeriss": EYERISS,
    "gtx1080ti": GTX1080TI,
    "jetson_tx2": JETSON_TX2,
    "published_tx2": PUBLISHED_TX2,
}


def get(name: str) -> Platform:
    """The platform of that name; raises UserError with the known names for an unknown one."""
    if name not in PLATFORMS:
        raise UserError(f"unknown platform '{name}': known are {', '.join(PLATFORMS)}")
    return PLATFORMS[name]
