"""Images a second in training, with and without each setting that is to make it faster.

    python -m benchmarks.training_speed --network mobilenet --size 224 224 --batch 64
    python -m benchmarks.training_speed --network erfnet --size 512 1024 --batch 4 --compile
    python -m benchmarks.training_speed --network mobilenet --loading 0 1 2 4

Steps are those of `ecc.training.train`, with a dense network as teacher, as ECC and fine-tuning
take them, on random images. Every round takes each set of settings once, in turn, so that a machine
that slows down slows all of them; what a round takes is the median of its steps after the first
ones. Prints a table: images a second (median over rounds), the ratio to plain float32 (median over
rounds of the ratio within one), its smallest and largest, seconds a step, and on a GPU the peak
memory.

`--loading` reads photographs of 500x375 pixels from JPEG files instead, as training on ImageNet
does, with each number of workers: images a second without a network. One core a worker.
"""

import argparse
import copy
import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter

import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.timed import TimedSplit
from ecc import data, provenance, runs
from ecc.data import photographs
from ecc.networks import Network
from ecc.tasks import CLASSIFICATION, Segmentation, Task
from ecc.training import Distillation, TrainingSettings, train

WARM_UP = 3  # steps
PLAIN = "float32"
SETTINGS = {
    PLAIN: {"channels_last": False},
    "channels last": {"channels_last": True},
    "bfloat16": {"channels_last": False, "precision": "bfloat16"},
    "channels last, bfloat16": {"channels_last": True, "precision": "bfloat16"},
    "channels last, in 2 parts": {"channels_last": True, "accumulate": 2},
}
COMPILED = {
    "channels last, bfloat16, compiled": {**SETTINGS["channels last, bfloat16"], "compile": True}
}
PHOTOGRAPH, CLASSES_READ, EACH = (375, 500), 4, 64  # pixels; images in a class


def random_batches(network: Network, batch: int) -> TimedSplit:
    """New random images at every step, which no teacher has seen."""
    dense_labels = network.architecture == "erfnet"
    task: Task = Segmentation((1.0,) * network.classes) if dense_labels else CLASSIFICATION
    shape = (batch, *network.size) if dense_labels else (batch,)

    def draw() -> tuple[Tensor, Tensor]:
        return torch.randn(batch, 3, *network.size), torch.randint(network.classes, shape)

    return TimedSplit(network.classes, task, batch, draw, perf_counter)


def round_of(
    model: nn.Module, network: Network, settings: TrainingSettings
) -> tuple[float, float | None]:
    """Seconds of a step, and megabytes of a GPU at most, if there is one."""
    split = random_batches(network, settings.batch_size)
    student, teacher = copy.deepcopy(model), copy.deepcopy(model)
    started = runs.start()
    train(student, split, Distillation(teacher, split.task), settings, seed=0)
    return median(split.seconds[WARM_UP:]), runs.record(0, started)["peak_gpu_memory_mb"]


def trained(network: Network, given: argparse.Namespace) -> pd.DataFrame:
    """A row for each set of settings."""
    torch.manual_seed(0)
    model = network.build()
    chosen = {
        name: TrainingSettings(
            iterations=WARM_UP + given.steps + 1, batch_size=given.batch, device=given.device, **own
        )
        for name, own in (SETTINGS | (COMPILED if given.compile else {})).items()
    }
    rounds = [
        {name: round_of(model, network, settings) for name, settings in chosen.items()}
        for _ in range(given.rounds)
    ]
    rows = []
    for name in chosen:
        ratios = [taken[PLAIN][0] / taken[name][0] for taken in rounds]
        step_s = median(taken[name][0] for taken in rounds)
        row = {"settings": name, "images_per_second": given.batch / step_s}
        row |= {"ratio": median(ratios), "least": min(ratios), "most": max(ratios)}
        peaks = [peak for _, peak in (taken[name] for taken in rounds) if peak is not None]
        rows.append(row | {"step_s": step_s, "peak_gpu_memory_mb": max(peaks, default=None)})
    return pd.DataFrame(rows)


def loaded(size: tuple[int, int], batch: int, workers: Sequence[int], rounds: int) -> pd.DataFrame:
    """A row for each number of workers that read JPEG files."""
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        images = Path(temporary, "images")
        crops = photographs.crops(PHOTOGRAPH, CLASSES_READ * EACH, seed=0)
        for index, crop in enumerate((crops * 50 + 128).clamp(0, 255).byte()):
            path = images / str(index % CLASSES_READ) / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(crop.permute(1, 2, 0).numpy()).save(path, quality=90)
        prepared = Path(temporary, "prepared")
        settings = {"kind": "folder", "path": str(images), "classes": CLASSES_READ, "size": size[0]}
        data.prepare({**settings, "workers": 0}, prepared)
        for _ in range(rounds):
            for count in workers:
                split = data.load({**settings, "workers": count}, prepared).train
                batches = split.batches(batch, seed=0)
                next(batches)  # the workers have started
                begun = perf_counter()
                read = sum(len(labels) for _, labels in islice(batches, 8))
                rows.append(
                    {"workers": count, "images_per_second": read / (perf_counter() - begun)}
                )
    return pd.DataFrame(rows).groupby("workers", as_index=False).median()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="mobilenet", help="an architecture")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--size", type=int, nargs=2, default=(224, 224), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10, help="of a round, after the first ones")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1, help="of the processor")
    parser.add_argument("--compile", action="store_true", help="torch.compile, too")
    parser.add_argument("--loading", type=int, nargs="+", metavar="WORKERS")
    parser.add_argument("--output", type=Path, help="CSV file of the table")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    size = (given.size[0], given.size[1])
    if given.loading:
        table = loaded(size, given.batch, given.loading, given.rounds)
    else:
        table = trained(Network(given.network, given.classes, size=size), given)
    print(provenance.hardware(), f"{given.threads} threads")
    print(table.round(3).to_string(index=False))
    if given.output is not None:
        table.to_csv(given.output, index=False)


if __name__ == "__main__":
    main()
