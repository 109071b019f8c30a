"""Whether this machine has a GPU, as far as files tell: without importing torch."""

import os
from pathlib import Path

# NVIDIA's driver, that of Jetson boards, that of Windows' subsystem for Linux.
FILES = ("dev/nvidia0", "dev/nvhost-gpu", "dev/dxg")


def present(root: Path = Path("/")) -> bool:
    """Whether there is one that CUDA_VISIBLE_DEVICES does not hide."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1")
    return not hidden and any((root / file).exists() for file in FILES)


def used(device: str, root: Path = Path("/")) -> bool:
    """Whether a setting `device` (auto, cpu, cuda, cuda:1) means a GPU on this machine."""
    return device.startswith("cuda") or (device == "auto" and present(root))
