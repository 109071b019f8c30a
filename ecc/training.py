"""The one training loop: dense training, every method's updates, fine-tuning.

Batch, augmentation and dropout of iteration i depend on the seed and i alone, so a training that
resumes from a checkpoint ends exactly as one that was never interrupted.
"""

import hashlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, cast
from weakref import WeakKeyDictionary

import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Adam, Optimizer
from tqdm import tqdm

from ecc import checkpoints, parallel, processors, runs, stopping
from ecc.channels import is_depthwise
from ecc.checkpoints import read_tensors
from ecc.errors import DivergedError, UserError
from ecc.memory import at_once
from ecc.optimizer import EagerAdam
from ecc.tasks import Task

logger = logging.getLogger(__name__)


class Split(Protocol):
    """Images of one split: what training and evaluation need of a dataset."""

    classes: int
    task: Task

    def __len__(self) -> int: ...

    def batches(
        self, batch_size: int, seed: int, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless shuffled, augmented batches, the first being number `start`."""

    def ordered(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once, in a fixed order, not augmented."""


@dataclass(frozen=True)
class TrainingSettings:
    """How to train; weight decay spares depthwise kernels, as in the ECC paper.

    `schedule`: "constant", "cosine" (decay to zero) or "onecycle" (linear rise over the first
    tenth, then cosine decay). `checkpoint_every` iterations a checkpoint is written, if one is
    asked for. `device`: "auto" takes a GPU where there is one. `precision`: "float32", or
    "bfloat16" for what autocast computes in it; weights, their moments and energies stay as they
    are. A batch goes through the network in `accumulate` parts, whose gradients add up to the
    batch's where its loss is a mean over images (of segmentation, nearly: it is one over weighted
    pixels); batch norms see the parts. So they do where `processes` share the batch, each in as
    many parts (`ecc.parallel.launch`). `compile` is torch.compile, of the network that trains.
    """

    iterations: int
    batch_size: int = 128
    learning_rate: float = 1e-5
    weight_decay: float = 1e-4
    schedule: str = "constant"
    dropout: bool = False
    channels_last: bool = True
    device: str = "auto"
    checkpoint_every: int = 1000
    precision: str = "float32"
    accumulate: int = 1
    processes: int = 1
    compile: bool = False

    @property
    def deciding(self) -> dict[str, Any]:
        """Those that decide a result: a run may go on with others of the rest."""
        rest = ("device", "checkpoint_every")
        return {key: value for key, value in asdict(self).items() if key not in rest}


Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


class Update(Protocol):
    """A method's own update of the weights, called after each step of the optimizer.

    Its `repr` names the settings that decide what it does: a checkpoint of others is not used.
    """

    def __call__(self, iteration: int, optimizer: Optimizer) -> dict[str, float]:
        """Returns what the history should hold of this iteration."""

    def state(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs, besides weights and optimizer."""

    def restore(self, state: dict[str, Tensor]) -> None: ...


class TaskLoss:
    """The task's own loss of a network's logits."""

    def __init__(self, task: Task):
        self.task = task

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return self.task.loss(model(images), labels)


class Distillation:
    """0.5 MSE of the logits to the teacher's + 0.5 the task's own loss (ECC, Section 4.1).

    The teacher is the dense network in evaluation mode.
    """

    def __init__(self, teacher: nn.Module, task: Task):
        self.teacher, self.task = teacher.eval(), task

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        if next(self.teacher.parameters()).device != images.device:
            self.teacher.to(images.device)
        target = self._taught(images)
        logits = model(images)
        return 0.5 * functional.mse_loss(logits, target) + 0.5 * self.task.loss(logits, labels)

    @torch.no_grad()
    def _taught(self, images: Tensor) -> Tensor:
        """The teacher's logits; those of small batches on a processor are remembered.

        The runs of a job and the candidates of NetAdapt see the same batches again and again.
        """
        if images.device.type != "cpu" or images.nbytes > REMEMBERED_IMAGES:
            return cast(Tensor, self.teacher(images))
        known = _taught.setdefault(self.teacher, {})
        key = (
            hashlib.sha1(images.contiguous().numpy().data).digest(),
            images.stride(),
            torch.is_autocast_enabled("cpu"),
            sum(parameter._version for parameter in self.teacher.parameters()),
        )
        if key in known:
            return known[key]
        logits = cast(Tensor, self.teacher(images))
        if sum(each.nbytes for each in known.values()) + logits.nbytes <= REMEMBERED_LOGITS:
            known[key] = logits
        return logits


# Bytes of a batch whose logits are remembered, and of all logits of one teacher.
REMEMBERED_IMAGES, REMEMBERED_LOGITS = 2**23, 2**28
_taught: WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], Tensor]] = WeakKeyDictionary()


def device_of(name: str) -> torch.device:
    """The torch device of a setting; raises UserError where it is absent."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and parallel.place()[1] > 1:
        name = f"cuda:{parallel.place()[0]}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device '{name}' cannot be used ({reason}): set auto or cpu") from error
    return device


def train(
    model: nn.Module,
    split: Split,
    loss: Loss,
    settings: TrainingSettings,
    *,
    seed: int,
    optimizer: Optimizer | None = None,
    update: Update | None = None,
    checkpoint: Path | None = None,
    description: str = "training",
) -> pd.DataFrame:
    """Trains `model` in place; returns the history, one row an iteration.

    `optimizer` (fresh Adam by default) is one of this model that carries its moments on.
    With `checkpoint`, a run that was killed resumes from there; one that belongs to other
    settings, or to other code, is not used. The last one stays: whoever has written the results
    removes it.
    Raises UserError where the loss is not finite or the checkpoint is broken.
    """
    device = device_of(settings.device)
    memory_format = processors.layout(model, settings.channels_last, device)
    model.to(device).to(memory_format=memory_format)
    if (parts := settings.accumulate * settings.processes) > settings.batch_size:
        raise UserError(
            f"accumulate: {parts} parts of a batch of {settings.batch_size}: a part needs an image"
        )
    optimizer = adam(model, settings) if optimizer is None else optimizer
    history: list[dict[str, float]] = []
    run = _Run(model, optimizer, update, history)
    if checkpoint is not None:
        run.fingerprint = _fingerprint(model, optimizer, split, loss, settings, seed, update)
        run.restore(checkpoint)
    batches = split.batches(settings.batch_size, seed, start=len(history))
    if settings.compile:
        torch.compiler.reset()  # of each forward pass torch compiles eight networks, and then none
    called: nn.Module = torch.compile(model) if settings.compile else model  # type: ignore[assignment]
    progress = _Progress(len(history), settings.iterations, description)
    with stopping.deferred(checkpoint is not None), processors.padded_beforehand(model, device):
        for iteration in range(len(history), settings.iterations):
            # One seed an iteration: a resumed run draws the same augmentation and dropout.
            torch.manual_seed(seed * 1_000_003 + iteration)
            images, labels = next(batches)
            images = images.to(device, memory_format=memory_format, non_blocking=True)
            labels = labels.to(device, non_blocking=True)
            model.train()
            if not settings.dropout:
                _silence_dropout(model)
            learning_rate = settings.learning_rate * schedule(settings, iteration)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.zero_grad(set_to_none=True)
            value = _backward(loss, called, images, labels, settings)
            optimizer.step()
            parallel.level(model)
            row = {"iteration": float(iteration), "loss": value, "learning_rate": learning_rate}
            if not math.isfinite(row["loss"]):
                raise DivergedError(
                    f"{description}: the loss is {row['loss']} at iteration {iteration}; "
                    f"lower learning_rate ({settings.learning_rate})"
                )
            history.append(row | (update(iteration, optimizer) if update else {}))
            progress.step(row["loss"])
            done, every = iteration + 1, settings.checkpoint_every
            last = done == settings.iterations > every  # what follows may be killed as well
            if checkpoint is not None:
                if (asked := parallel.asked()) or done % every == 0 or last:
                    run.save(checkpoint)
                if asked:
                    parallel.leave()
    progress.close()
    columns = None if history else ["iteration", "loss", "learning_rate"]
    return pd.DataFrame(history, columns=columns).astype({"iteration": int})


def _backward(
    loss: Loss, model: nn.Module, images: Tensor, labels: Tensor, settings: TrainingSettings
) -> float:
    """Adds the gradients of a batch, part by part; returns its loss."""
    total = 0.0
    half = settings.precision == "bfloat16"
    parts, own_labels = (parallel.own_parts(t, settings.accumulate) for t in (images, labels))
    for part, own in zip(parts, own_labels, strict=True):
        with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
            value = loss(model, part, own) * (len(part) / len(images))
        value.backward()  # type: ignore[no-untyped-call]
        total += value.item()
    return parallel.add_up(model, total)


@torch.no_grad()
def evaluate(model: nn.Module, split: Split, batch_size: int = 256, device: str = "auto") -> float:
    """Score of `model` over the whole split, a fraction: top-1 accuracy or mean IoU."""
    target = device_of(device)
    first = next(model.parameters(), None)  # parameters are never on several devices
    if first is not None and first.device != target:  # for a small network `to` is slow
        model.to(target)
    model.eval()  # of all modules: single ones may be in training, whatever the network is
    return split.task.score(
        # Of many pixels `max` finds the places three times as fast as `argmax`.
        (model(images.to(target, non_blocking=True)).max(dim=1).indices.cpu(), labels.cpu())
        for images, labels in split.ordered(batch_size)
    )


@torch.no_grad()
def calibrate(model: nn.Module, batches: list[Tensor], device: torch.device) -> None:
    """Replaces batch-norm statistics by the means over batches of images."""
    normalisations = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    if not batches or not normalisations:
        return
    model.to(device).eval()
    momenta = [m.momentum for m in normalisations]
    for m in normalisations:
        m.reset_running_stats()
        m.momentum = None  # torch's mean over all batches
        m.train()
    for images in batches:
        for part in images.split(at_once(images.shape[-2:])):  # type: ignore[no-untyped-call]
            model(part.to(device))
    for m, momentum in zip(normalisations, momenta, strict=True):
        m.momentum = momentum
        m.eval()


def adam(model: nn.Module, settings: TrainingSettings) -> Adam:
    """Adam with default betas; depthwise kernels are spared from weight decay."""
    spared = {id(m.weight) for m in model.modules() if is_depthwise(m)}
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if id(p) not in spared]},
        {"params": [p for p in parameters if id(p) in spared], "weight_decay": 0.0},
    ]
    kind = Adam if settings.compile else EagerAdam
    return kind(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def schedule(settings: TrainingSettings, iteration: int) -> float:
    """Factor of the learning rate at an iteration."""
    done = iteration / settings.iterations
    if settings.schedule == "constant":
        return 1.0
    if settings.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    if settings.schedule == "onecycle":
        rise = 0.1
        falling = 0.5 * (1 + math.cos(math.pi * (done - rise) / (1 - rise)))
        return (iteration + 1) / (rise * settings.iterations + 1) if done < rise else falling
    raise UserError(f"schedule '{settings.schedule}': known are constant, cosine, onecycle")


def save_weights(path: Path, model: nn.Module) -> None:
    """Writes the state of `model` as safetensors."""
    with runs.temporary(path) as draft:
        save_file({k: v.contiguous().cpu() for k, v in model.state_dict().items()}, draft)


def load_weights(path: Path, model: nn.Module) -> nn.Module:
    """Fills `model` from safetensors; raises UserError for a broken file or another network."""
    tensors, _ = read_tensors(path)
    refuse_wrong(path, tensors, model)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"{path} belongs to another network: {reason}") from error
    return model


