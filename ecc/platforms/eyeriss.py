"""The accelerator Eyeriss by the energy estimation of EAP (Yang, Chen, Sze, CVPR 2017).

Modelled: MACs and the accesses of inputs, weights and partial sums at four levels of memory,
with the row-stationary mapping (Chen, Emer, Sze, ISCA 2016) that costs least; in `breakdown` also
zeros, whose MACs and register accesses are skipped and whose traffic is compressed. Not modelled:
the rows that neighbouring tiles both read, idle elements of the array, pooling, time and leakage.
Reuse factors are real numbers, tile over width, as if every tile were full. The tile in the buffer
and the mapping on the array are each the best of a grid, chosen apart from each other, which a
joint search could not undercut.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from ecc.errors import UserError
from ecc.platforms.interface import Array, Emulation, HasStructure, checked_widths
from ecc.platforms.layer import Layer
from ecc.platforms.run_length import rate
from ecc.structure import Operation, Structure

# Energy of one access of one value of BITS, in units of one MAC (EAP).
DRAM, BUFFER, ARRAY, REGISTER = 200.0, 6.0, 2.0, 1.0
BITS = 16
CAUSES = ("macs", "inputs", "weights", "outputs")
ROWS = 512  # pairs of widths searched at a time, which bounds memory


@dataclass(frozen=True)
class Eyeriss(Emulation):
    """A row-stationary accelerator, of 16 bits as built; an estimate, so it has no noise.

    The energy of an access is linear in its operand's bits, that of a MAC in both operands'
    (EAP); partial sums have as many bits as activations.
    `batch` images share the weights; energies are for one of them. `mac_j` turns the estimate's
    unit, one MAC, into joules: a 16-bit multiplication, 0.8 pJ, and a 32-bit addition, 0.1 pJ,
    at 45 nm (after Horowitz, ISSCC 2014), rounded up to 1 pJ.
    """

    batch: int = 1
    elements: int = 168
    register_bytes: int = 512
    buffer_bytes: int = 108 * 1024
    activation_bits: int = BITS
    weight_bits: int = BITS
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
        return self._table(structure, widths, np.ones((len(structure.operations), 3)))

    def breakdown(
        self,
        structure: Structure,
        widths: ArrayLike | None = None,
        *,
        weight_density: ArrayLike | None = None,
        input_density: ArrayLike | None = None,
        output_density: ArrayLike | None = None,
    ) -> dict[str, Array]:
        """Energy of one inference in units of one MAC, by cause, each (operations,).

        Densities are the part of values that is not zero, one for all or (operations,); dense
        unless given. Zeros of inputs and weights, independent of each other, skip their MACs
        and register accesses; inputs, weights and finished outputs travel compressed
        (`ecc.platforms.run_length`), partial sums do not (EAP, section 3). `widths` (groups,) are
        the full ones unless given. Raises UserError for densities outside [0, 1].
        """
        given = {"input": input_density, "weight": weight_density, "output": output_density}
        count = len(structure.operations)
        densities = [_density(name, value, count) for name, value in given.items()]
        chosen = structure.full_widths if widths is None else np.asarray(widths)
        table = self._table(structure, chosen[None], np.stack(densities, axis=1))
        return {cause: part[0] for cause, part in table.items()}

    def _table(self, structure: Structure, widths: ArrayLike, densities: Array) -> dict[str, Array]:
        """As `table`, with densities (operations, 3) of inputs, weights and outputs."""
        checked = checked_widths(structure, widths)
        reads, writes = structure.widths_in(checked), structure.widths_out(checked)
        table = np.empty((len(CAUSES), *reads.shape))
        for column, operation in enumerate(structure.operations):
            sides = reads[:, column], writes[:, column]
            table[:, :, column] = self._operation(operation, *sides, densities[column])
        return dict(zip(CAUSES, table, strict=True))

    def _operation(
        self, operation: Operation, reads: Array, writes: Array, densities: Array
    ) -> Array:
        """Energy by cause (4, n) of one operation: each pair of widths is searched once."""
        groups = reads if operation.kind == "depthwise" else float(operation.groups)
        sides = np.stack([reads * operation.columns / groups, writes / groups], axis=1)
        pairs, where = np.unique(sides, axis=0, return_inverse=True)
        found = [
            self._search(Layer(operation, densities, *pairs[start : start + ROWS].T[:, :, None]))
            for start in range(0, len(pairs), ROWS)
        ]
        return np.concatenate(found, axis=1)[:, where.ravel()] * groups / self.batch

    def _search(self, layer: Layer) -> Array:
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

    def _mapped(self, layer: Layer, images: int) -> Array:
        """The same where `images` of the batch share one tile of the buffer."""
        macs = self.batch * layer.macs[:, 0] * layer.densities[0] * layer.densities[1]
        activation, weight = self.activation_bits / BITS, self.weight_bits / BITS
        # The registers' terms: a read for inputs and weights, a read and a write for partial sums.
        registers = REGISTER * np.stack([macs * activation, macs * weight, 2 * macs * activation])
        moved = _best(self._tiles(layer, images)) + _best(self._mappings(layer, images))
        return np.concatenate([macs[None] * activation * weight, moved + registers])

    def _moved_bits(self, layer: Layer) -> tuple[float, float, float]:
        """Compressed bits over BITS of an input, a weight and a finished output that are moved."""
        bits = (self.activation_bits, self.weight_bits, self.activation_bits)
        inputs, weights, outputs = (
            rate(density, of_value) * of_value / BITS
            for density, of_value in zip(layer.densities, bits, strict=True)
        )
        return inputs, weights, outputs

    def _tiles(self, layer: Layer, images: int) -> Array:
        """DRAM's energy by inputs, weights, outputs for tiles and loop orders, (3, n, tiles).

        A tile has some input channels, rows and images, and as many filters as the buffer then
        holds. What the innermost loop does not change stays; the rest is fetched each time.
        """
        grid = np.array(list(product(_powers(layer.reads.max()), _powers(layer.rows))), dtype=float)
        channels, rows = np.minimum(grid[:, 0], layer.reads), np.minimum(grid[:, 1], layer.rows)
        read, written = layer.tile(rows)
        # Room is kept for data without zeros: how well they compress is not known beforehand.
        activation, weight = self.activation_bits, self.weight_bits
        room = 8 * self.buffer_bytes - activation * channels * images * read
        filters = room / (activation * images * written + weight * channels * layer.area)
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
        inputs, weights, finished = self._moved_bits(layer)
        sums = activation / BITS
        energy = [
            np.stack(
                [
                    a_inputs * self.batch * layer.inputs * inputs * DRAM,
                    a_weights * layer.weights * weights * DRAM,
                    # (2a - 1) at DRAM, the last of them compressed, and -2a of the 2a(b - 1) at
                    # the buffer
                    ((2 * sums * (a_sums - 1) + finished) * DRAM - 2 * sums * a_sums * BUFFER)
                    * self.batch
                    * layer.outputs,
                ]
            )
            for a_inputs, a_weights, a_sums in orders
        ]
        return np.concatenate([np.where(possible, order, np.inf) for order in energy], axis=2)

    def _mappings(self, layer: Layer, images: int) -> Array:
        """Energy of buffer and array by inputs, weights, outputs, (3, n, mappings).

        An element keeps one row of p filters and q channels. Sets of elements, as high as the
        kernel and e output rows wide, share inputs among filters and sums among channels.
        """
        height, width = layer.operation.kernel
        activation, weight = self.activation_bits, self.weight_bits
        room = 8 * self.register_bytes
        found = set()
        for p, e, sums in product(
            _powers(room // activation), _powers(layer.rows), _powers(self.elements)
        ):
            q = (room - p * activation) // (width * (p * weight + activation))
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
        inputs, weights, _ = self._moved_bits(layer)
        return self.batch * np.stack(
            [
                (buffered * BUFFER + spread * ARRAY) * inputs,
                (rows_of_weights / e * BUFFER + rows_of_weights * ARRAY) * weights,
                # 2ab at the buffer and -ab of the ab(c - 1) in the array; what is left of abc
                # there is what the registers save.
                np.maximum(sums, layer.outputs) * (2 * BUFFER - ARRAY) * activation / BITS,
            ]
        )


def _density(name: str, given: ArrayLike | None, operations: int) -> Array:
    """One density an operation, (operations,)."""
    value = np.asarray(1.0 if given is None else given, dtype=float)
    if value.shape not in ((), (operations,)):
        raise UserError(f"{name}_density has the shape {value.shape}: give one, or {operations}")
    if not ((value >= 0) & (value <= 1)).all():
        raise UserError(f"{name}_density is {value}: give parts from 0 to 1")
    return np.broadcast_to(value, (operations,))


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
