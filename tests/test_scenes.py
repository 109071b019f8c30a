"""Images with a label for every pixel: Cityscapes' layout, loss, score, and what is refused."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from torchvision.datasets import Cityscapes

from ecc import data
from ecc.data.scenes import CLASSES, IDS, LARGEST_ID, TABLE, VOID
from ecc.errors import UserError
from ecc.networks import Network
from ecc.tasks import Segmentation, class_weights
from ecc.training import Distillation, TaskLoss, TrainingSettings, evaluate, train

STREETS = {"kind": "streets", "size": [32, 64], "train": 60, "holdout": 6, "validation": 8}
SPLITS = ("train", "holdout", "validation")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("streets")
    data.prepare(STREETS, where)
    return where


@pytest.fixture(scope="module")
def streets(folder):
    return data.load(STREETS, folder)


def pixels(ids, size):
    return np.resize(np.array(ids, np.uint8), size)


@pytest.fixture
def published(tmp_path):
    """A tree as Cityscapes publishes it: three cities, coarse ids, instances and colours beside."""

    def make(size=(32, 64)):
        rng = np.random.default_rng(0)
        for part, city, count in (
            ("train", "aachen", 5),
            ("train", "bochum", 4),
            ("val", "ulm", 3),
        ):
            for number in range(count):
                name = f"{city}_{number:06}_000019"
                image = tmp_path / "leftImg8bit" / part / city / f"{name}_leftImg8bit.png"
                masks = tmp_path / "gtFine" / part / city
                image.parent.mkdir(parents=True, exist_ok=True)
                masks.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(image)
                mask = Image.fromarray(pixels([0, 1, *IDS, 9, 33], size))
                mask.save(masks / f"{name}_gtFine_labelIds.png")
                for other in ("color", "instanceIds"):
                    mask.save(masks / f"{name}_gtFine_{other}.png")
                (masks / f"{name}_gtFine_polygons.json").write_text("{}")
        return tmp_path

    return make


def cityscapes(path, **changes):
    own = {"kind": "cityscapes", "path": str(path), "size": [16, 32], "holdout": 0.25, "workers": 0}
    return own | changes


def test_ids_are_those_that_cityscapes_trains_on():
    assert CLASSES[:3] == ["road", "sidewalk", "building"]
    assert CLASSES[-1] == "bicycle"
    assert IDS == [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    assert [TABLE[i] for i in (0, 1, 9, 14, 29)] == [VOID] * 5


def test_class_weights_are_those_that_erfnets_authors_publish():
    """Their first is 2.8149 for roads, which cover 32.65 % of Cityscapes' training pixels."""
    road, never = class_weights([3265, 0], 6735)
    assert road == pytest.approx(2.8149, rel=2e-3)
    assert never == pytest.approx(1 / math.log(1.1))


def test_splits_do_not_overlap_and_are_as_large_as_asked_for(folder, streets):
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in SPLITS:
        assert len(getattr(streets, name)) == STREETS[name] == manifest["splits"][name]["images"]
    found = [image.numpy().tobytes() for name in SPLITS for image in getattr(streets, name).pixels]
    assert len(set(found)) == len(found)
    assert streets.classes == 20


def test_every_class_is_there_and_counted(folder, streets):
    stated = json.loads((folder / "manifest.json").read_text())["splits"]["train"]
    counts = torch.bincount(streets.train.labels.flatten(), minlength=20).tolist()
    assert [stated["pixels_by_class"][name] for name in (*CLASSES, "void")] == counts
    assert min(counts) > 0
    assert streets.train.task.weights == class_weights(counts[:-1], counts[-1])


def test_labels_move_with_the_pixels(streets):
    """Pixels that hold their label show whether a shift and a mirror moved both alike."""
    split = streets.train
    marked = split.labels[:, None].expand(-1, 3, -1, -1).contiguous()
    own = type(split)(marked, split.labels, 20, "unit", 3, True, task=split.task, border=VOID)
    images, labels = next(own.batches(32, 0))
    shown = (images[:, 0] * 255).round().long()
    moved_in = (shown == 0) & (labels == VOID)
    assert torch.equal(shown[~moved_in], labels[~moved_in])
    assert 0 < moved_in.float().mean() < 0.3
    assert labels.dtype == torch.int64


