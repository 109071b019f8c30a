"""Rendered street scenes with the classes of Cityscapes, in its folder layout and file names.

A road runs to a vanishing point between pavements, fronts of buildings, walls, fences and trees;
things stand on them, smaller with distance and in front of what is behind. Colours and sizes of a
class vary, and overlap with those of others, so that shape and place matter. Nothing in them is
photographed: they are synthetic.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ecc.data.layout import Kind, Settings, Tree
from ecc.data.scenes import CLASSES, IDS, VOID, scenes, task, write_scene

ID = dict(zip(CLASSES, IDS, strict=True))
EGO_VEHICLE = 1  # an id that is no class: void
# Mean colours; those of a thing vary by DEVIATION around them.
COLOURS = {
    "road": (95, 90, 95),
    "sidewalk": (150, 140, 145),
    "building": (120, 105, 95),
    "wall": (140, 130, 120),
    "fence": (120, 120, 105),
    "pole": (130, 130, 130),
    "traffic light": (60, 60, 45),
    "traffic sign": (190, 170, 60),
    "vegetation": (70, 105, 60),
    "terrain": (120, 135, 85),
    "sky": (170, 190, 215),
    "person": (110, 70, 70),
    "rider": (120, 60, 60),
    "car": (90, 90, 120),
    "truck": (120, 120, 130),
    "bus": (150, 110, 60),
    "train": (120, 130, 120),
    "motorcycle": (60, 55, 60),
    "bicycle": (80, 75, 80),
}
DEVIATION = 20
# Of what lines a street, in units of the distance from the horizon to the bottom.
HEIGHTS = {"building": 1.3, "vegetation": 0.8, "train": 0.5, "wall": 0.3, "fence": 0.3}
HEIGHTS |= {"terrain": 0.12}
Point = tuple[float, float]


class Street:
    """One scene: what is drawn later lies in front. Places are fractions of height and width."""

    def __init__(self, size: Sequence[int], rng: np.random.Generator):
        self.height, self.width = size
        self.rng = rng
        self.image = Image.new("RGB", (self.width, self.height))
        self.mask = Image.new("L", (self.width, self.height))
        self.brushes = ImageDraw.Draw(self.image), ImageDraw.Draw(self.mask)
        self.horizon = rng.uniform(0.38, 0.5)
        self.vanishing = rng.uniform(0.35, 0.65)
        self.kerb = rng.uniform(0.25, 0.45)  # half of the road's width at the bottom

    def colour(self, kind: str) -> tuple[int, ...]:
        drawn = self.rng.normal(COLOURS[kind], DEVIATION)
        return tuple(int(value) for value in drawn.clip(0, 255))

    def shape(self, kind: str, points: Sequence[Point]) -> None:
        """A polygon of (x, y); two points are the corners of an ellipse's box."""
        scaled = [(x * self.width, y * self.height) for x, y in points]
        fills: tuple[tuple[int, ...] | int, ...] = self.colour(kind), ID[kind]
        for brush, fill in zip(self.brushes, fills, strict=True):
            if len(scaled) == 2:
                (x0, y0), (x1, y1) = scaled
                brush.ellipse((x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)), fill=fill)
            else:
                brush.polygon(scaled, fill=fill)

    def box(
        self, kind: str, x: float, y: float, width: float, height: float, ground: bool = True
    ) -> None:
        """An upright box around x, whose foot (or, without `ground`, middle) is at y."""
        low = y if ground else y + height / 2
        left, right, top = x - width / 2, x + width / 2, low - height
        self.shape(kind, [(left, top), (right, top), (right, low), (left, low)])

    def place(self, depth: float, side: float) -> tuple[float, float, float]:
        """x, y and scale on the ground: `depth` 0 (the bottom) to 1 (horizon), `side` in kerbs."""
        scale = 1 - depth
        y = self.horizon + (1 - self.horizon) * scale
        return self.vanishing + side * self.kerb * scale, y, scale

    def ground(self) -> None:
        corners = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]
        self.shape("sky", corners)
        edges = [(0.0, self.horizon), (1.0, self.horizon), (1.0, 1.0), (0.0, 1.0)]
        self.shape("terrain" if self.rng.random() < 0.5 else "sidewalk", edges)
        outer = self.rng.uniform(1.3, 1.9)
        for kind, side in (("sidewalk", outer), ("road", 1.0)):
            left, right = self.vanishing - side * self.kerb, self.vanishing + side * self.kerb
            self.shape(kind, [(self.vanishing, self.horizon), (right, 1.0), (left, 1.0)])

    def fronts(self, side: int) -> None:
        """What lines one side of the street, from far to near."""
        kinds = ["building", "building", "vegetation", "wall", "fence", "terrain", "train"]
        depths = np.sort(self.rng.uniform(0.0, 0.92, self.rng.integers(4, 8)))[::-1]
        for far, near in zip(depths, [*depths[1:], -0.6], strict=True):
            kind = self.rng.choice(kinds, p=[0.3, 0.2, 0.2, 0.1, 0.1, 0.05, 0.05])
            height = HEIGHTS[str(kind)] * self.rng.uniform(0.7, 1.3)
            set_back = side * self.rng.uniform(1.6, 2.2)
            (x0, y0, s0), (x1, y1, s1) = self.place(far, set_back), self.place(near, set_back)
            tops = (x1, y1 - height * s1), (x0, y0 - height * s0)
            self.shape(kind, [(x0, y0), (x1, y1), *tops])
            if kind == "vegetation":
                for x, y in tops:
                    reach = 0.2 * (s0 if x == x0 else s1)
                    self.shape(kind, [(x - reach, y - reach), (x + reach, y + reach)])

    def things(self) -> None:
        """Vehicles on the road, people and furniture beside it, from far to near."""
        draw = self.rng
        for depth in np.sort(draw.uniform(0.05, 0.85, draw.integers(9, 16)))[::-1]:
            side = float(draw.choice([-1, 1]))
            if draw.random() < 0.5:
                self.vehicle(depth, side * draw.uniform(0.25, 0.8))
            elif draw.random() < 0.5:
                self.person(depth, side * draw.uniform(1.0, 1.6))
            else:
                self.furniture(depth, side * draw.uniform(1.05, 1.4))

    def vehicle(self, depth: float, side: float) -> None:
        x, y, scale = self.place(depth, side)
        kinds = ["car", "truck", "bus", "motorcycle", "bicycle"]
        kind = str(self.rng.choice(kinds, p=[0.4, 0.15, 0.15, 0.15, 0.15]))
        if kind in ("motorcycle", "bicycle"):
            wide = 0.1 if kind == "motorcycle" else 0.12
            for wheel in (-0.3, 0.3):
                cx, r = x + wheel * wide * scale, 0.03 * scale
                self.shape(kind, [(cx - r, y - 3 * r), (cx + r, y)])
            self.box(kind, x, y - 0.05 * scale, wide * scale, 0.06 * scale)
            if self.rng.random() < 0.7:
                self.figure("rider", x, y - 0.08 * scale, 0.8 * scale)
            return
        width, height = {"car": (0.2, 0.18), "truck": (0.22, 0.42), "bus": (0.26, 0.4)}[kind]
        grown = scale * self.rng.uniform(0.85, 1.15)
        self.box(kind, x, y, width * grown, height * grown * (0.6 if kind == "car" else 1))
        if kind == "car":
            self.box(kind, x, y - 0.1 * grown, 0.7 * width * grown, 0.08 * grown)

    def person(self, depth: float, side: float) -> None:
        x, y, scale = self.place(depth, side)
        self.figure("person", x, y, scale)

    def figure(self, kind: str, x: float, y: float, scale: float) -> None:
        tall = 0.3 * scale * self.rng.uniform(0.85, 1.15)
        self.box(kind, x, y, 0.055 * scale, 0.8 * tall)
        r = 0.018 * scale
        self.shape(kind, [(x - r, y - tall), (x + r, y - 0.78 * tall)])

    def furniture(self, depth: float, side: float) -> None:
        x, y, scale = self.place(depth, side)
        tall = scale * self.rng.uniform(0.5, 0.8)
        self.box("pole", x, y, max(0.018 * scale, 1 / self.width), tall)
        kind = self.rng.choice(["traffic light", "traffic sign", "pole"], p=[0.4, 0.4, 0.2])
        if kind == "traffic light":
            self.box(kind, x, y - tall, 0.045 * scale, 0.17 * scale, ground=False)
        elif kind == "traffic sign":
            self.box(kind, x, y - tall, 0.09 * scale, 0.13 * scale, ground=False)

    def bonnet(self) -> None:
        """The car with the camera, which is void."""
        high = self.rng.uniform(0.93, 0.98)
        corners = [(0.1 * self.width, self.height), (0.9 * self.width, self.height)]
        top = [(0.7 * self.width, high * self.height), (0.3 * self.width, high * self.height)]
        on_image, on_mask = self.brushes
        on_image.polygon([*corners, *top], fill=(40, 40, 45))
        on_mask.polygon([*corners, *top], fill=EGO_VEHICLE)


