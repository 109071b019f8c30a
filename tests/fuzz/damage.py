"""Ways in which a file is not what it should be."""

import copy
import csv
import gzip
import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

# In place of a value of JSON or of a cell.
VALUES: list[Any] = [None, True, "text", "", "12", [], {}, -1, 0, 1.5, 10**30, [[1]], {"a": 1}]
NUMBERS = [float("nan"), float("inf"), -float("inf")]
CELLS = ["", "nan", "inf", "-inf", "-1", "0", "1e400", "text", "1.5", "9" * 30, '"a,b"', "True"]
DEEP = "[" * 100_000


@dataclass(frozen=True)
class Damage:
    """`same`: it means what it did. `sure`: nothing of it is left that could be read."""

    what: str
    same: bool = False
    sure: bool = False


def damage(path: Path, draw: random.Random) -> Damage:
    """Changes a file by its suffix, in place."""
    suffix = path.suffix
    kinds: list[Callable[[Path, random.Random], Damage]] = [_bytes, _whole]
    if suffix in (".json", ".csv", ".yaml", ".jsonl"):
        kinds += [_text]
    if suffix == ".json":
        kinds += [_json] * 4
    if suffix == ".csv" or path.name.endswith(".csv.gz"):
        kinds += [_csv] * 4
    if suffix == ".yaml":
        kinds += [_lines] * 3
    if suffix == ".safetensors":
        kinds += [_tensors] * 3
    return draw.choice(kinds)(path, draw)


def _whole(path: Path, draw: random.Random) -> Damage:
    what = draw.choice(["empty", "missing", "a folder", "garbage", "zeros", "a long line", "deep"])
    path.unlink()
    if what == "empty":
        path.write_bytes(b"")
    elif what == "a folder":
        path.mkdir()
    elif what == "garbage":
        path.write_bytes(draw.randbytes(draw.choice([1, 7, 8, 100, 5000])))
    elif what == "zeros":
        path.write_bytes(bytes(draw.choice([1, 8, 1000])))
    elif what == "a long line":
        path.write_text("a," * 50_000)
    elif what == "deep":
        path.write_text(DEEP)
    return Damage(what, sure=True)


def _bytes(path: Path, draw: random.Random) -> Damage:
    data = bytearray(path.read_bytes())
    place = draw.randrange(len(data))
    # Headers and keys are at the begin.
    place = place if draw.random() < 0.5 else place % 400 % len(data)
    what = draw.choice(["a bit flipped", "cut off", "bytes put in", "bytes taken out", "zeros"])
    if what == "a bit flipped":
        data[place] ^= 1 << draw.randrange(8)
    elif what == "cut off":
        del data[place:]
    elif what == "bytes put in":
        data[place:place] = draw.randbytes(draw.randint(1, 20))
    elif what == "bytes taken out":
        del data[place : place + draw.randint(1, 20)]
    else:
        data[place : place + 20] = bytes(len(data[place : place + 20]))
    path.write_bytes(bytes(data))
    return Damage(f"{what} at {place}")


def _text(path: Path, draw: random.Random) -> Damage:
    text = path.read_text()
    what = draw.choice(["BOM", "CRLF", "UTF-16", "latin-1", "NUL", "trailing lines"])
    data = {
        "BOM": b"\xef\xbb\xbf" + text.encode(),
        "CRLF": text.replace("\n", "\r\n").encode(),
        "UTF-16": text.encode("utf-16"),
        "latin-1": text.replace("e", "\u00e9", 1).encode("latin-1"),
        "NUL": text.replace("\n", "\0\n", 1).encode(),
        "trailing lines": text.encode() + b"\n\n",
    }
    path.write_bytes(data[what])
    return Damage(what, same=what in ("BOM", "CRLF", "trailing lines"), sure=what == "UTF-16")


def _lines(path: Path, draw: random.Random) -> Damage:
    lines = path.read_text().splitlines()
    place = draw.randrange(len(lines))
    what = draw.choice(["taken out", "twice", "indented", "with a tab", "another value", "a key"])
    line = lines[place]
    lines[place : place + 1] = {
        "taken out": [],
        "twice": [line, line],
        "indented": [" " + line],
        "with a tab": ["\t" + line],
        "another value": [line.partition(":")[0] + ": " + draw.choice([*CELLS, "[", "{a: b}"])],
        "a key": [line, line[: len(line) - len(line.lstrip())] + "nothing: 1"],
    }[what]
    path.write_text("\n".join(lines) + "\n")
    return Damage(f"line {place + 1} {what}")


