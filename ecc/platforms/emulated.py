"""A processor emulated by its physics: arithmetic, memory traffic, launches and static power.

Emulated, not measured: the constants of a device are chosen so that published energies come out.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecc.metrics import Metric
from ecc.platforms.interface import Array, Emulation, HasStructure, checked_widths
from ecc.structure import Structure

BYTES = 4  # single precision
ROWS = 4096  # configurations computed at a time: bounds the memory, and stays near the caches


@dataclass(frozen=True)
class EmulatedDevice(Emulation):
    """A roofline for every operation, and the energy of what the operation keeps busy.

    time = max(MACs / rate, bytes / bandwidth) + launch
    energy = static power x time + energy per MAC x MACs + energy per byte x bytes

    MACs count the output channels, and the input channels times the kernel's area, rounded up to
    the device's tiles, as its matrix multiplication does. Bytes are the weights once, and the
    activations read and written `activation_passes` times: kernels that are not fused (batch
    normalisation, activation) read and write them again. A depthwise convolution has no reuse
    across channels: it is no matrix multiplication, so it has no tiles and a rate of its own.

    Units: MACs per second, bytes per second, seconds per operation, watts, joules per MAC, joules
    per byte, channels; `noise` is the relative standard deviation of one measurement.
    """

    name: str
    description: str
    macs_per_s: float
    depthwise_macs_per_s: float
    bytes_per_s: float
    launch_s: float
    static_w: float
    mac_j: float
    byte_j: float
    activation_passes: float
    output_tile: int
    reduction_tile: int
    noise: float
    metric: Metric = "energy_j"

    def measure(
        self,
        network: HasStructure,
        widths: ArrayLike,
        *,
        seed: int,
        first: int = 0,
        journal: Path | None = None,
    ) -> Array:
        """Noisy joules of one inference, (n,), for widths (n, groups); see `Platform.measure`.

        Seconds, where the metric is latency.
        """
        measured = self.energy if self.metric == "energy_j" else self.latency
        values = measured(network.structure, widths)
        # The device's name keeps its noise apart from other devices' and from the sampled widths.
        stream = np.random.default_rng([seed, *self.name.encode()])
        draws = stream.standard_normal(first + values.size)[first:]
        return values * (1 + self.noise * draws)

    def energy(self, structure: Structure, widths: ArrayLike) -> Array:
        """Noise-free joules of one inference, (n,), for widths (n, groups)."""
        checked = checked_widths(structure, widths)
        energy = np.empty(len(checked))
        for start in range(0, len(checked), ROWS):
            rows = slice(start, start + ROWS)
            energy[rows] = sum(part.sum(-1) for part in self._parts(structure, checked[rows]))
        return energy

    def latency(self, structure: Structure, widths: ArrayLike) -> Array:
        """Seconds of one inference, (n,), for widths (n, groups); no noise."""
        checked = checked_widths(structure, widths)
        seconds: Array = self._parts(structure, checked)[0].sum(-1) / self.static_w
        return seconds

    def operations(self, structure: Structure, widths: ArrayLike) -> dict[str, Array]:
        """Noise-free joules by cause (static, arithmetic, memory), each (n, operations)."""
        parts = self._parts(structure, checked_widths(structure, widths))
        return dict(zip(("static", "arithmetic", "memory"), parts, strict=True))

    def _parts(self, structure: Structure, widths: NDArray[np.int64]) -> tuple[Array, Array, Array]:
        operations = structure.operations
        depthwise = np.array([op.kind == "depthwise" for op in operations])
        groups = np.array([1 if op.kind == "depthwise" else op.groups for op in operations])
        area = np.array([op.kernel[0] * op.kernel[1] * op.columns for op in operations])
        reads, writes = structure.widths_in(widths), structure.widths_out(widths)

        padding = _padding(reads / groups * area, self.reduction_tile)
        padding *= _padding(writes / groups, self.output_tile)
        macs = structure.macs(widths) * np.where(depthwise, 1.0, padding)

        inputs = np.array([op.in_size[0] * op.in_size[1] * op.columns for op in operations])
        outputs = np.array([op.out_size[0] * op.out_size[1] for op in operations])
        activations = reads * inputs + writes * outputs
        moved = BYTES * (structure.weights(widths) + self.activation_passes * activations)

        rate = np.where(depthwise, self.depthwise_macs_per_s, self.macs_per_s)
        time = np.maximum(macs / rate, moved / self.bytes_per_s) + self.launch_s
        return self.static_w * time, self.mac_j * macs, self.byte_j * moved


def _padding(size: Array, tile: int) -> Array:
    """By how much work grows where sizes are rounded up to a multiple of the tile."""
    return np.ceil(size / tile) * tile / size
