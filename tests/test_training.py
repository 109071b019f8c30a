"""Training: resumed equals uninterrupted, losses equal their formulas, broken files are named."""

import copy
import importlib
import itertools
import json
import math
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import pytest
import torch
from conftest import MemorySplit
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from ecc import checkpoints, runs, sources, training
from ecc.channels import is_depthwise
from ecc.errors import UserError
from ecc.methods.ecc import Settings, Solver
from ecc.optimizer import EagerAdam
from ecc.tasks import CLASSIFICATION
from ecc.training import (
    Distillation,
    TaskLoss,
    TrainingSettings,
    adam,
    calibrate,
    device_of,
    evaluate,
    load_weights,
    save_weights,
    schedule,
    train,
)

ROOT = Path(__file__).parents[1]
cross_entropy = TaskLoss(CLASSIFICATION)


def same_weights(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class KilledError(Exception):
    """The end of a process, as far as a test can have it."""


class KilledAt:
    """An update that dies at an iteration, another update's work being done before."""

    def __init__(self, fatal, inner=None):
        self.fatal, self.inner = fatal, inner

    def __repr__(self):
        return f"KilledAt({self.inner!r})"  # the same for the run that dies and that which resumes

    def __call__(self, iteration, optimizer):
        if iteration == self.fatal:
            raise KilledError
        return self.inner(iteration, optimizer) if self.inner else {}

    def state(self):
        return self.inner.state() if self.inner else {}

    def restore(self, state):
        if self.inner:
            self.inner.restore(state)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("fatal", [5, 8, 11])
def test_resumed_equals_uninterrupted(
    tiny_network, memory_split, training_settings, tmp_path, channels_last, fatal
):
    settings = training_settings(
        dropout=True, schedule="cosine", checkpoint_every=4, channels_last=channels_last
    )
    checkpoint = tmp_path / "checkpoint.safetensors"
    whole = tiny_network()
    lives = KilledAt(None)
    expected = train(whole, memory_split(), cross_entropy, settings, seed=3, update=lives)
    killed, split = tiny_network(), memory_split()
    with pytest.raises(KilledError):
        train(
            killed,
            split,
            cross_entropy,
            settings,
            seed=3,
            update=KilledAt(fatal),
            checkpoint=checkpoint,
        )
    resumed, split = tiny_network(), memory_split()
    history = train(
        resumed, split, cross_entropy, settings, seed=3, update=lives, checkpoint=checkpoint
    )
    assert split.asked["batches"] == 12 - fatal // 4 * 4
    assert history.equals(expected)
    assert same_weights(resumed, whole)
    assert checkpoint.exists()  # until what follows the training is written, too
    runs.finished(checkpoint)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("pace", ["automatic", "fixed"])
@pytest.mark.parametrize("fatal", [21, 53])
def test_resumed_equals_uninterrupted_with_the_solver(
    tiny_problem, training_settings, tmp_path, pace, fatal
):
    problem = tiny_problem(
        0.6,
        training=training_settings(
            iterations=60, dropout=True, checkpoint_every=10, channels_last=False
        ),
    )
    checkpoint = tmp_path / "checkpoint.safetensors"

    def run(fatal=None, checkpoint=None):
        model = problem.student()
        solver = Solver(problem, model, Settings(pace=pace, beta=0.2))
        history = train(
            model,
            problem.train,
            problem.distillation(),
            problem.training,
            seed=0,
            update=KilledAt(fatal, solver),
            checkpoint=checkpoint,
        )
        return model, history, solver.finish()

    whole, expected, keep = run()
    with pytest.raises(KilledError):
        run(fatal, checkpoint)
    resumed, history, resumed_keep = run(None, checkpoint)
    assert history.equals(expected)
    assert same_weights(resumed, whole)
    assert all(torch.equal(a, b) for a, b in zip(resumed_keep, keep, strict=True))


def left_behind(tiny_network, memory_split, settings, path, seed=3):
    """A checkpoint of a training that died."""
    with pytest.raises(KilledError):
        train(
            tiny_network(),
            memory_split(),
            cross_entropy,
            settings,
            seed=seed,
            update=KilledAt(9),
            checkpoint=path,
        )
    assert path.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 1e-3},
        {"iterations": 13},
        {"batch_size": 4},
        {"weight_decay": 0.0},
        {"schedule": "cosine"},
        {"seed": 4},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_checkpoint_of_other_settings_is_not_used(
    tiny_network, memory_split, training_settings, tmp_path, changes
):
    path = tmp_path / "checkpoint.safetensors"
    settings = training_settings(checkpoint_every=4)
    left_behind(tiny_network, memory_split, settings, path)
    seed = changes.get("seed", 3)
    settings = replace(settings, **{key: changes[key] for key in changes if key != "seed"})
    fresh, model = tiny_network(), tiny_network()
    expected = train(fresh, memory_split(), cross_entropy, settings, seed=seed)
    lives = KilledAt(None)
    history = train(
        model, memory_split(), cross_entropy, settings, seed=seed, update=lives, checkpoint=path
    )
    assert history.equals(expected)
    assert same_weights(model, fresh)