def test_cityscapes_is_read_as_it_is_published(published, tmp_path):
    root, out = published(), tmp_path / "out"
    settings = cityscapes(root)
    data.prepare(settings, out)
    found = data.load(settings, out)
    assert [len(getattr(found, name)) for name in SPLITS] == [7, 2, 3]
    images, labels = next(found.train.batches(4, 0))
    assert images.shape == (4, 3, 16, 32)
    assert labels.shape == (4, 16, 32)
    assert 0 <= images.min() <= images.max() <= 1
    assert set(labels.unique().tolist()) <= set(range(VOID + 1))
    assert all(map(torch.equal, next(found.train.batches(4, 0)), (images, labels)))
    kept = data_in_memory(settings, tmp_path / "kept")
    for one, other in zip(found.validation.ordered(2), kept.validation.ordered(2), strict=True):
        assert all(map(torch.equal, one, other))


def data_in_memory(settings, folder):
    data.prepare({**settings, "in_memory": True}, folder)
    return data.load({**settings, "in_memory": True}, folder)


def test_masks_on_disk_are_mirrored_with_their_images(published, tmp_path):
    root = published((16, 32))
    for mask in root.rglob("*labelIds.png"):  # as bright as its label, or 0 where that is void
        labels = TABLE[np.asarray(Image.open(mask))]
        image = np.repeat(np.where(labels == VOID, 0, labels)[..., None], 3, 2)
        path = str(mask).replace("gtFine_labelIds", "leftImg8bit").replace("gtFine", "leftImg8bit")
        Image.fromarray(image.astype(np.uint8)).save(path)
    settings = cityscapes(root)
    data.prepare(settings, tmp_path / "out")
    images, labels = next(data.load(settings, tmp_path / "out").train.batches(7, 0))
    shown = (images[:, 0] * 255).round().long()
    assert torch.equal(shown[labels != VOID], labels[labels != VOID])
    assert (shown[labels == VOID] == 0).all()


def first(root, pattern):
    return min(root.rglob(pattern))


def truncate(root):
    path = first(root, "*leftImg8bit.png")
    path.write_bytes(path.read_bytes()[:100])


def truncate_mask(root):
    path = first(root, "*labelIds.png")
    path.write_bytes(path.read_bytes()[:100])


def other_size(root):
    Image.fromarray(pixels([7], (8, 8))).save(first(root, "*labelIds.png"))


def out_of_range(root):
    Image.fromarray(pixels([7, 77], (32, 64))).save(first(root, "*labelIds.png"))


def in_colour(root):
    Image.fromarray(np.zeros((32, 64, 3), np.uint8)).save(first(root, "*labelIds.png"))


def no_riders(root):
    for path in root.rglob("*labelIds.png"):
        Image.fromarray(pixels([i for i in IDS if i != 25], (32, 64))).save(path)


def no_mask(root):
    first(root, "*labelIds.png").unlink()


def no_masks(root):
    (root / "gtFine").rename(root / "fine")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "aachen_000000_000019_leftImg8bit.png cannot be read as an image"),
        (truncate_mask, "aachen_000000_000019_gtFine_labelIds.png cannot be read as a mask"),
        (other_size, "aachen_000000_000019_gtFine_labelIds.png is a mask of 8x8 pixels"),
        (out_of_range, "has label 77, out of range: Cityscapes' go from 0 to 33"),
        (in_colour, "is not a mask of one 8-bit label a pixel"),
        (no_riders, "no training image in .* has a pixel of class 'rider'"),
        (no_mask, "aachen_000000_000019_leftImg8bit.png has no mask"),
        (no_masks, "there is no folder .*gtFine/train: datasets.<name>.path must name Cityscapes"),
    ],
)
def test_what_is_wrong_is_named(published, tmp_path, damage, message):
    root = published()
    damage(root)
    with pytest.raises(UserError, match=message) as caught:
        data.prepare(cityscapes(root), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize("damage", [truncate, truncate_mask, other_size, out_of_range, no_mask])
@pytest.mark.parametrize("in_memory", [False, True])
def test_what_cannot_be_read_may_be_left_out(published, tmp_path, damage, in_memory, caplog):
    root, out = published(), tmp_path / "out"
    damage(root)
    settings = cityscapes(root, skip_unreadable=True, in_memory=in_memory)
    data.prepare(settings, out)
    found = data.load(settings, out)
    assert sum(len(getattr(found, name)) for name in SPLITS) == 11
    assert json.loads((out / "manifest.json").read_text())["skipped"] == [
        "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png"
    ]
    assert "1 of 12 images are left out" in caplog.text
    for name in SPLITS:
        assert sum(len(labels) for _, labels in getattr(found, name).ordered(4)) > 0


def test_a_path_without_cityscapes_says_where_it_is_obtained(tmp_path):
    with pytest.raises(UserError, match=r"no folder .*leftImg8bit/train.*cityscapes-dataset\.com"):
        data.prepare(cityscapes(tmp_path / "nowhere"), tmp_path / "out")


def test_the_loss_is_weighted_and_leaves_void_out():
    task = Segmentation(weights=(1.0, 2.0, 5.0))
    logits = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 3, 0, 1, 2, 3]).view(1, 3, 3).repeat(2, 1, 1)
    flat, wanted = logits.movedim(1, -1).reshape(-1, 4), labels.flatten()
    there = wanted != 3
    each = functional.cross_entropy(flat[there], wanted[there], reduction="none")
    weights = torch.tensor(task.weights)[wanted[there]]
    expected = (weights * each).sum() / weights.sum()
    assert task.loss(logits, labels).item() == pytest.approx(expected.item(), rel=1e-6)
    total = task.loss(logits, labels, reduction="sum")
    assert total.item() == pytest.approx((weights * each).sum().item(), rel=1e-6)
    # A network may have no output for void.
    assert task.loss(logits[:, :3], labels).isfinite()


