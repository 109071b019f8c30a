"""Images made by formula: every class is an iterated function system (IFS), drawn at random.

After Kataoka et al., "Pre-training without Natural Images" (ACCV 2020; FractalDB): random systems
of 2 to 8 affine maps, kept where the fractal fills at least a fifth of the image; the images of a
class vary its parameters. Maps are drawn by their singular values, so that all contract (Anderson
and Farrell, "Improving Fractal Pre-training", WACV 2022).
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecc.data.layout import Kind, Settings, Tree, train_and_val, write_images

FILLED = 0.2  # least part of the pixels that a class's fractal covers (FractalDB's filling rate)
POINTS_PER_PIXEL = 6
STEPS, BURN_IN = 48, 16  # of the chaos game; points before the burn-in are not on the fractal yet
POINTS_AT_ONCE = 2**21  # which bounds memory

Array = NDArray[np.floating[Any]]


def _maps(parameters: Array) -> tuple[Array, Array]:
    """Parameters (maps, 6, images) to affine maps (maps, 6, images): a b c d e f, and |det|.

    Parameters are two angles, two singular values (the second signed), and the shift. The linear
    part is rotation(first) diag(values) rotation(second).
    """
    first, second, large, small, e, f = np.moveaxis(parameters, 1, 0)
    large, small = np.clip(large, -0.95, 0.95), np.clip(small, -0.95, 0.95)
    c1, s1, c2, s2 = np.cos(first), np.sin(first), np.cos(second), np.sin(second)
    a, b = c1 * large * c2 - s1 * small * s2, -c1 * large * s2 - s1 * small * c2
    c, d = s1 * large * c2 + c1 * small * s2, -s1 * large * s2 + c1 * small * c2
    return np.stack([a, b, c, d, e, f], 1), np.abs(large * small)


def _points(parameters: Array, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """The chaos game for parameters (maps, 6, images): x and y, each (points, images)."""
    maps, areas = _maps(parameters)
    weights = np.maximum(areas[:, 0], 0.02)  # a thin map still gets points, as in FractalDB
    parallel = -(-count // STEPS)
    choices = rng.choice(len(maps), (BURN_IN + STEPS, parallel), p=weights / weights.sum())
    images = parameters.shape[2]
    x, y = rng.uniform(-1, 1, (2, parallel, images)).astype(np.float32)
    xs, ys = np.empty((2, STEPS, parallel, images), np.float32)
    for step, choice in enumerate(choices):
        a, b, c, d, e, f = np.moveaxis(maps[choice], 1, 0)
        x, y = a * x + b * y + e, c * x + d * y + f
        if step >= BURN_IN:
            xs[step - BURN_IN], ys[step - BURN_IN] = x, y
    return xs.reshape(-1, images), ys.reshape(-1, images)


def _density(x: Array, y: Array, size: int, scale: Array, shift: Array) -> Array:
    """Points (points, images) to how often each pixel is hit: (images, size, size).

    The fractal's bounding square is put at `scale` (images,) of the image, off-centre by `shift`
    (2, images), in sizes of the image; what leaves the image is cut.
    """
    spans = [v.max(0) - v.min(0) for v in (x, y)]
    span = np.maximum(np.maximum(*spans), 1e-6) / scale
    column, row = (
        np.floor(((v - (v.max(0) + v.min(0)) / 2) / span + 0.5 + off) * size).astype(np.int32)
        for v, off in zip((x, y), shift, strict=True)
    )
    images = x.shape[1]
    inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
    place = (np.arange(images) * size + row) * size + column
    hits = np.bincount(place[inside], minlength=images * size * size)
    return hits.reshape(images, size, size).astype(np.float32)


def _system(rng: np.random.Generator) -> Array:
    """Parameters (maps, 6, 1) of a random system that fills enough of its image."""
    while True:
        count = rng.integers(2, 9)
        parameters = np.concatenate(
            [
                rng.uniform(-np.pi, np.pi, (count, 2)),
                rng.uniform(0.3, 0.9, (count, 1)),
                rng.uniform(0.1, 0.8, (count, 1)) * rng.choice([-1, 1], (count, 1)),
                rng.uniform(-1, 1, (count, 2)),
            ],
            axis=1,
        ).astype(np.float32)[..., None]
        whole = np.ones(1, np.float32), np.zeros((2, 1), np.float32)
        if (_density(*_points(parameters, 4096, rng), 32, *whole) > 0).mean() >= FILLED:
            return parameters


def _render(
    system: Array, count: int, size: int, variation: float, noise: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """`count` images (count, size, size, 3) of one class.

    `variation` bounds how far parameters, rotation (radians), scale and place depart from the
    class's; `noise` is the standard deviation of a pixel, of 1. Mirroring and the two colours are
    drawn for each image, so that colour does not tell the class.
    """
    reach = np.array([1, 1, 0.5, 0.5, 0.5, 0.5])[:, None]
    varied = system + variation * reach * rng.uniform(-1, 1, (*system.shape[:2], count))
    x, y = _points(varied.astype(np.float32), POINTS_PER_PIXEL * size * size, rng)
    x *= rng.choice(np.array([-1, 1], np.float32), count)
    angle = rng.uniform(-variation, variation, count).astype(np.float32)
    x, y = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
    scale = 1 - variation * rng.random(count)
    shift = variation / 4 * rng.uniform(-1, 1, (2, count))
    density = np.log1p(_density(x, y, size, scale.astype(np.float32), shift.astype(np.float32)))
    density = (density / density.max((1, 2), keepdims=True))[..., None]
    ground = rng.uniform(0, 0.4, (count, 1, 1, 3))
    colour = rng.uniform(0.5, 1, (count, 1, 1, 3))
    image = ground + density * (colour - ground)
    image += noise * rng.standard_normal(image.shape)
    pixels: NDArray[np.uint8] = (image.clip(0, 1) * 255).astype(np.uint8)
    return pixels


def _write(settings: Settings, folder: Path) -> None:
    size, in_train = settings["size"], settings["train"] + settings["holdout"]
    count = in_train + settings["validation"]
    at_once = max(1, POINTS_AT_ONCE // (POINTS_PER_PIXEL * size * size))
    digits = len(str(settings["classes"] - 1))
    look = size, settings["variation"], settings["noise"]
    for label in range(settings["classes"]):
        rng = np.random.default_rng([settings["seed"], label])
        system = _system(rng)
        parts = [
            _render(system, min(at_once, count - done), *look, rng)
            for done in range(0, count, at_once)
        ]
        images = np.concatenate(parts)
        name = f"fractal{label:0{digits}}"
        write_images(folder / "train" / name, images[:in_train])
        write_images(folder / "val" / name, images[in_train:])


def _find(settings: Settings, folder: Path) -> Tree:
    return train_and_val(folder, settings, "prepare the fractals again")


KIND = Kind(
    defaults={
        "classes": 60,
        "size": 32,
        "train": 200,
        "holdout": 20,
        "validation": 40,
        "variation": 0.1,
        "noise": 0.05,
        "seed": 0,
        "normalisation": "symmetric",
        "shift": 0,
        "flip": False,
        "in_memory": True,
        "workers": 0,
    },
    source="made by formula, after FractalDB (Kataoka et al., ACCV 2020): no rights reserved",
    find=_find,
    write=_write,
    embedded=True,
)