@pytest.mark.parametrize("changed", ["rho1", "budget", "energy"])
def test_checkpoint_of_another_compression_is_not_used(tiny_problem, tmp_path, changed):
    problem = tiny_problem(0.6, iterations=30)
    problem = replace(problem, training=replace(problem.training, checkpoint_every=10))
    path = tmp_path / "checkpoint.safetensors"

    def run(problem, settings, checkpoint=None, fatal=None):
        model = problem.student()
        update = KilledAt(fatal, Solver(problem, model, settings))
        loss = problem.distillation()
        return train(
            model,
            problem.train,
            loss,
            problem.training,
            seed=0,
            update=update,
            checkpoint=checkpoint,
        )

    with pytest.raises(KilledError):
        run(problem, Settings(), path, fatal=15)
    settings = Settings(rho1=1.0) if changed == "rho1" else Settings()
    if changed == "budget":
        problem = replace(problem, budget_j=problem.budget_j * 0.9)
    if changed == "energy":
        dearer = 1.1 * problem.energy.coefficients_j
        problem = replace(problem, energy=replace(problem.energy, coefficients_j=dearer))
    assert run(problem, settings, path).equals(run(problem, settings))


def test_checkpoint_of_other_initial_weights_is_not_used(
    tiny_network, memory_split, training_settings, tmp_path
):
    path = tmp_path / "checkpoint.safetensors"
    settings = training_settings(checkpoint_every=4)
    left_behind(tiny_network, memory_split, settings, path)
    split, lives = memory_split(), KilledAt(None)
    train(tiny_network(1), split, cross_entropy, settings, seed=3, update=lives, checkpoint=path)
    assert split.asked["batches"] == 12


def momentum(split, model, loss, monkeypatch):
    model.layers[1].momentum = 0.0003


def dropout(split, model, loss, monkeypatch):
    model.layers[12].p = 0.1


def setting(split, model, loss, monkeypatch):
    model.scale = 2.0


def forward(split, model, loss, monkeypatch):
    model.layers[2] = nn.ReLU6()


def teacher(split, model, loss, monkeypatch):
    next(loss.teacher.parameters()).data.mul_(2)


def moments(split, model, loss, monkeypatch):
    return {"optimizer": stepped(model)}


def data(split, model, loss, monkeypatch):
    split.fingerprint = "other images"


def library(split, model, loss, monkeypatch):
    monkeypatch.setattr(checkpoints, "LIBRARY", "of an edited file")


def stepped(model):
    """An optimizer that carries moments."""
    optimizer = training.adam(model, TrainingSettings(1))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = copy.deepcopy(model.state_dict())
    optimizer.step()
    model.load_state_dict(before)
    return optimizer


OTHERS = [momentum, dropout, setting, forward, teacher, moments, data, library]


