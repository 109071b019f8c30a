"""Published weights of dense networks, brought to the names that our networks have.

Read are .safetensors, .pth, .pt and .tar (tensors only: no code in them is run), and .npz, as
which a TensorFlow checkpoint can be written:

    reader = tf.train.load_checkpoint("mobilenet_v1_1.0_224.ckpt")
    names = reader.get_variable_to_shape_map()
    numpy.savez("mobilenet.npz", **{name: reader.get_tensor(name) for name in names})
"""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ecc.errors import UserError

Tensors = Mapping[str, Tensor]
DOWNLOAD = "torchvision"
NAMES = {"alexnet": "alexnet", "vgg16": "vgg16", "squeezenet": "squeezenet1_0"}
NAMES |= {"resnet50": "resnet50"}
NESTED = ("state_dict", "model_state_dict", "model")
# Of TensorFlow's MobileNet and of its conversion by Hugging Face: parts of a layer's name to ours.
NORMALISATION = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def load_published(path: str | Path, architecture: str, model: nn.Module) -> nn.Module:
    """Fills `model` from published weights.

    MobileNet's may be the authors' (TensorFlow, as .npz) or their conversion by Hugging Face,
    ERFNet's the authors' (with or without `module.` before each name); others have torchvision's
    names, or ours. "torchvision" in place of a path downloads its weights for ImageNet.
    Raises UserError where the file is missing, damaged, or of another network.
    """
    read = _download(architecture) if str(path) == DOWNLOAD else _read(Path(path))
    try:
        found = _named(read)
        if architecture == "mobilenet":
            found = _mobilenet(found)
    except Exception as error:
        raise UserError(f"{path} does not hold weights of {architecture} by name") from error
    wanted = model.state_dict()
    for name, tensor in wanted.items():
        if name.endswith("num_batches_tracked"):
            continue
        if name not in found:
            raise UserError(f"{path} has no {name}: these are weights of another network")
        if found[name].shape != tensor.shape and architecture == "googlenet":
            raise UserError(
                f"{path}: {name} is {_times(found[name])}, ours {_times(tensor)}: torchvision's "
                "GoogLeNet has 3x3 kernels where the published one has 5x5; take it as it is by "
                "architecture: torchvision.models:googlenet"
            )
        if found[name].shape != tensor.shape:
            raise UserError(
                f"{path}: {name} is {_times(found[name])}, the network's {_times(tensor)}: give it "
                "the multiplier, options and number of classes of the published one"
            )
        if not found[name].is_floating_point():
            raise UserError(f"{path}: {name} is of {found[name].dtype}: give weights of floats")
        if not found[name].isfinite().all():
            raise UserError(f"{path}: {name} is not finite: fetch the file again")
    unused = sorted(set(found) - set(wanted))
    if unused:
        raise UserError(f"{path} has {unused[0]}, which the network has not: these are another's")
    model.load_state_dict({name: found.get(name, tensor) for name, tensor in wanted.items()})
    return model


def _read(path: Path) -> Tensors:
    if not path.is_file():
        raise UserError(f"there is no file {path} of weights: put it there, or correct the path")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(np.array(arrays[name])) for name in arrays}
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is no file of tensors, or truncated, or holds more than tensors, which is not "
            "read since it could run code: save a state_dict alone"
        ) from error
    except Exception as error:  # what damaged files raise is without end
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is truncated or no file of weights ({reason})") from error
    for key in NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}, not weights by name")
    return content


def _download(architecture: str) -> Tensors:
    if architecture not in NAMES:
        known = ", ".join(NAMES)
        raise UserError(f"torchvision has no weights for {architecture}, only for {known}")
    from torchvision.models import get_model_weights  # here: it takes a second or two

    weights = get_model_weights(NAMES[architecture])["IMAGENET1K_V1"]
    try:
        # A file that was downloaded before is read without a look at its hash.
        return dict(weights.get_state_dict(check_hash=True, weights_only=True))
    except Exception as error:  # of the network, or of what was downloaded
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{weights.url} cannot be downloaded ({reason}): fetch it by other means, and give its "
            "path in place of torchvision"
        ) from error


def _named(tensors: Tensors) -> dict[str, Tensor]:
    """Without the prefix that torch's DataParallel gives every name."""
    return {
        name.removeprefix("module."): tensor
        for name, tensor in tensors.items()
        if isinstance(tensor, Tensor)
    }


def _mobilenet(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names and layouts of TensorFlow and Hugging Face to ours; ours stay."""
    if "stem.0.weight" in found:
        return found
    renamed = {}
    for name, tensor in found.items():
        tf = re.fullmatch(r"MobilenetV1/Conv2d_(\d+)(?:_(depthwise|pointwise))?/(.*)", name)
        hf = re.fullmatch(r"mobilenet_v1\.(?:conv_stem|layer\.(\d+))\.(\w+)\.(\w+)", name)
        if tf and (part := _of_tensorflow(tf[3])):
            layer = _layer(int(tf[1]), tf[2])
            renamed[f"{layer}.{part}"] = _from_tensorflow(tensor, name)
        elif hf:
            number = -1 if hf[1] is None else int(hf[1])
            layer = _layer(1 + number // 2, ("depthwise", "pointwise")[number % 2])
            renamed[f"{layer}.{int(hf[2] == 'normalization')}.{hf[3]}"] = tensor
        elif name in ("MobilenetV1/Logits/Conv2d_1c_1x1/weights", "classifier.weight"):
            renamed["classifier.weight"] = tensor if tensor.dim() == 2 else tensor[0, 0].T
        elif name in ("MobilenetV1/Logits/Conv2d_1c_1x1/biases", "classifier.bias"):
            renamed["classifier.bias"] = tensor
    return renamed


def _layer(number: int, kind: str | None) -> str:
    return "stem" if number == 0 else f"blocks.{number - 1}.{int(kind == 'pointwise')}"


def _of_tensorflow(rest: str) -> str | None:
    """None for what training alone needs: moments, moving averages of the weights."""
    if rest in ("weights", "depthwise_weights"):
        return "0.weight"
    part = NORMALISATION.get(rest.removeprefix("BatchNorm/"))
    return f"1.{part}" if part else None


def _from_tensorflow(tensor: Tensor, name: str) -> Tensor:
    """(h, w, in, out) to (out, in, h, w); of a depthwise kernel (h, w, c, 1) to (c, 1, h, w)."""
    if tensor.dim() != 4:
        return tensor
    order = (2, 3, 0, 1) if name.endswith("depthwise_weights") else (3, 2, 0, 1)
    return tensor.permute(order).contiguous()


def _times(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"
