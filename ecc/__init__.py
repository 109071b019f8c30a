"""Energy-constrained compression of neural networks.

A measured platform becomes an energy model, a method spends a budget under that model, and every
number that is shown comes from a file that a rule made. The library knows nothing of Snakemake.

`ecc.compress` does from Python what the workflow does, `ecc.load` reads what either has exported.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecc.api import Result, Settings, compress
    from ecc.export import load

__version__ = "0.1.0"
__all__ = ["Result", "Settings", "compress", "load"]

_PLACES = {
    "Result": "ecc.api",
    "Settings": "ecc.api",
    "compress": "ecc.api",
    "load": "ecc.export",
}


def __getattr__(name: str) -> Any:
    """Imports what needs torch when it is first asked for: many jobs do without, in less time."""
    if name not in _PLACES:
        raise AttributeError(f"module 'ecc' has no attribute '{name}'")
    return getattr(import_module(_PLACES[name]), name)