@pytest.mark.parametrize("other", [*OTHERS, None], ids=lambda other: getattr(other, "__name__", ""))
def test_checkpoint_of_what_computes_something_else_is_not_used(
    tiny_network, training_settings, tmp_path, monkeypatch, caplog, other
):
    settings = training_settings(checkpoint_every=4)

    def run(change=None, fatal=None):
        split, model, loss = (
            MemorySplit(),
            tiny_network(),
            Distillation(tiny_network(1), CLASSIFICATION),
        )
        given = change(split, model, loss, monkeypatch) if change else None
        lives, path = KilledAt(fatal), tmp_path / "checkpoint.safetensors"
        train(model, split, loss, settings, seed=3, update=lives, checkpoint=path, **(given or {}))
        return split.asked["batches"]

    with pytest.raises(KilledError):
        run(fatal=9)
    assert run(other) == (12 if other else 4)
    assert ("checkpoint.safetensors belongs to other settings or code" in caplog.text) is bool(
        other
    )


def test_the_sources_of_a_network_of_the_users_own_are_part_of_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_net").mkdir()
    module, helper = tmp_path / "own_net" / "__init__.py", tmp_path / "own_helper.py"
    helper.write_text("def twice(images):\n    return 2 * images\n")
    module.write_text(
        "from torch import nn\nfrom own_helper import twice\n"
        "class Net(nn.Flatten):\n    def forward(self, images):\n        return twice(images)\n"
    )
    network = importlib.import_module("own_net").Net()
    before = checkpoints.identity(network)
    assert checkpoints.identity(network.train()) == before
    sources._checksum.cache_clear()  # once a process is enough for what it has imported
    helper.write_text("def twice(images):\n    return 3 * images\n")
    assert checkpoints.identity(network) != before


def test_an_edited_source_of_the_library_is_told_apart(tmp_path):
    """All but what shows results, which decides none."""
    shutil.copytree(ROOT / "ecc", tmp_path / "ecc", ignore=shutil.ignore_patterns("__pycache__"))

    def told():
        code = "from ecc import sources; print(sources.library(), sources.__file__)"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        digest, file = done.stdout.split()
        assert Path(file).is_relative_to(tmp_path)
        return digest

    def edit(name):
        file = tmp_path / "ecc" / name
        file.write_text(file.read_text() + "\n")

    assert (before := told()) == checkpoints.LIBRARY
    edit("evidence/figures.py")
    assert told() == before
    edit("networks/mobilenet.py")
    assert told() != before


def missing(metadata, tensors):
    del tensors["optimizer.0.exp_avg"]


def not_finite(metadata, tensors):
    tensors["model.layers.0.weight"][0] = math.nan


def sign(metadata, tensors):
    tensors["model.layers.0.weight"][0, 0, 0, 0] *= -1


def whole_numbers(metadata, tensors):
    tensors["history"] = tensors["history"].to(torch.int64)


def columns(metadata, tensors):
    metadata["columns"] = '["loss", "iteration", "learning_rate"]'


def no_checksum(metadata, tensors):
    del metadata["sha256"]


@pytest.mark.parametrize("damage", [missing, not_finite, sign, whole_numbers, columns, no_checksum])
def test_a_checkpoint_with_other_content_is_damaged(
    tiny_network, memory_split, training_settings, tmp_path, damage
):
    path, settings = tmp_path / "checkpoint.safetensors", training_settings(checkpoint_every=4)
    left_behind(tiny_network, memory_split, settings, path)
    tensors, metadata = checkpoints.read_tensors(path)
    damage(metadata, tensors)
    save_file(tensors, path, metadata)
    model, lives = tiny_network(), KilledAt(None)
    with pytest.raises(UserError, match=r"checkpoint\.safetensors is damaged: delete it"):
        train(model, memory_split(), cross_entropy, settings, seed=3, update=lives, checkpoint=path)
    assert same_weights(model, tiny_network())


def test_device_and_checkpoint_interval_may_change_on_resuming(
    tiny_network, memory_split, training_settings, tmp_path
):
    path = tmp_path / "checkpoint.safetensors"
    settings = training_settings(checkpoint_every=4, channels_last=False)
    left_behind(tiny_network, memory_split, settings, path)
    split = memory_split()
    settings = replace(settings, checkpoint_every=100, device="auto")
    lives = KilledAt(None)
    train(tiny_network(), split, cross_entropy, settings, seed=3, update=lives, checkpoint=path)
    assert split.asked["batches"] == 4


