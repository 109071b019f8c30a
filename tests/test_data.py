"""Datasets: reproducible to the byte, splits that never overlap, batches that can be resumed."""

import hashlib
import itertools
import json
import pickle
import shutil
from urllib.error import URLError

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from torchvision.datasets import CIFAR10

from ecc import data
from ecc.data import fractals
from ecc.data.layout import divide
from ecc.data.splits import NORMALISATIONS, InMemory, OnDisk, normalised, pixels_to_input
from ecc.errors import UserError
from ecc.files import unseal

FRACTALS = {"kind": "fractals", "classes": 5, "size": 16, "train": 12, "holdout": 3}
FRACTALS |= {"validation": 4, "variation": 0.1, "noise": 0.05, "seed": 3}
SPLITS = ("train", "holdout", "validation")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("fractals")
    data.prepare(FRACTALS, where)
    return where


@pytest.fixture(scope="module")
def dataset(folder):
    return data.load(FRACTALS, folder)


@pytest.fixture
def copy(folder, tmp_path):
    """The fractals, free to be damaged."""
    return shutil.copytree(folder, tmp_path / "copy")


def files(where):
    return {str(p.relative_to(where)): p.read_bytes() for p in where.rglob("*") if p.is_file()}


def by_path(root, **changes):
    """Settings that read `root` from its files, as a large dataset is."""
    changes = {"kind": "folder", "size": 16, "holdout": 3, "workers": 0} | changes
    return {"path": str(root), "seed": 3, "normalisation": "symmetric"} | changes


def same(left, right):
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_two_preparations_are_byte_identical(folder, tmp_path):
    data.prepare({**FRACTALS, "classes": 7}, tmp_path)  # what it leaves must not stay
    data.prepare(FRACTALS, tmp_path)
    assert files(tmp_path) == files(folder)


def test_another_seed_gives_other_images(folder, tmp_path):
    data.prepare({**FRACTALS, "seed": 4}, tmp_path)
    assert not set(files(tmp_path).values()) & set(files(folder).values())