def test_scenes_of_nothing_but_void_teach_nothing():
    task = Segmentation(weights=(1.0, 2.0))
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = task.loss(logits, torch.full((1, 2, 2), 2))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


def test_large_scenes_come_fewer_at_once(published, tmp_path):
    settings = cityscapes(published(), size=[1024, 2048])
    data.prepare(settings, tmp_path / "out")
    found = data.load(settings, tmp_path / "out")
    assert [len(images) for images, _ in found.validation.ordered(256)] == [2, 1]


def test_what_else_lies_in_the_folders_is_none_of_ours(published, tmp_path):
    root = published()
    (root / "leftImg8bit" / "train" / ".DS_Store").touch()
    (root / "leftImg8bit" / "train" / "aachen" / "Thumbs.db").touch()
    data.prepare(cityscapes(root), tmp_path / "out")
    assert len(data.load(cityscapes(root), tmp_path / "out").train) == 7


def test_mean_iou_is_its_formula():
    """By hand: intersections over unions of pixels that are not void, over the classes there."""
    task = Segmentation(weights=(1.0,) * 4)  # class 3 occurs nowhere
    labels = torch.tensor([[[0, 0, 0, 1], [1, 1, 2, 4]], [[0, 1, 2, 2], [4, 4, 4, 4]]])
    found = torch.tensor([[[0, 0, 1, 1], [1, 4, 2, 3]], [[0, 1, 1, 2], [0, 1, 2, 3]]])
    by_class = [3 / 4, 3 / 6, 2 / 3]
    expected = sum(by_class) / 3
    batches = [(found[:1], labels[:1]), (found[1:], labels[1:])]
    assert task.score(batches) == pytest.approx(expected, rel=1e-6)


def test_erfnet_learns_streets(streets):
    torch.manual_seed(0)
    network = Network("erfnet", 20, 0.25, (64, 128), {"trunk": 0.25}).build()
    before = evaluate(network, streets.validation, device="cpu")
    settings = TrainingSettings(iterations=60, batch_size=8, learning_rate=3e-3, device="cpu")
    history = train(network, streets.train, TaskLoss(streets.train.task), settings, seed=0)
    after = evaluate(network, streets.validation, device="cpu")
    assert history["loss"].iloc[-5:].mean() < 0.75 * history["loss"].iloc[:5].mean()
    assert after > 3 * before


def test_distillation_takes_maps_of_logits(streets):
    torch.manual_seed(0)
    network = Network("erfnet", 20, 0.25, (64, 128), {"trunk": 0.25}).build().eval()
    images, labels = next(streets.train.batches(2, 0))
    loss = Distillation(network, streets.train.task)
    own = streets.train.task.loss(network(images), labels)
    assert loss(network, images, labels).item() == pytest.approx(own.item() / 2, rel=1e-5)


def test_classes_are_those_that_torchvision_lists():
    trained = {kind.train_id: kind for kind in Cityscapes.classes if 0 <= kind.train_id < VOID}
    assert [(trained[i].name, trained[i].id) for i in range(VOID)] == list(
        zip(CLASSES, IDS, strict=True)
    )
    assert max(kind.id for kind in Cityscapes.classes) == LARGEST_ID