@pytest.mark.parametrize("size", [0, 6, 300, -10])
def test_truncated_checkpoint_is_named(
    tiny_network, memory_split, training_settings, tmp_path, size
):
    path = tmp_path / "checkpoint.safetensors"
    settings = training_settings(checkpoint_every=4)
    left_behind(tiny_network, memory_split, settings, path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=r"checkpoint\.safetensors is truncated") as raised:
        train(
            tiny_network(),
            memory_split(),
            cross_entropy,
            settings,
            seed=3,
            update=KilledAt(None),
            checkpoint=path,
        )
    assert "\n" not in str(raised.value)


def test_header_of_a_checkpoint_does_not_grow_with_the_history(
    tiny_network, memory_split, training_settings, tmp_path
):
    """Safetensors refuses headers above 100 MB, which is 1,000 bytes an iteration at 100,000."""

    def header(iterations):
        path = tmp_path / f"{iterations}.safetensors"
        settings = training_settings(iterations=iterations + 2, checkpoint_every=iterations)
        with pytest.raises(KilledError):
            train(
                tiny_network(),
                memory_split(),
                cross_entropy,
                settings,
                seed=0,
                update=KilledAt(iterations),
                checkpoint=path,
            )
        return struct.unpack("<Q", path.read_bytes()[:8])[0]

    assert header(60) - header(10) < 100


def test_loss_that_is_not_finite_names_the_learning_rate(
    tiny_network, memory_split, training_settings
):
    def nan(model, images, labels):
        return cross_entropy(model, images, labels) * float("nan")

    with pytest.raises(UserError, match=r"digits: the loss is nan at .* learning_rate \(0.005\)"):
        train(
            tiny_network(), memory_split(), nan, training_settings(), seed=0, description="digits"
        )
    diverging = training_settings(learning_rate=1e30, iterations=50)
    with pytest.raises(UserError, match="lower learning_rate"):
        train(tiny_network(), memory_split(), cross_entropy, diverging, seed=0)


def test_same_seed_same_weights_other_seed_others(tiny_network, memory_split, training_settings):
    def trained(seed):
        model = tiny_network()
        settings = training_settings(dropout=True)
        train(model, memory_split(), cross_entropy, settings, seed=seed)
        return model

    assert same_weights(trained(1), trained(1))
    assert not same_weights(trained(1), trained(2))


def test_dropout_is_silent_unless_asked_for(tiny_network, memory_split, training_settings):
    seen = []

    def watched(model, images, labels):
        seen.append([m.training for m in model.modules() if isinstance(m, nn.Dropout)])
        assert model.layers[1].training
        return cross_entropy(model, images, labels)

    for dropout in (False, True):
        settings = training_settings(iterations=1, dropout=dropout)
        train(tiny_network(), memory_split(), watched, settings, seed=0)
    assert seen == [[False], [True]]


