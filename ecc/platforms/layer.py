"""What a layer on the accelerator Eyeriss reads, writes and multiplies, at many widths at once."""

from dataclasses import dataclass

import numpy as np

from ecc.platforms.interface import Array
from ecc.structure import Operation


@dataclass(frozen=True)
class Layer:
    """One group of an operation at widths (n, 1): what is counted is for one image.

    `densities` (3,) are those of inputs, weights and outputs.
    """

    operation: Operation
    densities: Array
    reads: Array
    writes: Array

    @property
    def _transposed(self) -> bool:
        return self.operation.kind == "transposed"

    @property
    def area(self) -> int:
        return self.operation.kernel[0] * self.operation.kernel[1]

    @property
    def stride(self) -> tuple[int, int]:
        """Input positions from one use of the kernel to the next."""
        return (1, 1) if self._transposed else self.operation.stride

    @property
    def rows(self) -> int:
        """Rows of positions at which the kernel is used."""
        return (self.operation.in_size if self._transposed else self.operation.out_size)[0]

    @property
    def columns(self) -> int:
        return (self.operation.in_size if self._transposed else self.operation.out_size)[1]

    @property
    def weights(self) -> Array:
        return self.reads * self.writes * self.area

    @property
    def macs(self) -> Array:
        return self.weights * (self.rows * self.columns)

    @property
    def inputs(self) -> Array:
        """Input values that are used: a stride larger than the kernel skips some."""
        height, width = self.operation.in_size
        used = 1 if self._transposed else self.area
        return self.reads * min(height * width, self.rows * self.columns * used)

    @property
    def outputs(self) -> Array:
        height, width = self.operation.out_size
        return self.writes * (height * width)

    def tile(self, rows: Array) -> tuple[Array, Array]:
        """Input values of a channel and output values of a filter that rows of positions touch."""
        (in_height, in_width), (out_height, out_width) = (
            self.operation.in_size,
            self.operation.out_size,
        )
        step, span = (
            (1, 1) if self._transposed else (self.operation.stride[0], self.operation.kernel[0])
        )
        made = self.operation.stride[0] if self._transposed else 1
        read = np.minimum((rows - 1) * step + span, in_height) * in_width
        return read, np.minimum(rows * made, out_height) * out_width