@pytest.mark.parametrize("kind", ["fractals", "digits", "folder", "folder_in_memory", "imagenet"])
def test_splits_hold_what_the_manifest_says_and_never_overlap(kind, folder, tmp_path):
    choice = {
        "fractals": FRACTALS,
        "digits": {"kind": "digits", "size": 8},
        "folder": by_path(folder / "train", validation=0.2),
        "folder_in_memory": by_path(folder, in_memory=True),
        "imagenet": by_path(folder, kind="imagenet", classes=4),
    }[kind]
    data.prepare(choice, tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    loaded = data.load(choice, tmp_path)
    seen = {}
    for name in SPLITS:
        split, stated = getattr(loaded, name), manifest["splits"][name]
        images, labels = map(torch.cat, zip(*split.ordered(7), strict=True))
        assert len(images) == len(split) == stated["images"]
        assert torch.bincount(labels).tolist() == list(stated["images_by_class"].values())
        assert list(stated["images_by_class"]) == manifest["classes"]
        seen[name] = {hashlib.sha256(image.numpy().tobytes()).digest() for image in images}
        assert len(seen[name]) == len(split)
    assert not any(seen[a] & seen[b] for a, b in itertools.combinations(SPLITS, 2))
    assert loaded.classes == len(manifest["classes"]) == loaded.train.classes


def test_embedded_manifest_is_free_of_paths_and_times(folder):
    text = (folder / "manifest.json").read_text()
    assert str(folder) not in text
    assert "path" not in json.loads(text)["settings"]


def test_memory_and_files_hold_the_same_images(folder, dataset, tmp_path):
    # 14 of 16 pixels are kept when files are read at size 14, as 224 of 256 are
    choice = by_path(folder, size=14)
    data.prepare(choice, tmp_path)
    for name in SPLITS:
        (from_files, labels), *_ = getattr(data.load(choice, tmp_path), name).ordered(1000)
        (in_memory, expected), *_ = getattr(dataset, name).ordered(1000)
        assert torch.equal(labels, expected)
        assert torch.allclose(from_files, in_memory[..., 1:15, 1:15])


@settings(max_examples=25, deadline=None)
@given(start=st.integers(0, 40), batch=st.integers(1, 80), seed=st.integers(0, 2**32))
def test_a_resumed_training_sees_the_same_batches(dataset, start, batch, seed):
    whole = itertools.islice(dataset.train.batches(batch, seed), start, start + 3)
    for left, right in zip(whole, dataset.train.batches(batch, seed, start), strict=False):
        assert same(left, right)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_from_files_depend_on_seed_and_number_alone(folder, tmp_path, workers):
    choice = by_path(folder)
    data.prepare(choice, tmp_path)
    whole = list(itertools.islice(data.load(choice, tmp_path).train.batches(8, 5), 10))
    resumed = data.load({**choice, "workers": workers}, tmp_path).train.batches(8, 5, start=6)
    assert all(same(left, right) for left, right in zip(whole[6:], resumed, strict=False))
    assert not same(whole[0], whole[8])


def test_reading_files_leaves_the_training_s_random_numbers_alone(folder, tmp_path):
    choice = by_path(folder)
    data.prepare(choice, tmp_path)
    train = data.load(choice, tmp_path).train
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    next(train.batches(8, 5))
    list(train.ordered(8))
    assert torch.equal(torch.rand(3), expected)


def test_each_epoch_shows_every_image_once_in_a_new_order():
    labels = torch.arange(12)
    split = InMemory(torch.zeros(12, 3, 8, 8, dtype=torch.uint8), labels, 12, "symmetric", 1, True)
    shown = torch.cat([y for _, y in itertools.islice(split.batches(5, seed=0), 12)]).view(5, 12)
    assert all(torch.equal(epoch.sort().values, labels) for epoch in shown)
    assert len(shown.unique(dim=0)) == 5


@pytest.mark.parametrize("flip", [True, False])
def test_augmentation_is_a_shift_and_where_asked_a_mirror(flip):
    pixels = torch.randint(0, 256, (20, 3, 16, 16), dtype=torch.uint8)
    split = InMemory(pixels, torch.arange(20), 20, "symmetric", 2, flip)
    images, labels = next(split.batches(20, seed=1))
    found = {(row, column, m): 0 for row in range(5) for column in range(5) for m in (0, 1)}
    for image, label in zip(images, labels, strict=True):
        source = torch.nn.functional.pad(pixels[label], [2] * 4)
        for row, column, mirrored in found:
            window = source[:, row : row + 16, column : column + 16] / 127.5 - 1
            found[row, column, mirrored] += torch.allclose(
                image, window.flip(-1) if mirrored else window, atol=1e-5
            )
    assert sum(found.values()) == 20
    assert any(found[k] for k in found if k[2]) == flip
    assert sum(n > 0 for n in found.values()) > 5  # each image has its own


def test_labels_start_at_the_offset(folder, tmp_path):
    for in_memory in (True, False):
        choice = by_path(folder, kind="imagenet", classes=4, label_offset=1, in_memory=in_memory)
        data.prepare(choice, tmp_path)
        loaded = data.load(choice, tmp_path)
        labels = torch.cat([y for _, y in loaded.validation.ordered(8)])
        assert labels.unique().tolist() == [1, 2, 3, 4]
        assert loaded.classes == 5


def test_normalisations():
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 8, 8)
    for name, white in {"symmetric": [1.0] * 3, "imagenet": [2.2489, 2.4286, 2.64]}.items():
        (images, _), *_ = InMemory(pixels, torch.zeros(2), 1, name, 0, False).ordered(2)
        assert torch.allclose(images[1, :, 0, 0], torch.tensor(white), atol=1e-4)
    assert images.dtype == torch.float32


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_images_in_memory_are_normalised_to_the_bit_as_those_of_files(normalisation):
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    assert torch.equal(normalised(pixels, normalisation), pixels_to_input(normalisation)(pixels))


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(2, 30), min_size=1, max_size=4),
    part=st.one_of(st.just(1), st.floats(0.26, 0.74)),
    seed=st.integers(0, 99),
)
def test_division_is_a_partition_of_every_class(counts, part, seed):
    samples = [(f"{c}/{i:02}", c) for c, count in enumerate(counts) for i in range(count)]
    rest, aside = divide(samples, part, seed, "holdout")
    assert sorted(rest + aside) == sorted(samples)
    assert (rest, aside) == divide(samples[::-1], part, seed, "holdout")
    for label, count in enumerate(counts):
        taken = sum(own == label for _, own in aside)
        assert taken == (1 if part == 1 else round(part * count))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32))
