"""Files at random: what users hand over and what jobs read back, damaged, then read.

Every target makes good files once and reads them with the function that the workflow uses. A
damaged one is read with the same result, with another that nothing could tell, or is refused by a
UserError of one line that names the file. No code in a file is ever run.
"""

import json
import logging
import math
import pickle
import random
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
from torch import nn

from ecc import data, energy, finegrained, platforms, records, runs
from ecc.card import Facts, Images
from ecc.channels import trace
from ecc.errors import UserError
from ecc.evidence import claims, reproduction
from ecc.evolution.study import Known
from ecc.export import WEIGHTS, _save, load
from ecc.files import unseal
from ecc.measuring.drift import repeatability
from ecc.methods import Problem, compress
from ecc.methods.checkpoint import Checkpoint
from ecc.networks import Network
from ecc.networks.pretrained import load_published
from ecc.platforms import Deployed
from ecc.platforms.eyeriss import EYERISS
from ecc.platforms.recorded import Recorded, record
from ecc.structure import Structure, draw_widths
from ecc.tasks import CLASSIFICATION
from ecc.training import TaskLoss, TrainingSettings, load_weights, save_weights, train

from ..conftest import SIZE, MemorySplit, TinyNetwork
from .configurations import ROOT
from .damage import Damage, damage, numbers

NETWORK = {"architecture": "alexnet", "classes": 4, "multiplier": 0.1, "size": (64, 64)}
SENSOR = {
    "kind": "simulated",
    "protocol": {"sample_s": 0.3, "settle_s": 0.1, "warm_up_s": 0.1, "baseline": 3, "repeats": 0.3},
}
PIXELS = {"kind": "fractals", "classes": 2, "train": 3, "holdout": 1, "validation": 2, "size": 16}
RAN = "ran"  # the file that code in a file of weights would leave behind


@dataclass(frozen=True)
class Target:
    """`files`: those that are damaged, below the folder that `make` fills and `read` reads.

    `renewed`: what is left of a killed job, which begins anew where nothing can be read; `exact`:
    what is read is what was written, whatever was damaged, a bit too; `free`: values of any kind
    are fine, as nothing is computed from them.
    """

    name: str
    files: tuple[str, ...]
    make: Callable[[Path], None]
    read: Callable[[Path], Any]
    renewed: bool = False
    exact: bool = False
    free: bool = False


# Measurements


def _deployed() -> Deployed:
    return Deployed(Network(**NETWORK).structure, NETWORK)


def _widths(count: int = 8) -> np.ndarray:
    structure = _deployed().structure
    full = structure.full_widths
    return np.concatenate([draw_widths(structure, count, 0), [full, full * 0 + 1]])


def _campaign(folder: Path) -> None:
    device = platforms.make("sensor", SENSOR)
    device.measure(_deployed(), _widths(), seed=0, journal=folder / "campaign")


def _read_campaign(folder: Path) -> Any:
    device, structure = platforms.make("sensor", SENSOR), _deployed().structure
    values = device.measure(_deployed(), _widths(), seed=0, journal=folder / "campaign")
    found = device.campaign(structure, folder / "campaign")
    told = repeatability(found.windows, found.provenance)
    return [len(values), bool((values > 0).all()), told["batch"], told["sensor"], told["device"]]


def _recording(folder: Path) -> None:
    _campaign(folder)
    record(folder / "campaign", folder / "recorded", "net", _deployed().structure)
    shutil.rmtree(folder / "campaign")


def _replay(folder: Path) -> Any:
    device, structure = Recorded("mine", folder / "recorded"), _deployed().structure
    told = device.campaign(structure, folder)
    values = device.measure(_deployed(), device.sampled(structure), seed=0)
    quality = repeatability(told.windows, told.provenance)
    return [device.description, device.metric, values.tolist(), quality["repeatability"]]


# Energy models


def _structure(folder: Path) -> None:
    (folder / "net.json").write_text(_deployed().structure.to_json())