def render(
    size: Sequence[int], noise: float, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An image (h, w, 3) and its mask (h, w) of Cityscapes' ids.

    `noise` is the standard deviation of a pixel, of its range.
    """
    street = Street(size, rng)
    street.ground()
    street.fronts(-1)
    street.fronts(1)
    street.things()
    street.bonnet()
    image = np.asarray(street.image, np.float32) / 255
    light = rng.uniform(0.6, 1.2) * np.linspace(rng.uniform(0.8, 1.2), 1, size[1])[:, None]
    image = image * light + noise * rng.standard_normal(image.shape)
    return (image.clip(0, 1) * 255).astype(np.uint8), np.asarray(street.mask)


def _write(settings: Settings, folder: Path) -> None:
    for part in ("leftImg8bit", "gtFine"):
        shutil.rmtree(folder / part, ignore_errors=True)
    parts = {"train": settings["train"] + settings["holdout"], "val": settings["validation"]}
    for code, (part, count) in enumerate(parts.items()):
        for number in range(count):
            rng = np.random.default_rng([settings["seed"], code, number])
            image, ids = render(settings["size"], settings["noise"], rng)
            write_scene(folder, part, number, image, ids, "streets")


def _find(settings: Settings, folder: Path) -> Tree:
    share = settings["holdout"] / (settings["train"] + settings["holdout"])
    return scenes(folder, {**settings, "holdout": share}, "prepare the streets again")


KIND = Kind(
    defaults={
        "size": [64, 128],
        "train": 400,
        "holdout": 40,
        "validation": 80,
        "noise": 0.05,
        "seed": 0,
        "normalisation": "unit",
        "shift": 2,
        "flip": True,
        "in_memory": True,
        "workers": 0,
    },
    source="rendered by this project, with the classes of Cityscapes: no rights reserved",
    find=_find,
    write=_write,
    embedded=True,
    task=task,
    border=VOID,
)
