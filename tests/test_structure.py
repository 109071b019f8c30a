"""Structures: arithmetic on widths against loops, and files that hold all of it."""

from dataclasses import fields, replace

import numpy as np
import pytest

from ecc.errors import UserError
from ecc.structure import Group, Operation, Structure


def operation(**changes):
    values = {
        "name": "layer",
        "kind": "conv",
        "reads": (0,),
        "writes": 1,
        "fixed_in": 0,
        "fixed_out": 0,
        "columns": 1,
        "kernel": (3, 2),
        "stride": (2, 1),
        "in_size": (9, 8),
        "out_size": (5, 7),
        "groups": 1,
        "bias": True,
    }
    return Operation(**{**values, **changes})


STRUCTURE = Structure(
    groups=(Group("stem", 8), Group("layer", 12), Group("grouped", 6)),
    operations=(
        operation(name="stem", reads=(), writes=0, fixed_in=3),
        operation(name="depthwise", kind="depthwise", writes=0),
        operation(name="layer"),
        operation(name="grouped", writes=2, groups=2, bias=False),
        operation(name="join", reads=(1, 2), writes=None, fixed_in=4, fixed_out=5),
        operation(name="up", kind="transposed", reads=(2,), writes=None, fixed_out=7),
        operation(
            name="head", kind="linear", reads=(1,), writes=None, fixed_out=10, columns=36,
            kernel=(1, 1), in_size=(1, 1), out_size=(1, 1),
        ),
    ),
    image_channels=3,
    classes=10,
)  # fmt: skip


def counted_by_hand(s):
    """Weights and MACs of every operation of STRUCTURE at widths s."""
    weights = [
        3 * s[0] * 6,
        s[0] * 6,
        s[0] * s[1] * 6,
        s[0] // 2 * s[2] * 6,
        (s[1] + s[2] + 4) * 5 * 6,
        s[2] * 7 * 6,
        s[1] * 36 * 10,
    ]
    positions = [35, 35, 35, 35, 35, 72, 1]
    return weights, [a * b for a, b in zip(weights, positions, strict=True)]


def test_weights_and_macs_are_those_counted_by_hand():
    widths = np.array([[8, 12, 6], [2, 1, 5], [4, 7, 1]])
    for s, weights, macs in zip(
        widths, STRUCTURE.weights(widths), STRUCTURE.macs(widths), strict=True
    ):
        by_hand = counted_by_hand(s)
        assert weights.tolist() == by_hand[0]
        assert macs.tolist() == by_hand[1]
    assert STRUCTURE.macs().tolist() == STRUCTURE.macs(STRUCTURE.full_widths).tolist()


def test_any_leading_dimensions():
    widths = np.random.default_rng(0).integers(1, 6, (2, 5, 3))
    assert STRUCTURE.widths_in(widths).shape == (2, 5, 7)
    assert np.array_equal(STRUCTURE.macs(widths)[1, 3], STRUCTURE.macs(widths[1, 3]))


def test_depthwise_reads_and_writes_the_same_width():
    s = [5, 1, 1]
    assert STRUCTURE.widths_in(s)[1] == STRUCTURE.widths_out(s)[1] == 5


def test_json_holds_everything():
    again = Structure.from_json(STRUCTURE.to_json())
    assert again == STRUCTURE
    assert again.fingerprint == STRUCTURE.fingerprint


def changed(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return (*value[:-1], value[-1] + 1)
    return f"{value}_" if isinstance(value, str) else value + 1


@pytest.mark.parametrize("field", [field.name for field in fields(Operation)])
def test_fingerprint_changes_with_every_part_of_an_operation(field):
    operations = list(STRUCTURE.operations)
    operations[2] = replace(operations[2], **{field: changed(getattr(operations[2], field))})
    other = replace(STRUCTURE, operations=tuple(operations))
    assert other.fingerprint != STRUCTURE.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"groups": (*STRUCTURE.groups[:2], Group("grouped", 7))},
        {"groups": (*STRUCTURE.groups[:2], Group("other", 6))},
        {"operations": STRUCTURE.operations[:-1]},
        {"operations": (*STRUCTURE.operations[1::-1], *STRUCTURE.operations[2:])},
        {"image_channels": 1},
        {"classes": 11},
    ],
)
def test_fingerprint_changes_with_the_rest(change):
    assert replace(STRUCTURE, **change).fingerprint != STRUCTURE.fingerprint


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", STRUCTURE.to_json()[:200], '{"groups": [{"name": "a"}]}']
)
def test_text_that_is_no_structure_is_refused(text):
    with pytest.raises(UserError, match="not the structure of a network"):
        Structure.from_json(text)