def test_every_map_of_a_fractal_contracts(seed):
    parameters = np.random.default_rng(seed).uniform(-4, 4, (5, 6, 3)).astype(np.float32)
    maps, areas = fractals._maps(parameters)
    linear = np.moveaxis(maps[:, :4], 1, -1).reshape(5, 3, 2, 2)
    assert np.linalg.norm(linear, 2, axis=(2, 3)).max() <= 0.951
    assert np.allclose(np.abs(np.linalg.det(linear)), areas, atol=1e-5)


def test_fractals_of_a_class_look_alike(folder):
    """The nearest neighbour in shape (grey, blurred) is of the same class well above chance."""

    def shapes(part):
        paths = sorted((folder / part).glob("*/*.png"))
        grey = np.stack([np.asarray(Image.open(path).convert("L"), float) for path in paths])
        flat = grey.reshape(-1, 8, 2, 8, 2).mean((2, 4)).reshape(len(grey), -1)
        return (flat - flat.mean(1, keepdims=True)) / flat.std(1, keepdims=True), [
            path.parent.name for path in paths
        ]

    (known, names), (new, truth) = shapes("train"), shapes("val")
    guesses = [names[i] for i in (new @ known.T).argmax(1)]
    assert np.mean([a == b for a, b in zip(guesses, truth, strict=True)]) > 0.5  # chance 0.2


def refuses(choice, where, *words, action=data.prepare):
    with pytest.raises(UserError) as caught:
        action(choice, where)
    message = str(caught.value)
    assert "\n" not in message
    assert all(str(word) in message for word in words), message


def test_unknown_kind_and_setting_are_named(tmp_path):
    refuses({"kind": "fractal"}, tmp_path, "fractal", "fractals, digits, imagenet, folder")
    refuses({}, tmp_path, "kind")
    refuses({"kind": "digits", "clases": 3}, tmp_path, "clases", "size")


@pytest.mark.parametrize("path", [None, "/nowhere"])
def test_a_missing_folder_says_what_to_put_there(tmp_path, path):
    choice = by_path(path, path=path)
    refuses({**choice, "kind": "imagenet"}, tmp_path, "train", "image-net.org", "val/<synset>")
    refuses(by_path("/nowhere"), tmp_path, "/nowhere", "class")


def test_bad_folders_are_named(copy, tmp_path):
    choice = by_path(copy)
    refuses(by_path(copy, classes=6), tmp_path, "classes: 6", "5")
    refuses(by_path(copy, holdout=15), tmp_path, "holdout: 15", "fractal0")
    shutil.rmtree(copy / "val" / "fractal4")
    refuses(choice, tmp_path, "fractal4", "only one")
    (copy / "val" / "fractal4").mkdir()
    refuses(choice, tmp_path, copy / "val" / "fractal4", "no images")
    shutil.rmtree(copy / "val")
    refuses(choice, tmp_path, copy, "class folders")
    (tmp_path / "empty").mkdir()
    refuses(by_path(tmp_path / "empty"), tmp_path, tmp_path / "empty", "class folders")


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_a_corrupt_image_is_named(copy, tmp_path, content):
    broken = copy / "val" / "fractal2" / "0001.png"
    broken.write_bytes(broken.read_bytes()[:300] if content is None else content)
    refuses(by_path(copy, in_memory=True), tmp_path, broken)
    for workers in (0, 1):
        choice = by_path(copy, workers=workers)
        data.prepare(choice, tmp_path)
        validation = data.load(choice, tmp_path).validation
        assert isinstance(validation, OnDisk)
        refuses(4, 0, broken, action=lambda size, _, split=validation: list(split.ordered(size)))