def test_distillation_is_its_formula(tiny_network, memory_split):
    teacher, student = tiny_network(0), tiny_network(1).eval()
    images, labels = next(memory_split().batches(16, 0))
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    loss = Distillation(teacher, CLASSIFICATION)(student, images, labels)
    with torch.no_grad():
        target, logits = teacher.eval()(images), student(images)
    squares = ((logits - target) ** 2).sum() / logits.numel()
    entropy = -logits.log_softmax(1)[torch.arange(16), labels].mean()
    assert loss.item() == pytest.approx(float(0.5 * squares + 0.5 * entropy), rel=1e-5)
    # The teacher learns nothing, not even the statistics of its batch norms.
    loss.backward()
    assert all(torch.equal(before[name], t) for name, t in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert any(parameter.grad is not None for parameter in student.parameters())


def test_teacher_follows_the_images_to_their_device(tiny_network):
    """The "meta" device stands for an accelerator: it too refuses tensors of another device."""
    loss, student = Distillation(tiny_network(0), CLASSIFICATION), tiny_network(1).to("meta")
    images, labels = torch.empty(4, 3, 8, 8, device="meta"), torch.zeros(4, dtype=torch.long)
    assert loss(student, images, labels.to("meta")).device.type == "meta"


def test_cross_entropy_is_its_formula(tiny_network, memory_split):
    model = tiny_network().eval()
    images, labels = next(memory_split().batches(16, 0))
    expected = functional.cross_entropy(model(images), labels)
    assert cross_entropy(model, images, labels).item() == expected.item()


def test_weight_decay_spares_depthwise_kernels(tiny_network, training_settings):
    model = tiny_network()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    optimizer = adam(model, training_settings(weight_decay=0.1))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    decayed = {
        name for name, parameter in model.named_parameters() if not parameter.equal(before[name])
    }
    kernels = {f"{name}.weight" for name, m in model.named_modules() if is_depthwise(m)}
    # Adam's step has the sign of the decay; biases that are zero (batch norms') stay.
    zero = {name for name, value in before.items() if not value.any()}
    assert len(kernels) == 1
    assert decayed == set(before) - kernels - zero


def test_schedules_begin_and_end_where_they_should():
    def factors(name, iterations=1000):
        settings = TrainingSettings(iterations=iterations, schedule=name)
        return np.array([schedule(settings, i) for i in range(iterations)])

    assert set(factors("constant")) == {1.0}
    cosine, onecycle = factors("cosine"), factors("onecycle")
    assert cosine[0] == 1
    assert (np.diff(cosine) < 0).all()
    assert cosine[500] == pytest.approx(0.5)
    assert 0 < cosine[-1] < 1e-4
    assert 0 < onecycle[0] < 0.02
    assert onecycle.argmax() == 100
    assert onecycle.max() == 1
    assert (np.diff(onecycle[:101]) > 0).all()
    assert (np.diff(onecycle[100:]) < 0).all()
    assert 0 < onecycle[-1] < 1e-4
    assert all(0 < factor <= 1 for factor in factors("onecycle", 3))


def test_learning_rate_follows_the_schedule(tiny_network, memory_split, training_settings):
    settings = training_settings(schedule="cosine")
    history = train(tiny_network(), memory_split(), cross_entropy, settings, seed=0)
    assert history["iteration"].tolist() == list(range(12))
    expected = [5e-3 * 0.5 * (1 + math.cos(math.pi * i / 12)) for i in range(12)]
    assert history["learning_rate"].tolist() == pytest.approx(expected)


def test_unknown_schedule_is_refused(tiny_network, memory_split, training_settings):
    settings = training_settings(schedule="linear")
    with pytest.raises(UserError, match="'linear': known are constant, cosine, onecycle"):
        train(tiny_network(), memory_split(), cross_entropy, settings, seed=0)


def test_evaluate_and_calibrate_leave_no_module_in_training(memory_split):
    split = memory_split(count=10)
    model = nn.Sequential(
        nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(3)
    )
    model.eval()(split.images)
    calibrate(model, [split.images], torch.device("cpu"))
    assert not any(module.training for module in model.modules())
    model[0].train()  # alone: the network itself says that it is not in training
    before = model[0].running_mean.clone()
    evaluate(model, split, device="cpu")
    assert not model[0].training
    assert model[0].running_mean.equal(before)


def test_evaluate_counts_the_last_partial_batch(memory_split):
    split = memory_split(count=10)
    answers = split.labels.clone()
    answers[8:] = (answers[8:] + 1) % split.classes  # wrong in the last, partial batch alone

    class Told(nn.Module):
        def forward(self, images):
            assert not self.training
            rows = [next(i for i, x in enumerate(split.images) if x.equal(y)) for y in images]
            return functional.one_hot(answers[rows], split.classes).float()

    for batch_size in (4, 10, 100):
        assert evaluate(Told(), split, batch_size=batch_size) == 0.8


def test_weights_are_saved_and_loaded(tiny_network, tmp_path):
    path = tmp_path / "weights.safetensors"
    model = tiny_network(0).to(memory_format=torch.channels_last)
    save_weights(path, model)
    loaded = load_weights(path, tiny_network(1))
    assert same_weights(loaded, model)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("content", ["truncated", "empty", "text", "absent", "other"])
def test_weights_that_do_not_fit_are_named(tiny_network, tmp_path, content):
    path = tmp_path / "weights.safetensors"
    save_weights(path, nn.Linear(3, 2) if content == "other" else tiny_network())
    if content == "truncated":
        path.write_bytes(path.read_bytes()[:-5])
    elif content == "empty":
        path.write_bytes(b"")
    elif content == "text":
        path.write_text(json.dumps({"not": "weights"}))
    elif content == "absent":
        path.unlink()
    named = "belongs to another network" if content == "other" else "truncated or not"
    with pytest.raises(UserError, match=rf"weights\.safetensors.*{named}|weights.*{named}") as e:
        load_weights(path, tiny_network())
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["tpu7", "cuda:99"])
def test_device_that_is_absent_is_named(name):
    with pytest.raises(UserError, match=f"device '{name}'") as raised:
        device_of(name)
    assert "\n" not in str(raised.value)


