"""The sampling protocol: random widths, their measured energy, and the file of samples.

Yang, Zhu, Liu, ECC, CVPR 2019, section 4.2: s uniform over the integers of [1, S]. Width vector
and noise of a sample follow from the seed and its number, so chunks may be measured in any order.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ecc.errors import UserError
from ecc.structure import Structure

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


class HasStructure(Protocol):
    @property
    def structure(self) -> Structure: ...


class Platform(Protocol):
    """What sampling needs of a platform (`ecc.platforms`): joules (n,) at widths (n, groups)."""

    def measure(self, network: Any, widths: ArrayLike, *, seed: int, first: int = 0) -> Array: ...


def columns(structure: Structure) -> list[str]:
    """Columns of a file of samples."""
    return ["sample", *(f"width_{group}" for group in range(len(structure.groups))), "energy_j"]


def draw_widths(structure: Structure, count: int, seed: int) -> Integers:
    """Widths (count, groups), uniform integers of [1, S]; row k is the same for any count > k."""
    stream = np.random.default_rng([seed, 1])  # platforms draw their noise from other streams
    return 1 + np.floor(
        stream.random((count, len(structure.groups))) * structure.full_widths
    ).astype(np.int64)


def sample(
    platform: Platform, network: HasStructure, count: int, seed: int, start: int, stop: int
) -> pd.DataFrame:
    """Measure samples [start, stop) of `count`: the columns of `columns`, one row a sample.

    Raises UserError for an empty or impossible range.
    """
    if not 0 <= start < stop <= count:
        raise UserError(f"samples {start} to {stop} are not a part of {count}: fewer chunks")
    widths = draw_widths(network.structure, count, seed)[start:stop]
    energy = platform.measure(network, widths, seed=seed, first=start)
    values = [np.arange(start, stop), *widths.T, energy]
    return pd.DataFrame(dict(zip(columns(network.structure), values, strict=True)))


def gather(chunks: Iterable[str | Path | pd.DataFrame], count: int) -> pd.DataFrame:
    """Chunks, as frames or files, in the order of samples.

    Raises UserError unless every sample of [0, count) occurs exactly once.
    """
    frames = [c if isinstance(c, pd.DataFrame) else _read(c) for c in chunks]
    frame = pd.concat(frames, ignore_index=True)
    found = frame["sample"].value_counts().reindex(range(count), fill_value=0)
    absent, twice = found.index[found == 0], found.index[found > 1]
    if len(absent) or len(twice) or len(frame) != count:
        raise UserError(
            f"samples: {len(frame)} rows for {count} samples, {len(absent)} absent"
            f"{f' (first: {absent[0]})' if len(absent) else ''}, {len(twice)} more than once"
            f"{f' (first: {twice[0]})' if len(twice) else ''}: delete the chunks and sample again"
        )
    return frame.sort_values("sample", ignore_index=True)


def read_samples(path: str | Path, structure: Structure, minimum: int) -> tuple[Integers, Array]:
    """Widths (n, groups) and joules (n,) of a file of samples, checked.

    Raises UserError that names the file and row where it is unreadable or truncated, has the
    columns or widths of another network, has values that no measurement gives, or has fewer than
    `minimum` rows.
    """
    frame = _read(path)
    expected = columns(structure)
    if list(frame.columns) != expected:
        raise UserError(
            f"{path}: its columns are not {expected[0]}, {expected[1]} .. {expected[-2]}, "
            f"{expected[-1]}: sample this network ({len(structure.groups)} groups)"
        )
    values = frame.apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    widths, energy = values[:, 1:-1], values[:, -1]

    def refuse(wrong: NDArray[np.bool_], what: str) -> None:
        """`wrong` (n, columns); the first row that is wrong goes into the message."""
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise UserError(
                f"{path}: line {row + 2}: {what.format(expected[column])}, "
                f"not {frame.iat[row, column]}: correct or delete the line"
            )

    refuse(~np.isfinite(values), "{} must be a finite number")
    refuse((energy <= 0)[:, None] & (np.array(expected) == "energy_j"), "{} must be positive")
    outside = (widths < 1) | (widths > structure.full_widths) | (widths != np.floor(widths))
    refuse(np.pad(outside, ((0, 0), (1, 1))), "{} must be an integer within this network's [1, S]")
    repeated = frame["sample"].duplicated().to_numpy()
    refuse(repeated[:, None] & (np.array(expected) == "sample"), "{} must occur once")
    if len(frame) < minimum:
        raise UserError(
            f"{path}: {len(frame)} samples, at least {minimum} are needed: sample more, or lower "
            "the numbers of samples in the configuration"
        )
    return widths.astype(np.int64), energy


def split(count: int, test: int, seed: int) -> tuple[Integers, Integers]:
    """Random indices of training and test samples. Raises UserError where one would be empty."""
    if not 0 < test < count:
        raise UserError(f"{test} test samples of {count}: at least one for each of test and fit")
    order = np.random.default_rng([seed, 2]).permutation(count)
    return np.sort(order[test:]), np.sort(order[:test])


def _read(path: str | Path) -> pd.DataFrame:
    """A CSV file. pandas alone would take a file that was cut within its last number."""
    try:
        data = Path(path).read_bytes()
        if not data.endswith(b"\n"):
            raise ValueError("it is empty or its end is cut off")
        frame = pd.read_csv(path)
        if "sample" not in frame.columns:
            raise ValueError("it has no column 'sample'")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): sample again") from error
    except ValueError as error:  # pandas' parser errors and UnicodeDecodeError are ValueErrors
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{path}: not a file of samples ({reason}): sample again") from error
    return frame