def test_loading_refuses_what_was_not_prepared_so(copy, tmp_path):
    def refused(*words, **changes):
        refuses({**FRACTALS, **changes}, copy, *words, action=data.load)

    refuses(FRACTALS, tmp_path, "manifest.json", "prepare", action=data.load)
    refused("noise", "0.05", "0.3", noise=0.3)
    manifest, pixels = copy / "manifest.json", copy / "pixels.safetensors"
    whole = pixels.read_bytes()
    pixels.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused(f"pixels.safetensors is not what its job wrote: delete it and {manifest}")
    unseal(pixels)
    for part in (b"", whole[:100], whole[:-1]):
        pixels.write_bytes(part)
        refused("pixels.safetensors", "truncated")
    pixels.unlink()
    refused("pixels.safetensors", "missing")
    pixels.write_bytes(whole)
    text = manifest.read_text()
    manifest.write_text(text.replace("no rights", "some rights"))
    refused("pixels.safetensors", "another manifest")
    for part in (text[:50], "{}", "[]"):
        manifest.write_text(part)
        refused("manifest.json", "damaged")


def test_changed_images_are_noticed(copy, tmp_path):
    choice = by_path(copy)
    data.prepare(choice, tmp_path)
    (copy / "val" / "fractal2" / "0001.png").unlink()
    refuses(choice, tmp_path, copy, "changed", action=data.load)


def data_of(settings, folder):
    data.prepare(settings, folder)
    return data.load(settings, folder)


def test_images_that_cannot_be_read_may_be_left_out(copy, tmp_path):
    broken = sorted((copy / "train").rglob("*.png"))[::7]
    for path in broken:
        path.write_bytes(path.read_bytes()[:40])
    found = data_of(by_path(copy, skip_unreadable=True), tmp_path / "out")
    assert len(found.train) + len(found.holdout) == 5 * (12 + 3) - len(broken)
    skipped = json.loads((tmp_path / "out" / "manifest.json").read_text())["skipped"]
    assert skipped == [path.relative_to(copy).as_posix() for path in broken]
    assert sum(len(labels) for _, labels in found.train.ordered(8)) == len(found.train)
    with pytest.raises(UserError, match="cannot be read as an image"):
        next(data_of(by_path(copy), tmp_path / "all").train.batches(60, 0))


def test_a_class_of_which_nothing_is_left_is_named(copy, tmp_path):
    for path in (copy / "train" / "fractal3").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="class fractal3 has no readable image in the train split"):
        data.prepare(by_path(copy, skip_unreadable=True), tmp_path / "out")


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Batches as they are published, of 3 images a class each; their checksums stand in."""
    folder = tmp_path / "archive" / CIFAR10.base_folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    def batch(name):
        labels = list(range(10)) * 3
        pixels = rng.integers(0, 256, (30, 3072), np.uint8)
        return [name, write(name, {"data": pixels, "labels": labels})]

    monkeypatch.setattr(CIFAR10, "train_list", [batch(f"data_batch_{i}") for i in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [batch("test_batch")])
    names = [f"kind{label}" for label in range(10)]
    told = {**CIFAR10.meta, "md5": write("batches.meta", {"label_names": names})}
    monkeypatch.setattr(CIFAR10, "meta", told)
    return folder.parent


def test_cifar_is_read_as_it_is_published(cifar, tmp_path):
    settings = {"kind": "cifar10", "path": str(cifar), "holdout": 2}
    found = data_of(settings, tmp_path / "out")
    assert [len(getattr(found, name)) for name in SPLITS] == [130, 20, 30]
    published = CIFAR10(str(cifar), train=False)
    images = {image.permute(1, 2, 0).numpy().tobytes() for image in found.validation.pixels}
    assert images == {image.tobytes() for image in published.data}
    assert found.validation.labels.tolist() == sorted(published.targets)


def test_cifar_that_cannot_be_downloaded_says_what_to_do(tmp_path, monkeypatch):
    def unreachable(self):
        raise URLError("no network")

    monkeypatch.setattr(CIFAR10, "download", unreachable)
    with pytest.raises(UserError, match=r"cannot be downloaded .*no network.*put cifar-10-python"):
        data.prepare({"kind": "cifar10"}, tmp_path / "out")