class Plain(nn.Sequential):
    """No batch norms, so that parts of a batch add up to the batch."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 4))


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_parts_of_a_batch_add_up_to_the_batch(memory_split, training_settings, parts):
    """3 does not divide 8: parts weigh as many images as they have."""
    whole, divided = Plain().double(), Plain().double()
    split = memory_split()
    split.images = split.images.double()
    histories = [
        train(model, split, cross_entropy, training_settings(accumulate=count), seed=1)
        for model, count in ((whole, 1), (divided, parts))
    ]
    for one, other in zip(whole.parameters(), divided.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-9)
    np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], rtol=1e-9)


def test_more_parts_than_images_are_refused(tiny_network, memory_split, training_settings):
    with pytest.raises(UserError, match="accumulate: 9 parts of a batch of 8"):
        train(
            tiny_network(), memory_split(), cross_entropy, training_settings(accumulate=9), seed=0
        )


def test_bfloat16_computes_in_it_and_keeps_weights_in_float32(
    tiny_network, memory_split, training_settings
):
    seen = []
    exact, half = tiny_network(), tiny_network()
    half.layers[0].register_forward_hook(lambda layer, given, output: seen.append(output.dtype))
    settings = training_settings(iterations=30)
    histories = [
        train(model, memory_split(), cross_entropy, replace(settings, precision=name), seed=0)
        for model, name in ((exact, "float32"), (half, "bfloat16"))
    ]
    assert set(seen) == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in half.parameters())
    last = [history["loss"].iloc[-10:].mean() for history in histories]
    assert last[1] == pytest.approx(last[0], rel=0.1)
    assert not same_weights(exact, half)


def test_a_compiled_network_trains_the_one_given(
    tiny_network, memory_split, training_settings, monkeypatch
):
    """Dynamo without a compiler behind it, which not every machine has."""
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: compiled(model, backend="eager"))
    plain, other = tiny_network(), tiny_network()
    train(plain, memory_split(), cross_entropy, training_settings(), seed=0)
    train(other, memory_split(), cross_entropy, training_settings(compile=True), seed=0)
    for one, two in zip(plain.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.allclose(one.float(), two.float(), atol=1e-5)


def test_training_of_no_iterations_leaves_the_weights(
    tiny_network, memory_split, training_settings
):
    model, settings = tiny_network(), training_settings(iterations=0)
    history = train(model, memory_split(), cross_entropy, settings, seed=0)
    assert same_weights(model, tiny_network())
    assert list(history) == ["iteration", "loss", "learning_rate"]
    assert history.empty


def test_strided_pointwise_convolutions_are_trained_in_the_plain_layout(
    training_settings, memory_split
):
    """In channels last torch 2.15 writes beyond its memory, on some processors."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1, 2), nn.Flatten(), nn.Linear(8 * 16, 4))
    train(model, memory_split(), cross_entropy, training_settings(channels_last=True), seed=0)
    assert model[0].weight.is_contiguous()
    other = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Flatten(), nn.Linear(8 * 16, 4))
    train(other, memory_split(), cross_entropy, training_settings(channels_last=True), seed=0)
    assert other[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("change", ["data", "loss"])
def test_a_checkpoint_of_other_data_or_another_loss_is_not_used(
    tiny_network, memory_split, training_settings, tmp_path, change
):
    path, settings = tmp_path / "checkpoint.safetensors", training_settings(checkpoint_every=4)
    first = memory_split()
    first.fingerprint = "one"
    train(tiny_network(), first, cross_entropy, settings, seed=0, checkpoint=path)
    other = memory_split()
    other.fingerprint = "two" if change == "data" else "one"
    teacher = Distillation(tiny_network(1), CLASSIFICATION)
    loss = teacher if change == "loss" else cross_entropy
    resumed = train(tiny_network(), other, loss, settings, seed=0, checkpoint=path)
    assert other.asked["batches"] == len(resumed) == settings.iterations


def test_logits_of_batches_seen_before_are_remembered_and_never_stale(tiny_network, monkeypatch):
    teacher, calls = tiny_network(), []
    teacher.register_forward_pre_hook(lambda *_: calls.append(1))
    loss, student = Distillation(teacher, CLASSIFICATION), tiny_network().eval()
    split = MemorySplit()
    (one, labels), (two, _) = itertools.islice(split.batches(8, seed=0), 2)

    def value(images):
        """With another object for the loss: runs of a job have one each."""
        return Distillation(teacher, CLASSIFICATION)(student, images, labels).item()

    first, other = value(one), value(two)
    assert (value(one.clone()), value(two), len(calls)) == (first, other, 2)
    with torch.no_grad():
        teacher.get_parameter(next(iter(dict(teacher.named_parameters())))).mul_(2)
    assert value(one) != first
    assert len(calls) == 3
    value(one.to(memory_format=torch.channels_last))  # whose last digits may differ
    assert len(calls) == 4
    monkeypatch.setattr(training, "REMEMBERED_LOGITS", 0)
    monkeypatch.setattr(training, "_taught", WeakKeyDictionary())
    assert value(one) == value(one)
    assert len(calls) == 6
    monkeypatch.setattr(training, "REMEMBERED_IMAGES", 0)
    assert loss(student, one, labels) > 0
    assert len(calls) == 7


SCRIPTS = ("train_dense", "compress", "close_budgets", "finetune", "verify_energy")
TRAINED = """
import sys, torch, ecc.training
{imports}
model = torch.nn.Linear(2, 2)
optimizer = ecc.training.adam(model, ecc.training.TrainingSettings(iterations=1))
model(torch.ones(1, 2)).sum().backward()
optimizer.step()
optimizer.zero_grad()
optimizer.load_state_dict(optimizer.state_dict())
slow = {{"torch._dynamo", "torchvision", "sympy", "scipy", "sklearn", "pymoo", "onnx"}}
sys.exit(" ".join(slow & sys.modules.keys()) or 0)
"""


def test_jobs_that_train_start_without_what_they_do_not_need():
    """A compiler, networks and data of torchvision's: more than a second each."""
    code = TRAINED.format(imports="\n".join(f"import workflow_scripts.{name}" for name in SCRIPTS))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")


@pytest.mark.parametrize("fused", [True, False])
def test_the_eager_optimizer_takes_torch_s_steps_to_the_bit(fused):
    trained = []
    for kind in (torch.optim.Adam, EagerAdam):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
        optimizer = kind(model.parameters(), lr=0.1, weight_decay=0.01, fused=fused)
        for step in range(6):
            if step == 3:  # resumed
                held, optimizer = optimizer.state_dict(), kind(model.parameters(), fused=fused)
                optimizer.load_state_dict(held)
            optimizer.zero_grad()
            model(torch.randn(4, 6)).square().sum().backward()
            optimizer.step()
        assert not any(tensor.requires_grad for tensor in optimizer.state[model[0].weight].values())
        trained.append(model)
    assert same_weights(*trained)


def test_what_is_compiled_trains_by_torch_s_own_optimizer(training_settings):
    model = nn.Linear(2, 2)
    kinds = [type(adam(model, training_settings(compile=compiled))) for compiled in (False, True)]
    assert kinds == [EagerAdam, torch.optim.Adam]
