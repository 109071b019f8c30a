"""What of a network decides its energy: channel groups, operations and their geometry.

Plain data and NumPy, so that sampling and fitting need no network and no torch.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecc.errors import UserError

Pair = tuple[int, int]


@dataclass(frozen=True)
class Group:
    """Channels that exist or vanish together; `width` is the full width S.

    Each has `vectors` parameters of its own (biases, batch normalisation) beside its weights.
    """

    name: str
    width: int
    vectors: int = 0


@dataclass(frozen=True)
class Operation:
    """A convolution or fully connected layer and the channel groups that it connects.

    `reads` are indices of prunable groups (several after a concatenation), `fixed_in` the input
    channels in no prunable group; `writes` is a prunable group, or None with `fixed_out` channels.
    `columns` are the weight columns of one input channel (36 for AlexNet's first fully connected
    layer, after 6x6 positions are flattened). Sizes are (height, width) for one image.
    """

    name: str
    kind: str
    reads: tuple[int, ...]
    writes: int | None
    fixed_in: int
    fixed_out: int
    columns: int
    kernel: Pair
    stride: Pair
    in_size: Pair
    out_size: Pair
    groups: int
    bias: bool


@dataclass(frozen=True)
class Structure:
    """A network at a deployment size, seen as prunable channel groups and operations.

    `fixed_vectors` are biases and batch normalisation of channels in no prunable group.
    """

    groups: tuple[Group, ...]
    operations: tuple[Operation, ...]
    image_channels: int
    classes: int
    fixed_vectors: int = 0

    @property
    def full_widths(self) -> NDArray[np.int64]:
        """Full widths S, (groups,)."""
        return np.array([group.width for group in self.groups], dtype=np.int64)

    @cached_property
    def _sides(self) -> tuple[NDArray[np.float64], ...]:
        shape = (len(self.operations), len(self.groups))
        reads, writes = np.zeros(shape), np.zeros(shape)
        for row, operation in enumerate(self.operations):
            reads[row, list(operation.reads)] = 1
            if operation.writes is not None:
                writes[row, operation.writes] = 1
        fixed = np.array([(op.fixed_in, op.fixed_out) for op in self.operations], dtype=float)
        return reads, writes, fixed[:, 0], fixed[:, 1]

    def widths_in(self, widths: ArrayLike | None = None) -> NDArray[np.float64]:
        """Input channels of every operation: widths (..., groups) to (..., operations)."""
        reads, _, fixed, _ = self._sides
        return self._widths(widths) @ reads.T + fixed

    def widths_out(self, widths: ArrayLike | None = None) -> NDArray[np.float64]:
        """Output channels of every operation: widths (..., groups) to (..., operations)."""
        _, writes, _, fixed = self._sides
        return self._widths(widths) @ writes.T + fixed

    def weights(self, widths: ArrayLike | None = None) -> NDArray[np.float64]:
        """Weights of every operation without biases: widths (..., groups) to (..., operations)."""
        kernel = np.array([op.kernel[0] * op.kernel[1] * op.columns for op in self.operations])
        grouped = np.array([op.groups for op in self.operations], dtype=float)
        depthwise = np.array([op.kind == "depthwise" for op in self.operations])
        reads = np.where(depthwise, 1.0, self.widths_in(widths) / grouped)
        return kernel * reads * self.widths_out(widths)

    def parameters(self, widths: ArrayLike | None = None) -> NDArray[np.float64]:
        """Trainable values of the whole network: widths (..., groups) to (...,)."""
        vectors = self._widths(widths) @ [float(group.vectors) for group in self.groups]
        return np.asarray(self.weights(widths).sum(-1) + vectors + self.fixed_vectors)

    def activations(self, widths: ArrayLike | None = None) -> NDArray[np.float64]:
        """Values that every operation reads and writes: (..., groups) to (..., operations)."""
        read = [op.in_size[0] * op.in_size[1] * op.columns for op in self.operations]
        written = [op.out_size[0] * op.out_size[1] for op in self.operations]
        return np.asarray(self.widths_in(widths) * read + self.widths_out(widths) * written)

    def macs(self, widths: ArrayLike | None = None) -> NDArray[np.float64]:
        """Multiply-accumulates for one image: (..., groups) to (..., operations).

        A transposed convolution multiplies every input position with the whole kernel.
        """
        positions = [
            op.in_size if op.kind == "transposed" else op.out_size for op in self.operations
        ]
        macs: NDArray[np.float64] = self.weights(widths) * [
            height * width for height, width in positions
        ]
        return macs

    def _widths(self, widths: ArrayLike | None) -> NDArray[np.float64]:
        return np.asarray(self.full_widths if widths is None else widths, dtype=np.float64)

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the network that samples and energy models belong to."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Raises UserError, naming the file, where it is not a structure."""
        try:
            return cls.from_json(Path(path).read_bytes().decode())
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror})") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not text: delete it and run the workflow again") from error
        except UserError as error:
            raise UserError(f"{path} is {error}") from error

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises UserError where the text is not a structure."""
        try:
            values = json.loads(text)
            found = cls(
                groups=tuple(Group(**group) for group in values["groups"]),
                operations=tuple(Operation(**_tuples(op)) for op in values["operations"]),
                image_channels=values["image_channels"],
                classes=values["classes"],
                fixed_vectors=values["fixed_vectors"],
            )
            found._check()
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(
                f"not the structure of a network ({str(error)[:100]}): delete it and run the "
                "workflow again"
            ) from error
        return found

    def _check(self) -> None:
        """Raises ValueError where a number is none, or an operation is of no group."""
        counts: list[Any] = [self.image_channels, self.classes]
        least_zero: list[Any] = [self.fixed_vectors]
        for group in self.groups:
            counts.append(group.width)
            least_zero.append(group.vectors)
        for op in self.operations:
            pairs = (op.kernel, op.stride, op.in_size, op.out_size)
            if [len(pair) for pair in pairs] != [2] * 4:
                raise ValueError(f"{op.name} has a size that is no pair")
            counts += [op.columns, op.groups, *(side for pair in pairs for side in pair)]
            least_zero += [op.fixed_in, op.fixed_out]
            there = [*op.reads, *([] if op.writes is None else [op.writes])]
            if any(type(index) is not int or not 0 <= index < len(self.groups) for index in there):
                raise ValueError(f"{op.name} reads or writes a group that there is not")
            if not (op.reads or op.fixed_in) or (op.writes is None and not op.fixed_out):
                raise ValueError(f"{op.name} reads or writes no channels")
        if not self.groups or not self.operations:
            raise ValueError("it has no groups or no operations")
        for least, values in ((1, counts), (0, least_zero)):
            for value in values:
                if type(value) is not int or not least <= value < 2**31:
                    raise ValueError(f"{value!r} is no number of channels or pixels")
        texts = [group.name for group in self.groups]
        texts += [text for op in self.operations for text in (op.name, op.kind)]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("a name is no text")


def draw_widths(structure: Structure, count: int, seed: int) -> NDArray[np.int64]:
    """Random widths (count, groups), uniform integers of [1, S]; row k is the same for any count.

    Yang, Zhu, Liu, ECC, CVPR 2019, section 4.2.
    """
    stream = np.random.default_rng([seed, 1])  # platforms draw their noise from other streams
    parts = np.floor(stream.random((count, len(structure.groups))) * structure.full_widths)
    return 1 + parts.astype(np.int64)


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
