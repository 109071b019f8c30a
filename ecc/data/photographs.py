"""Two real photographs that scikit-learn carries, in crops: images without a download."""

import numpy as np
import torch
from torch import Tensor

from ecc.errors import UserError


def crops(size: tuple[int, int], count: int, seed: int) -> Tensor:
    """Random crops (count, 3, H, W) of `size` (height, width), each photograph in turn.

    Every channel has mean 0 and deviation 1 over all crops. Raises UserError where a photograph
    (427x640 pixels) is smaller than `size`.
    """
    from sklearn.datasets import load_sample_images  # here: the import costs a second

    photographs = load_sample_images().images
    height, width = size
    if height > photographs[0].shape[0] or width > photographs[0].shape[1]:
        raise UserError(f"crops of {height}x{width} pixels do not fit a photograph of 427x640")
    stream = np.random.default_rng(seed)
    found = []
    for index in range(count):
        image = photographs[index % len(photographs)]
        top = stream.integers(image.shape[0] - height + 1)
        left = stream.integers(image.shape[1] - width + 1)
        found.append(image[top : top + height, left : left + width])
    images = torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float()
    mean = images.mean(dim=(0, 2, 3), keepdim=True)
    deviation = images.std(dim=(0, 2, 3), keepdim=True)
    return (images - mean) / deviation
