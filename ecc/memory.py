"""How many images may go through a network at once, whatever batch is asked for."""

from collections.abc import Sequence

PIXELS_AT_ONCE = 2**22  # 8 scenes of Cityscapes, on which ERFNet takes 0.2 GB each


def at_once(size: Sequence[int]) -> int:
    """Images of `size` (height, width); at least one."""
    return max(1, PIXELS_AT_ONCE // (size[0] * size[1]))