def _read_structure(folder: Path) -> Any:
    found = Structure.read(folder / "net.json")
    device = platforms.get("gtx1080ti")
    return [found.to_json(), device.measure(Deployed(found, {}), [found.full_widths], seed=0)]


def _samples(folder: Path) -> None:
    taken = energy.sample(platforms.get("jetson_tx2"), _deployed(), 60, seed=0)
    runs.write_csv(folder / "samples.csv", taken.samples)


def _read_samples(folder: Path) -> Any:
    return list(energy.read_samples(folder / "samples.csv", _deployed().structure, 50))


def _models(folder: Path) -> None:
    _samples(folder)
    structure = _deployed().structure
    known = energy.read_samples(folder / "samples.csv", structure, 50)
    for kind, fit, own, suffix in (
        ("bilinear_graph", "nnls", {}, "json"),
        ("lookup", "nnls", {}, "json"),
        ("mlp1", "adam", {"iterations": 20}, "safetensors"),
    ):
        model, _ = energy.fit(kind, fit, structure, *known, own, test=known)
        model.save(folder / f"{kind}.{suffix}")


def _read_model(name: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        model = energy.load(folder / name, _deployed().structure)
        return model.energy(_widths()).tolist()

    return read


# Weights


def _filled(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Network(**NETWORK).build().eval()


def _state(model: nn.Module) -> dict[str, Any]:
    return {name: tensor.double().sum().item() for name, tensor in model.state_dict().items()}


def _weights(folder: Path) -> None:
    save_weights(folder / "model.safetensors", _filled())


def _read_weights(folder: Path) -> Any:
    return _state(load_weights(folder / "model.safetensors", _filled(1)))


def _published(folder: Path) -> None:
    state = _filled().state_dict()
    torch.save({"state_dict": state, "epoch": 3}, folder / "zip.pth")
    together = torch.cat([tensor.flatten() for tensor in state.values()])
    parts = together.split([tensor.numel() for tensor in state.values()])
    views = {name: part.view_as(state[name]) for name, part in zip(state, parts, strict=True)}
    torch.save(views, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    np.savez(folder / "arrays.npz", **{name: value.numpy() for name, value in state.items()})
    _weights(folder)


def _read_published(name: str) -> Callable[[Path], Any]:
    return lambda folder: _state(load_published(folder / name, "alexnet", _filled(1)))


def _exported(folder: Path) -> None:
    network = Network(**NETWORK)
    groups = [
        {"name": group.name, "width": group.width, "full_width": group.width}
        for group in network.structure.groups
    ]
    numbers = dict.fromkeys(
        ("accuracy", "accuracy_before_finetuning", "dense_accuracy", "budget_j", "dense_energy_j"),
        0.5,
    )
    facts = Facts(
        groups=groups,
        **dict.fromkeys(("method", "platform", "description"), "text"),
        **numbers,
        emulated=True,
        metric="energy_j",
        modelled_energy_j=0.5,
        measured_energy_j=None,
        images=Images("digits", classes=list("abcd")),
        settings={},
    )
    _save(folder / WEIGHTS, _filled(), network, facts)


def _read_exported(folder: Path) -> Any:
    return _state(load(folder))


class _Batches:
    """A split of four images."""

    task = TaskLoss
    fingerprint = "fuzz"

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.task = CLASSIFICATION
        self.images = torch.randn(4, 3, 16, 16, generator=generator)
        self.labels = torch.tensor([0, 1, 2, 3])

    def __len__(self) -> int:
        return 4

    def batches(self, *args: Any, **kwargs: Any) -> Any:
        while True:
            yield self.images, self.labels


def _trained(folder: Path) -> pd.DataFrame:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(784, 4))
    split = _Batches()
    settings = TrainingSettings(4, batch_size=4, device="cpu", checkpoint_every=2)
    path = folder / "checkpoint.safetensors"
    return train(model, split, TaskLoss(split.task), settings, seed=0, checkpoint=path)


def _read_trained(folder: Path) -> Any:
    return _trained(folder)["loss"].tolist()


# As in tests/test_checkpoint.py: enough for three states of each.
SEARCHES: dict[str, dict[str, Any]] = {
    "amc": {"episodes": 6, "warm_up": 2, "batches": 1, "positions": 4},
    "evolution": {"stages": 3, "population": 4, "generations": 1, "calibration": 1},
    "lcp": {"evaluations": 8, "population": 3, "tournament": 2},
    "netadapt": {"decay": 0.9},
}


class _StoppedError(Exception):
    pass


def _search(method: str, folder: Path) -> Any:
    """What a search ends with; it goes on from the checkpoint in the folder, if there is one."""
    torch.manual_seed(0)
    dense = TinyNetwork()
    channels = trace(dense, SIZE)
    model = energy.BilinearGraph(channels.structure, np.array([0.1, 1.0, 2.0, 3.0, 0.5]) * 1e-3)
    problem = Problem(
        dense,
        channels,
        model,
        0.5 * float(model.energy(channels.structure.full_widths)),
        MemorySplit(),
        MemorySplit(32, 1),
        TrainingSettings(24, batch_size=8, learning_rate=5e-3, device="cpu"),
        checkpoint=folder / "checkpoint.safetensors",
    )
    found = compress(method, problem, SEARCHES[method])
    return [found.history.to_csv(), found.widths.tolist(), _state(found.model)]


def _stopped(method: str) -> Callable[[Path], None]:
    """Leaves the second state of a search."""

    def make(folder: Path) -> None:
        save, left = Checkpoint.save, iter(range(2))

        def always(checkpoint: Checkpoint, history: Any, state: Any, **_: Any) -> None:
            save(checkpoint, history, state, at_once=True)
            if next(left):
                raise _StoppedError

        with mock.patch.object(Checkpoint, "save", always), suppress(_StoppedError):
            _search(method, folder)

    return make


def _pruned(folder: Path, count: int | None = None) -> Any:
    """What a study of single weights has after `count` or all rounds, each of which is kept; it
    goes on from the checkpoint in the folder, if there is one.
    """
    torch.manual_seed(0)
    dense, path = TinyNetwork(), folder / "checkpoint.safetensors"
    structure = trace(dense, SIZE).structure
    split, holdout = MemorySplit(), MemorySplit(32, 1)
    study = finegrained.Study(
        dense,
        [operation.name for operation in structure.operations],
        finegrained.of_layers(EYERISS, structure),
        TaskLoss(CLASSIFICATION),
        split,
        holdout,
        finegrained.Settings(images=16, rounds=3, threshold=1.0),
        TrainingSettings(2, batch_size=8, device="cpu"),
        required=0.0,
        seed=0,
    )
    progress = finegrained.Progress.of(study, path)
    rounds = islice(study.rounds(progress.last), count)
    found = finegrained.record(rounds, structure, holdout, progress)
    return [found.rounds.to_csv(), found.layers.to_csv(), _state(found.last.model)]


# Records, tables, claims


EFFORT = {"images_seen": 8, "evaluations": 2, "images_evaluated": 16, "finetuning_images": 4}
CLOSING = {
    "budgets": {
        "jetson_tx2": {
            "metric": "energy_j",
            "budget": 0.01,
            "rounds": 1,
            "measured": [0.02, 0.01],
            "closed": True,
        }
    },
    "closed": True,
    "holdout_accuracy_before": 0.5,
    "holdout_accuracy_after": 0.4,
    "widths_before": [4, 4],
    "widths": [3, 4],
    "kept": [[0, 1, 2], [0, 1, 2, 3]],
}
RECORDS: dict[str, dict[str, Any]] = {
    "dense energy": {"metric": "energy_j", "dense_energy_j": 0.1, "network": "alexnet"},
    "budgets": {
        "metric": "energy_j",
        "dense_energy_j": 0.1,
        "budget_j": {"dense-0.5": 0.05},
        "limits": {"dense-0.5": {"parameters": 100.0}},
        "lower_bounds": [1, 2],
    },
    "dense training": {"dense_accuracy": 0.75},
    "compression": {
        "budget_j": 0.05,
        "limited": {"parameters": {"limit": 100.0, "modelled": 90.0}},
        "widths": [3, 4],
        "iterations": 6,
        "unspent_iterations": 2,
        "effort": EFFORT,
        "method": {"method": "ecc"},
        "seed": 0,
        "seconds": 1.5,
        "peak_memory_mb": 300.0,
        "peak_gpu_memory_mb": None,
    },
    "closing": CLOSING,
    "fine-tuning": {
        **dict.fromkeys(("experiment", "platform", "method", "network", "dataset"), "name"),
        **dict.fromkeys(("dense_accuracy", "accuracy_before_finetuning", "accuracy"), 0.5),
        "budget": "dense-0.5",
        "metric": "energy_j",
        "budget_j": 0.05,
        "dense_energy_j": 0.1,
        "budget_fraction": 0.5,
        "score": "accuracy",
        "limited": {"parameters": 100.0},
        "closing": CLOSING,
        "iterations": 10,
        "effort": EFFORT,
        "groups": [{"name": "a", "width": 3, "full_width": 4}],
        "method_settings": {},
        "phases": [{}],
        "timings": {
            "compression_seconds": 1.0,
            "finetuning_seconds": 1.0,
            "peak_memory_mb": 1.0,
            "peak_gpu_memory_mb": 1.0,
        },
        "seed": 0,
        "versions": {},
        "hardware": {},
    },
    "verification": {
        "modelled_energy_j": 0.05,
        "measured_energy_j": None,
        "within_budget": None,
        "limited": {"parameters": {"limit": 1.0}},
    },
}


def _record(what: str) -> Target:
    file = f"{what.replace(' ', '_')}.json"
    return Target(
        f"record of {what}",
        (file,),
        lambda folder: runs.write_json(folder / file, RECORDS[what]),
        lambda folder: _needed(records.read(folder / file, what), records.SCHEMAS[what]),
    )


def _needed(values: Any, schema: dict[str, Any]) -> Any:
    """The part of a record that its schema names: nothing else is used."""
    if not isinstance(values, dict) or "properties" not in schema:
        return values
    return {key: _needed(values[key], part) for key, part in schema["properties"].items()}


TABLES = ("accuracy_at_budget", "energy_model_errors")


def _claims(folder: Path) -> None:
    shutil.copy(ROOT / "resources/claims.yaml", folder)


def _read_claims(folder: Path) -> Any:
    tables = {
        name: pd.read_csv(ROOT / f"resources/reference_results/default/{name}.csv")
        for name in TABLES
    }
    published = pd.read_csv(ROOT / "resources/published/paper_values.csv")
    found = claims.decide(claims.read(folder / "claims.yaml"), tables, published)
    return found["verdict"].tolist()


def _reference(folder: Path) -> None:
    for name in ("reference", "found"):
        (folder / name).mkdir()
        shutil.copy(ROOT / "resources/reference_results/default/comparison.csv", folder / name)
        runs.write_json(folder / name / "metrics.json", RECORDS["compression"])


def _compared(folder: Path) -> Any:
    return len(reproduction.compare(folder / "reference", folder / "found"))


EVALUATED = {name: {"accuracy": accuracy} for name, accuracy in (("a", 0.5), ("b", 0.25))}


def _known(folder: Path) -> None:
    known = Known(folder / "evaluated.jsonl", "fingerprint")
    for name, row in EVALUATED.items():
        known.add(name, row)


def _read_known(folder: Path) -> Any:
    """What is known and was never evaluated."""
    rows = Known(folder / "evaluated.jsonl", "fingerprint").rows
    return {name: row for name, row in rows.items() if EVALUATED.get(name) != row}


# Images


def _dataset(in_memory: bool) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        data.prepare({**PIXELS, "in_memory": in_memory}, folder)
        unseal(folder / "pixels.safetensors")  # or damage would be refused before it is read

    return make


def _read_dataset(in_memory: bool) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        found = data.load({**PIXELS, "in_memory": in_memory}, folder)
        splits = (found.train, found.holdout, found.validation)
        return [[len(split), *next(iter(split.ordered(8)))] for split in splits]

    return read


TARGETS = [
    Target(
        "campaign",
        ("campaign/windows.csv", "campaign/campaign.json"),
        _campaign,
        _read_campaign,
        renewed=True,
        free=True,
    ),
    Target("recording", ("recorded/net.csv.gz", "recorded/net.json"), _recording, _replay),
    Target("structure", ("net.json",), _structure, _read_structure),
    Target("samples", ("samples.csv",), _samples, _read_samples),
    *(
        Target(name, (name,), _models, _read_model(name))
        for name in ("bilinear_graph.json", "lookup.json", "mlp1.safetensors")
    ),
    Target("weights", ("model.safetensors",), _weights, _read_weights),
    *(
        Target(f"published {name}", (name,), _published, _read_published(name))
        for name in ("zip.pth", "legacy.pth", "arrays.npz", "model.safetensors")
    ),
    Target("exported network", (WEIGHTS,), _exported, _read_exported),
    Target(
        "checkpoint",
        ("checkpoint.safetensors",),
        lambda f: (_trained(f), None)[1],
        _read_trained,
        exact=True,
    ),
    *(
        Target(
            f"search of {method}",
            ("checkpoint.safetensors",),
            _stopped(method),
            partial(_search, method),
            exact=True,
        )
        for method in SEARCHES
    ),
    Target(
        "study of single weights",
        ("checkpoint.safetensors",),
        lambda f: _pruned(f, 3),  # as given, and two rounds
        _pruned,
        exact=True,
    ),
    *(_record(what) for what in RECORDS),
    Target("claims", ("claims.yaml",), _claims, _read_claims),
    Target(
        "reference results",
        ("found/comparison.csv", "found/metrics.json"),
        _reference,
        _compared,
        free=True,
    ),
    Target("evaluated networks", ("evaluated.jsonl",), _known, _read_known, exact=True),
    Target(
        "images in memory",
        ("manifest.json", "pixels.safetensors"),
        _dataset(True),
        _read_dataset(True),
    ),
    Target("images by file", ("manifest.json",), _dataset(False), _read_dataset(False)),
]


@dataclass(frozen=True)
class Outcome:
    verdict: str  # "read" or "refused"
    what: str
    wrong: str = ""


class Files:
    """All targets, with their good files in a folder of their own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.expected: dict[str, str] = {}

    def outcome(self, seed: int, index: int) -> Outcome:
        """One damaged file; the same for the same seed and index."""
        return self.damaged(TARGETS[index % len(TARGETS)], f"{seed}/{index}")

    def damaged(self, target: Target, seed: str) -> Outcome:
        draw = random.Random(seed)
        good = self._good(target)
        place = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            shutil.copytree(good, place, dirs_exist_ok=True)
            name = draw.choice(target.files)
            done = damage(place / name, draw)
            what = f"{target.name}, {name}: {done.what}"
            return self._judged(target, place, name, done, what)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _good(self, target: Target) -> Path:
        good = self.folder / "good" / target.name.replace(" ", "_")
        if target.name not in self.expected:
            good.mkdir(parents=True)
            with _quiet():
                target.make(good)
                for file in good.rglob("*"):
                    _repeat(file)
                copy = self.folder / "copy"
                shutil.copytree(good, copy)
                self.expected[target.name] = _shown(target.read(copy))
                shutil.rmtree(copy)
        return good

    def _judged(self, target: Target, place: Path, name: str, done: Damage, what: str) -> Outcome:
        try:
            with _quiet():
                found = target.read(place)
        except UserError as error:
            said = str(error)
            wrong = "" if "\n" not in said and len(said) < 1000 else f"not one line: {said[:300]}"
            if Path(name).name not in said and Path(name).stem not in said:
                wrong = f"the file is not named: {said}"
            return Outcome("refused", what, wrong)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return Outcome("read", what, f"{type(error).__name__}: {str(error)[:300]}")
        same = _shown(found) == self.expected[target.name]
        wrong = ""
        if target.exact:
            wrong = "" if same else "read as something else"
        elif done.same and not (same or target.renewed or target.free):
            wrong = "read as something else"
        elif done.sure and not same and not (target.renewed or target.free):
            wrong = "read, but nothing of it is left"
        elif not target.free and not all(map(math.isfinite, numbers(found))):
            wrong = "read as numbers that are not finite"
        return Outcome("read", what, wrong)


def _repeat(file: Path) -> None:
    """Gives a file the same bytes in every process: headers in order, no addresses of memory."""
    if file.suffix == ".safetensors":
        content = file.read_bytes()
        size = int.from_bytes(content[:8], "little")
        header = json.dumps(json.loads(content[8 : 8 + size]), sort_keys=True).encode()
        header += b" " * (-len(header) % 8)
        file.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])
    elif file.name == "legacy.pth":
        # The address in memory by which torch calls the one storage.
        address = re.compile(rb"(?<=X\x0e\0\0\0)[0-9]{14}")
        file.write_bytes(address.sub(b"1" * 14, file.read_bytes()))
    elif file.suffix == ".json":
        began = re.compile(r'(?<="started": ")[^"]+')
        file.write_text(began.sub("2026-01-01T00:00:00+00:00", file.read_text()))


def _shown(value: Any) -> str:
    if isinstance(value, torch.Tensor | np.ndarray):
        return _shown(value.tolist())
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_shown(value[key])}' for key in sorted(value))}}}"
    return repr(value)


@contextmanager
def _quiet() -> Any:
    logging.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


class Malicious:
    """A pickle that would leave a file behind where it is read."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def with_code(folder: Path) -> Iterator[tuple[str, str]]:
    """Reads files with code in them: (which, what is wrong if something is)."""
    folder.mkdir()
    mark = folder / RAN
    for path, read in malicious(folder, mark):
        wrong = "read"
        try:
            with _quiet():
                read()
        except UserError as error:
            named = path.name in str(error) and "\n" not in str(error)
            wrong = "" if named else f"not one line that names the file: {error}"
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"
        yield path.name, "the code in it was run" if mark.exists() else wrong


def malicious(folder: Path, mark: Path) -> Sequence[tuple[Path, Callable[[], Any]]]:
    """Files with code in them, of every kind that is read as weights, and how each is read."""
    bad = Malicious(mark)
    for name in ("zip.pth", "zip.pt", "zip.tar"):
        torch.save({"state_dict": bad}, folder / name)
    torch.save(bad, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    (folder / "bare.pth").write_bytes(pickle.dumps(bad))
    np.savez(folder / "arrays.npz", weight=np.array([bad], dtype=object))
    np.save(folder / "array.npy", np.array([bad], dtype=object))
    (folder / "array.npy").rename(folder / "renamed.npz")
    (folder / "pickle.safetensors").write_bytes(pickle.dumps(bad))
    shutil.copy(folder / "zip.pth", folder / "zip.safetensors")
    shutil.copy(folder / "zip.pth", folder / "model.safetensors")
    shutil.copy(folder / "bare.pth", folder / "model.json")

    def published(path: Path) -> Callable[[], Any]:
        return lambda: load_published(path, "alexnet", _filled())

    files = [path for path in sorted(folder.iterdir()) if path.suffix != ".json"]
    found: list[tuple[Path, Callable[[], Any]]] = [(path, published(path)) for path in files]
    weights, model = folder / "model.safetensors", folder / "model.json"
    found.append((weights, lambda: load_weights(weights, _filled())))
    found.append((weights, lambda: load(folder, trust=True)))
    found.append((weights, lambda: energy.load(weights, _deployed().structure)))
    found.append((model, lambda: energy.load(model, _deployed().structure)))
    found.append((model, lambda: records.read(model, "budgets")))
    return found