def refuse_wrong(path: Path, tensors: Mapping[str, Tensor], model: nn.Module) -> None:
    """Raises UserError for weights that are no numbers, or whole ones where `model` has others."""
    for name, tensor in model.state_dict().items():
        if name in tensors:
            if tensors[name].is_floating_point() != tensor.is_floating_point():
                raise UserError(f"{path}: {name} is of {tensors[name].dtype}, not {tensor.dtype}")
            if not tensors[name].isfinite().all():
                raise UserError(f"{path}: {name} is not finite: delete it and run again")


class _Run:
    """The state of a training run, as it goes into a checkpoint and comes back."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        update: Update | None,
        history: list[dict[str, float]],
    ):
        self.model, self.optimizer, self.update = model, optimizer, update
        self.history, self.fingerprint = history, ""

    def save(self, path: Path) -> None:
        tensors = pack(self.model, self.optimizer)
        if self.update is not None:
            tensors |= {f"update.{k}": v for k, v in self.update.state().items()}
        checkpoints.write(path, self.fingerprint, self.history, tensors)

    def restore(self, path: Path) -> None:
        if saved := checkpoints.read(path, self.fingerprint, "the training"):
            history, tensors = saved
            unpack(self.model, self.optimizer, tensors)
            if self.update is not None:
                self.update.restore(_part("update", tensors))
            self.history += history


def pack(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Weights and moments, by names that begin with `model.` and `optimizer.`."""
    state = optimizer.state_dict()["state"]
    moments = {f"optimizer.{i}.{k}": v for i, entry in state.items() for k, v in entry.items()}
    return {f"model.{k}": v for k, v in model.state_dict().items()} | moments


