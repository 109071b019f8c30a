"""The accelerator Eyeriss by the energy estimation of EAP (Yang, Chen, Sze, CVPR 2017).

Modelled: MACs and the accesses of inputs, weights and partial sums at four levels of memory,
with the row-stationary mapping (Chen, Emer, Sze, ISCA 2016) that costs least. Not modelled: skipped
zeros and compressed data (activations are taken as dense), the rows that neighbouring tiles
both read, idle elements of the array, pooling, time and leakage. Reuse factors are real numbers,
tile over width, as if every tile were full. The tile in the buffer and the mapping on the array
are each the best of a grid, chosen apart from each other, which a joint search could not undercut.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from ecc.errors import UserError
from ecc.platforms.interface import Array, Emulation, HasStructure, checked_widths
from ecc.structure import Operation, Structure

# Energy of one access of one value, in units of one MAC (EAP).
DRAM, BUFFER, ARRAY, REGISTER = 200.0, 6.0, 2.0, 1.0
CAUSES = ("macs", "inputs", "weights", "outputs")
ROWS = 512  # pairs of widths searched at a time, which bounds memory


@dataclass(frozen=True)
class Eyeriss(Emulation):
    """A 16-bit row-stationary accelerator; an estimate, so it has no noise.

    `batch` images share the weights; energies are for one of them. `mac_j` turns the estimate's
    unit, one MAC, into joules: a 16-bit multiplication, 0.8 pJ, and a 32-bit addition, 0.1 pJ,
    at 45 nm (after Horowitz, ISSCC 2014), rounded up to 1 pJ.
    """

    batch: int = 1
    elements: int = 168
    register_bytes: int = 512
    buffer_bytes: int = 108 * 1024
    value_bytes: int = 2
    mac_j: float = 1e-12
    name: str = "eyeriss"
    description: str = "Eyeriss (estimated)"

    def measure(
        self,
        network: HasStructure,
        widths: ArrayLike,
        *,
        seed: int,
        first: int = 0,
        journal: Path | None = None,
    ) -> Array:
        """Joules of one inference, (n,), for widths (n, groups); no noise, whatever the seed."""
        return self.energy(network.structure, widths)

    def energy(self, structure: Structure, widths: ArrayLike) -> Array:
        """Joules of one inference, (n,), for widths (n, groups)."""
        table = self.table(structure, widths)
        total: Array = sum(table.values(), np.zeros(1)).sum(axis=1)
        return self.mac_j * total

    def table(self, structure: Structure, widths: ArrayLike) -> dict[str, Array]:
        """Energy of one inference in units of one MAC, by cause, each (n, operations).

        The causes are the MACs, and the accesses of inputs, weights and outputs at all levels.
        """
        checked = checked_widths(structure, widths)
        reads, writes = structure.widths_in(checked), structure.widths_out(checked)
        table = np.empty((len(CAUSES), *reads.shape))
        for column, operation in enumerate(structure.operations):
            table[:, :, column] = self._operation(operation, reads[:, column], writes[:, column])
        return dict(zip(CAUSES, table, strict=True))

    def _operation(self, operation: Operation, reads: Array, writes: Array) -> Array:
        """Energy by cause (4, n) of one operation: each pair of widths is searched once."""
        groups = reads if operation.kind == "depthwise" else float(operation.groups)
        sides = np.stack([reads * operation.columns / groups, writes / groups], axis=1)
        pairs, where = np.unique(sides, axis=0, return_inverse=True)
        found = [
            self._search(_Layer(operation, *pairs[start : start + ROWS].T[:, :, None]))
            for start in range(0, len(pairs), ROWS)
        ]
        return np.concatenate(found, axis=1)[:, where.ravel()] * groups / self.batch

    def _search(self, layer: "_Layer") -> Array:
        """Energy of the batch by cause (4, n) with the best mapping of every pair of widths."""
        shares = [min(4**power, self.batch) for power in range(_power(self.batch, 4) + 1)]
        candidates = np.stack([self._mapped(layer, images) for images in shares])
        total = candidates.sum(axis=1)
        if np.isinf(total.min(axis=0)).any():
            raise UserError(
                f"operation {layer.operation.name} does not fit the buffer of {self.name}: "
                "use a smaller deployment size"
            )
        best = total.argmin(axis=0)
        chosen: Array = np.take_along_axis(candidates, best[None, None], axis=0)[0]
        return chosen

    def _mapped(self, layer: "_Layer", images: int) -> Array:
        """The same where `images` of the batch share one tile of the buffer."""
        macs = self.batch * layer.macs[:, 0]
        # The registers' terms: a read for inputs and weights, a read and a write for partial sums.
        registers = REGISTER * np.stack([macs, macs, 2 * macs])
        moved = _best(self._tiles(layer, images)) + _best(self._mappings(layer, images))
        return np.concatenate([macs[None], moved + registers])

    def _tiles(self, layer: "_Layer", images: int) -> Array:
        """DRAM's energy by inputs, weights, outputs for tiles and loop orders, (3, n, tiles).

        A tile has some input channels, rows and images, and as many filters as the buffer then
        holds. What the innermost loop does not change stays; the rest is fetched each time.
        """
        grid = np.array(list(product(_powers(layer.reads.max()), _powers(layer.rows))), dtype=float)
        channels, rows = np.minimum(grid[:, 0], layer.reads), np.minimum(grid[:, 1], layer.rows)
        read, written = layer.tile(rows)
        room = self.buffer_bytes / self.value_bytes - channels * images * read
        filters = room / (images * written + channels * layer.area)
        possible = filters >= 1
        once = np.ones_like(filters)
        by_filters = layer.writes / np.clip(filters, 1, layer.writes)
        by_channels = layer.reads / channels
        by_rows = once * layer.rows / rows * self.batch / images
        orders = (
            (by_filters, by_rows, once),  # partial sums stay
            (once, by_rows, by_channels),  # inputs stay
            (by_filters, once, by_channels),  # weights stay
        )
        energy = [
            np.stack(
                [
                    a_inputs * self.batch * layer.inputs * DRAM,
                    a_weights * layer.weights * DRAM,
                    # (2a - 1) at DRAM, and -2a of the 2a(b - 1) at the buffer
                    ((2 * a_sums - 1) * DRAM - 2 * a_sums * BUFFER) * self.batch * layer.outputs,
                ]
            )
            for a_inputs, a_weights, a_sums in orders
        ]
        return np.concatenate([np.where(possible, order, np.inf) for order in energy], axis=2)

    def _mappings(self, layer: "_Layer", images: int) -> Array:
        """Energy of buffer and array by inputs, weights, outputs, (3, n, mappings).

        An element keeps one row of p filters and q channels. Sets of elements, as high as the
        kernel and e output rows wide, share inputs among filters and sums among channels.
        """
        height, width = layer.operation.kernel
        words = self.register_bytes // self.value_bytes
        found = set()
        for p, e, sums in product(_powers(words), _powers(layer.rows), _powers(self.elements)):
            q = (words - p) // (width * (p + 1))
            shares = self.elements // (height * min(e, layer.rows) * sums)
            if q >= 1 and shares >= 1:
                found.add((p, p * shares, q * sums, min(e, layer.rows)))
        if not found:
            raise UserError(
                f"operation {layer.operation.name} has a kernel of {height}x{width}, too large "
                f"for the array of {self.name}: choose another platform"
            )
        p, filters, channels, e = np.array(sorted(found), dtype=float).T
        stride_height, stride_width = layer.stride
        along = max(1.0, width / stride_width)
        across = np.maximum(1.0, np.minimum(height, e) / stride_height)
        # Accesses of one image: from the buffer (ab times) and over the array (abc times).
        buffered = layer.macs / (along * across * np.minimum(filters, layer.writes))
        buffered = np.maximum(buffered, layer.inputs)
        spread = np.maximum(layer.macs / (along * np.minimum(p, layer.writes)), buffered)
        rows_of_weights = layer.macs / (layer.columns * images) * np.ones_like(e)
        sums = layer.macs / (layer.area * np.minimum(channels, layer.reads))
        return self.batch * np.stack(
            [
                buffered * BUFFER + spread * ARRAY,
                rows_of_weights / e * BUFFER + rows_of_weights * ARRAY,
                # 2ab at the buffer and -ab of the ab(c - 1) in the array; what is left of abc
                # there is what the registers save.
                np.maximum(sums, layer.outputs) * (2 * BUFFER - ARRAY),
            ]
        )


@dataclass(frozen=True)
class _Layer:
    """One group of an operation at widths (n, 1): what is counted is for one image."""

    operation: Operation
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


def _power(limit: float, base: int) -> int:
    """The smallest power of the base that is at least the limit."""
    return int(np.ceil(np.log(limit) / np.log(base) - 1e-9))


def _powers(limit: float) -> list[int]:
    """1, 2, 4, ... up to the first that is at least the limit."""
    return [2**power for power in range(_power(limit, 2) + 1)]


def _best(energy: Array) -> Array:
    """Of (3, n, choices), the choice with the smallest sum: (3, n)."""
    choice = energy.sum(axis=0).argmin(axis=1)
    return np.take_along_axis(energy, choice[None, :, None], axis=2)[:, :, 0]


EYERISS = Eyeriss()
