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
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter

import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn

from ecc import data, provenance
from ecc.data import photographs
from ecc.networks import Network
from ecc.tasks import CLASSIFICATION, Segmentation, Task
from ecc.training import Distillation, TrainingSettings, device_of, train

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


class RandomBatches:
    """New random images at every step, which no teacher has seen; `seconds` are those of steps."""

    def __init__(self, network: Network, batch: int):
        self.network, self.batch, self.classes = network, batch, network.classes
        dense_labels = network.architecture == "erfnet"
        self.task: Task = Segmentation((1.0,) * network.classes) if dense_labels else CLASSIFICATION
        self._labels = (batch, *network.size) if dense_labels else (batch,)
        self.seconds: list[float] = []

    def __len__(self) -> int:
        return self.batch

    def batches(
        self, batch_size: int, seed: int, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            images = torch.randn(batch_size, 3, *self.network.size)
            labels = torch.randint(self.classes, self._labels)
            begun = perf_counter()
            yield images, labels
            self.seconds.append(perf_counter() - begun)  # a step reads its loss: the GPU is done

    def ordered(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        return islice(self.batches(batch_size, 0), 1)


def round_of(model: nn.Module, network: Network, settings: TrainingSettings) -> tuple[float, float]:
    """Seconds of a step, and megabytes of a GPU at most."""
    split = RandomBatches(network, settings.batch_size)
    student, teacher = copy.deepcopy(model), copy.deepcopy(model)
    on_gpu = device_of(settings.device).type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    train(student, split, Distillation(teacher, split.task), settings, seed=0)
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else float("nan")
    return median(split.seconds[WARM_UP:]), peak


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
        rows.append(row | {"step_s": step_s, "peak_memory_mb": max(t[name][1] for t in rounds)})
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