def _json(path: Path, draw: random.Random) -> Damage:
    values = json.loads(path.read_text())
    if draw.random() < 0.1:
        path.write_text(json.dumps(values, indent=draw.choice([None, 0, 7])))
        return Damage("in another layout", same=True)
    places = list(_places(values))
    place = draw.choice(places)
    what = draw.choice(["value", "value", "number", "drop", "add", "twice"])
    where = ".".join(map(str, place)) or "all of it"
    if what == "twice":
        path.write_text(path.read_text().replace("{", '{"again": 1, "again": 2,', 1))
        return Damage("an unknown key twice", same=True)
    if not place:
        value = draw.choice(VALUES)
        path.write_text(json.dumps(value))
        return Damage(f"{where} is {value!r}", sure=True)
    parent = values
    for key in place[:-1]:
        parent = parent[key]
    before = parent[place[-1]]
    if what == "drop":
        del parent[place[-1]]
        where += " is missing"
    elif what == "add" and isinstance(before, dict | list):
        if isinstance(before, dict):
            before["unknown"] = 1
        else:
            before.append(copy.deepcopy(draw.choice([*before, *VALUES])))
        where += " has more"
    else:
        value = draw.choice(NUMBERS if what == "number" else VALUES)
        parent[place[-1]] = copy.deepcopy(value)
        where += f": {str(before)[:40]} is {value!r}"
    path.write_text(json.dumps(values))
    return Damage(where)


def _places(value: Any, place: tuple[Any, ...] = ()) -> Any:
    yield place
    inner = value.items() if isinstance(value, dict) else ()
    for key, entry in enumerate(value) if isinstance(value, list) else inner:
        yield from _places(entry, (*place, key))


def _csv(path: Path, draw: random.Random) -> Damage:
    packed = path.suffix == ".gz"
    text = gzip.decompress(path.read_bytes()).decode() if packed else path.read_text()
    rows = list(csv.reader(io.StringIO(text)))
    column = draw.randrange(len(rows[0]))
    row = draw.randrange(1, len(rows))
    what = draw.choice(
        [
            *("a cell", "a cell", "a cell", "a column less", "a column more", "a column renamed"),
            *("a column twice", "columns swapped", "a row less", "a row twice", "a cell less"),
            *("a cell more", "no rows", "no header"),
        ]
    )
    name = rows[0][column]
    if what == "a cell":
        cell = draw.choice(CELLS)
        rows[row][column] = cell
        what = f"{name} in line {row + 1} is {cell!r}"
    elif what == "a column less":
        rows = [[*own[:column], *own[column + 1 :]] for own in rows]
    elif what == "a column more":
        rows = [[*own[:column], "7", *own[column:]] for own in rows]
        rows[0][column] = "unknown"
    elif what == "a column renamed":
        rows[0][column] = name.upper()
    elif what == "a column twice":
        rows = [[*own[:column], own[column], *own[column:]] for own in rows]
    elif what == "columns swapped":
        other = draw.randrange(len(rows[0]))
        for own in rows:
            own[column], own[other] = own[other], own[column]
    elif what == "a row less":
        del rows[row]
    elif what == "a row twice":
        rows.insert(row, rows[row])
    elif what == "a cell less":
        rows[row] = rows[row][:-1]
    elif what == "a cell more":
        rows[row] = [*rows[row], "7"]
    elif what == "no rows":
        del rows[1:]
    else:
        del rows[0]
    out = io.StringIO()
    out.write("".join(",".join(own) + "\n" for own in rows))
    data = out.getvalue().encode()
    path.write_bytes(gzip.compress(data, mtime=0) if packed else data)
    return Damage(f"{what} ({name})")


def _tensors(path: Path, draw: random.Random) -> Damage:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    name = draw.choice(sorted(tensors))
    tensor = tensors[name]
    what = draw.choice(
        [
            *("missing", "renamed", "one more", "of whole numbers", "of halves", "NaN"),
            *("infinite", "another shape", "empty", "no metadata", "other metadata"),
            "metadata is no JSON",
        ]
    )
    flat = tensor.flatten().double() if tensor.numel() else torch.zeros(1).double()
    if what == "missing":
        del tensors[name]
    elif what == "renamed":
        tensors[f"{name}x"] = tensors.pop(name)
    elif what == "one more":
        tensors["unknown"] = torch.ones(2)
    elif what == "of whole numbers":
        tensors[name] = tensor.to(torch.int64)
    elif what == "of halves":
        tensors[name] = tensor.half()
    elif what in ("NaN", "infinite"):
        flat[0] = float("nan" if what == "NaN" else "inf")
        tensors[name] = flat.reshape(tensor.shape) if tensor.numel() else flat
    elif what == "another shape":
        tensors[name] = torch.stack([tensor, tensor])
    elif what == "empty":
        tensors[name] = torch.zeros(0)
    elif what == "no metadata":
        metadata = None
    elif metadata:
        key = draw.choice(sorted(metadata))
        metadata[key] = "{" if what == "metadata is no JSON" else json.dumps(draw.choice(VALUES))
    save_file({key: value.contiguous() for key, value in tensors.items()}, path, metadata)
    return Damage(f"{name}: {what}")


def numbers(value: Any) -> list[float]:
    """All numbers in what was read."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return []
    if isinstance(value, int | float):
        return [float(value)]
    if isinstance(value, dict):
        return [number for entry in value.values() for number in numbers(entry)]
    if isinstance(value, np.ndarray | torch.Tensor):
        return numbers(value.tolist())
    return [number for entry in value for number in numbers(entry)]
