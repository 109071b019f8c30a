"""The sampling of a platform: random widths, their measured energy, and the file of samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ecc.errors import UserError
from ecc.metrics import in_code
from ecc.structure import Structure, draw_widths

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
SWEEP = ["group", "width", "full_width", "energy_j"]


class HasStructure(Protocol):
    @property
    def structure(self) -> Structure: ...


class Platform(Protocol):
    """What sampling needs of a platform (`ecc.platforms`)."""

    def measure(
        self, network: Any, widths: ArrayLike, *, seed: int, first: int = 0, journal: Path | None
    ) -> Array: ...

    def sampled(self, structure: Structure) -> Integers | None: ...

    def known(self, structure: Structure, widths: ArrayLike) -> NDArray[np.bool_]: ...


@dataclass(frozen=True)
class Sampled:
    """`samples` has the columns of `columns`, `sweep` those of SWEEP, energies are means."""

    samples: pd.DataFrame
    sweep: pd.DataFrame
    dense_energy_j: float
    smallest_energy_j: float


def columns(structure: Structure) -> list[str]:
    """Columns of a file of samples."""
    return ["sample", *(f"width_{group}" for group in range(len(structure.groups))), "energy_j"]


def sample(
    platform: Platform,
    network: HasStructure,
    count: int,
    *,
    seed: int,
    repeats: int = 1,
    sweeps: Sequence[Mapping[str, Any]] = (),
    journal: Path | None = None,
    chunks: Sequence[pd.DataFrame] = (),
) -> Sampled:
    """Measures `count` random widths, the dense and the smallest network, and `sweeps`, in which
    one group alone is narrowed: {group, step} (channels). All but the random ones `repeats` times.

    All in one call, so that a sensor mixes them as it likes and keeps them in one `journal`. Where
    `sample_chunk` has measured the random ones, `chunks` are all of these, in order: the numbers
    are the same.
    Raises UserError for an unknown group, and where a platform has fewer samples recorded.
    """
    structure = network.structure
    full = structure.full_widths
    parts = asked(platform, structure, count, seed=seed, repeats=repeats, sweeps=sweeps)
    if chunks:
        samples = pd.concat(chunks, ignore_index=True)
        if list(samples["sample"]) != list(range(count)):
            raise UserError(f"{len(chunks)} chunks are not samples 0 to {count - 1}: sample again")
        rest = np.concatenate(parts[1:])
        energy = platform.measure(network, rest, seed=seed, first=count, journal=journal)
    else:
        energy = platform.measure(network, np.concatenate(parts), seed=seed, journal=journal)
        samples = _frame(structure, 0, parts[0], energy[:count])
        energy = energy[count:]
    others = np.split(energy, np.cumsum([len(part) for part in parts[1:]])[:-1])
    dense, smallest, *of_sweeps = (part.reshape(-1, repeats).mean(axis=1) for part in others)
    groups = [_index(structure, settings["group"]) for settings in sweeps]
    rows = [
        (structure.groups[group].name, int(width), int(full[group]), joules)
        for group, narrowed, values_j in zip(groups, parts[3:], of_sweeps, strict=True)
        for width, joules in zip(narrowed[::repeats, group], values_j, strict=True)
    ]
    return Sampled(
        samples=samples,
        sweep=pd.DataFrame(rows, columns=SWEEP),
        dense_energy_j=float(dense[0]),
        smallest_energy_j=float(smallest[0]),
    )


def sample_chunk(
    platform: Platform, network: HasStructure, first: int, count: int, *, seed: int
) -> pd.DataFrame:
    """Measures samples `first` to `first + count - 1` of those that `sample` takes, to the same
    numbers, on a platform that needs no journal.
    """
    structure = network.structure
    widths = asked(platform, structure, first + count, seed=seed)[0][first:]
    energy = platform.measure(network, widths, seed=seed, first=first, journal=None)
    return _frame(structure, first, widths, energy)


def asked(
    platform: Platform,
    structure: Structure,
    count: int,
    *,
    seed: int,
    repeats: int = 1,
    sweeps: Sequence[Mapping[str, Any]] = (),
) -> list[Integers]:
    """The widths that `sample` measures: random, dense, smallest, and those of every sweep."""
    full = structure.full_widths
    widths = platform.sampled(structure)
    if widths is None:
        widths = draw_widths(structure, count, seed)
    elif len(widths) < count:
        raise UserError(
            f"{len(widths)} samples are recorded, {count} are asked for: lower the platform's "
            "`samples` and `test_samples` in the configuration"
        )
    swept = [_sweep(platform, structure, **settings) for settings in sweeps]
    repeated = [full[None], np.ones_like(full)[None], *swept]
    return [widths[:count], *(np.repeat(rows, repeats, axis=0) for rows in repeated)]


def _frame(structure: Structure, first: int, widths: Integers, energy: Array) -> pd.DataFrame:
    values = [np.arange(first, first + len(widths)), *widths.T, energy]
    return pd.DataFrame(dict(zip(columns(structure), values, strict=True)))


def _sweep(platform: Platform, structure: Structure, group: str, step: int = 1) -> Integers:
    """Widths in which a group has every `step`-th width, and all others their own."""
    index = _index(structure, group)
    narrowed = np.arange(step, structure.full_widths[index] + 1, step)
    rows = np.repeat([structure.full_widths], len(narrowed), axis=0)
    rows[:, index] = narrowed
    return rows[platform.known(structure, rows)]


def _index(structure: Structure, group: str) -> int:
    names = [entry.name for entry in structure.groups]
    if group not in names:
        raise UserError(f"energy.sweeps: there is no group '{group}': known are {', '.join(names)}")
    return names.index(group)


def read_samples(path: str | Path, structure: Structure, minimum: int) -> tuple[Integers, Array]:
    """Widths (n, groups) and joules (n,) of a file of samples, checked.

    Raises UserError that names the file and row where it is unreadable or truncated, has the
    columns or widths of another network, has values that no measurement gives, or has fewer than
    `minimum` rows.
    """
    frame = _read(path).rename(columns=in_code)
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