def unpack(model: nn.Module, optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Puts back what `pack` took from a model and an optimizer like these."""
    model.load_state_dict(_part("model", tensors))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in _part("optimizer", tensors).items():
        index, name = key.split(".", 1)
        # Moments in their parameter's memory format: fused Adam walks through both side by side.
        like = torch.empty_like(parameters[int(index)]) if tensor.dim() else torch.empty(())
        state.setdefault(int(index), {})[name] = like.copy_(tensor)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _part(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{name}."
    return {key[len(start) :]: each for key, each in tensors.items() if key.startswith(start)}


class _Progress:
    """A bar on a terminal; a plain line now and then where there is none."""

    SECONDS = 10.0

    def __init__(self, start: int, total: int, description: str):
        self.bar = tqdm(initial=start, total=total, desc=description, disable=None, leave=False)
        self.done, self.total, self.description = start, total, description
        self.begun = self.said = time.monotonic()

    def step(self, loss: float) -> None:
        self.done += 1
        if not self.bar.disable:
            self.bar.update()
            self.bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        elif (now := time.monotonic()) - self.said >= self.SECONDS:
            self.said = now
            progress = f"{self.done}/{self.total}, loss {loss:.3f}, {now - self.begun:.0f} s"
            logger.info("%s: %s", self.description, progress)

    def close(self) -> None:
        self.bar.close()


def _silence_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()


def _fingerprint(
    model: nn.Module,
    optimizer: Optimizer,
    split: Split,
    loss: Loss,
    settings: TrainingSettings,
    seed: int,
    update: Update | None,
) -> str:
    """Of everything that decides a training: a checkpoint of another one must not be used."""
    data, networks = identity_of_split(split), (checkpoints.identity(model), identity_of_loss(loss))
    told = checkpoints.LIBRARY, settings.deciding, seed, data, repr(update), networks
    return checkpoints.digest(told, pack(model, optimizer))


def identity_of_split(split: Split) -> tuple[int, Task, str]:
    """Its length and task, and what its images are, where it says so."""
    return len(split), split.task, getattr(split, "fingerprint", "")


def identity_of_loss(loss: Loss) -> list[str]:
    """Its name, and what the networks that it holds compute: a teacher."""
    held = [each for each in getattr(loss, "__dict__", {}).values() if isinstance(each, nn.Module)]
    name = getattr(loss, "__qualname__", type(loss).__name__)
    return [name, *map(checkpoints.identity, held)]
