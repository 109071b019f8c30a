"""A compressed network to take away: weights with their widths, torch.export, ONNX, a model card.

`export` writes the folder, `load` builds the network again from it. Nothing is pickled: weights and
what they belong to are one safetensors file, whose metadata name the architecture.
"""

import copy
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ecc.card import Facts, card
from ecc.checkpoints import read_tensors
from ecc.errors import UserError
from ecc.networks import Network
from ecc.runs import temporary, write_text
from ecc.sources import MARK
from ecc.training import refuse_wrong

WEIGHTS, PROGRAM, ONNX, CARD = "model.safetensors", "model.pt2", "model.onnx", "README.md"
FORMAT, VERSION = "ecc network", 1
BATCHES = (1, 3)  # on which the exported forms are compared with PyTorch
TOLERANCE = 1e-4  # of scores


@dataclass(frozen=True)
class Saved:
    """What a file of weights says of them.

    `normalisation` has mean and deviation of the channels for pixels in [0, 1], or is None;
    `classes` are names, as many as scores where all are known.
    """

    network: Network
    widths: list[int]
    normalisation: Mapping[str, list[float]] | None
    classes: list[str]


def export(folder: str | Path, model: nn.Module, network: Network, facts: Facts) -> None:
    """Writes a slim `model` into `folder`: model.safetensors, model.pt2, model.onnx, README.md.

    `network` is the dense one as it is deployed: pt2 and ONNX are for images of its size, in any
    batch. Raises UserError where what was written does not compute what `model` does: bit by bit
    when it is built again, to 1e-4 in the other forms.
    """
    folder = Path(folder)
    own = plain(model)
    inputs = [_noise(count, network.size) for count in BATCHES]
    with torch.no_grad():
        scores = [own(images) for images in inputs]
    with temporary(folder / WEIGHTS) as draft:
        _save(draft, own, network, facts)
        again = load(draft, trust=True)
        with torch.no_grad():
            _compare(f"the network that {WEIGHTS} builds", again, inputs, scores, tolerance=0.0)
    program = _program(own, network.size)
    for name, (content, run) in {PROGRAM: _pt2(program), ONNX: _onnx(program)}.items():
        _compare(name, run, inputs, scores, tolerance=TOLERANCE)
        with temporary(folder / name) as draft:
            draft.write_bytes(content)
    task = "image-segmentation" if scores[0].dim() == 4 else "image-classification"
    text = card(facts, network.structure, network.architecture, network.size, task)
    write_text(folder / CARD, text)


def load(path: str | Path, *, trust: bool = False) -> nn.Module:
    """The network of an exported folder or its model.safetensors, in evaluation mode, on the CPU.

    A network whose architecture is a function outside of ecc runs that function: only with `trust`.
    Raises UserError, one line that names the file, where it is missing, truncated, of something
    else, of a later format, of an unknown architecture, or has other weights than its widths need.
    """
    file = _file(path)
    tensors, metadata = read_tensors(file)
    saved = _described(file, metadata)
    architecture = saved.network.architecture
    if MARK in architecture and not trust:
        raise UserError(
            f"{file}: its network is built by {architecture}, code outside of ecc: "
            "load it with trust=True if you trust that code"
        )
    # Before anything of that size is built.
    largest = max((size for tensor in tensors.values() for size in tensor.shape), default=0)
    if max([*saved.widths, saved.network.classes]) > largest:
        raise UserError(f"{file} does not fit its own widths: all weights are narrower")
    try:
        with torch.random.fork_rng(devices=[]):  # the caller's draws stay as they are
            model = saved.network.build(saved.widths)
        refuse_wrong(file, tensors, model)
        model.load_state_dict(tensors)
    except UserError as error:
        known = str(error).startswith(str(file))
        raise error if known else UserError(f"{file}: {error}") from error
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"{file} does not fit its own widths: {reason}") from error
    return model.eval()


def describe(path: str | Path) -> Saved:
    """What an exported folder, or its model.safetensors, says of the network; raises as `load`."""
    file = _file(path)
    return _described(file, read_tensors(file)[1])


def plain(model: nn.Module) -> nn.Module:
    """A copy as a file would give it back: on the CPU, in evaluation mode, in torch's own layout.

    Convolutions choose their arithmetic by the memory layout, so that bits depend on it.
    """
    found = copy.deepcopy(model).cpu().eval()
    for tensor in (*found.parameters(), *found.buffers()):
        tensor.grad = None
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    return found


def _save(path: Path, model: nn.Module, network: Network, facts: Facts) -> None:
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "network": {entry.name: getattr(network, entry.name) for entry in fields(network)},
        "widths": facts.widths,
        "normalisation": facts.images.normalisation,
        "class_names": list(facts.images.classes),
    }
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, path, {"format": "pt", "ecc": json.dumps(metadata, default=dict)})


def _file(path: str | Path) -> Path:
    file = Path(path)
    file = file / WEIGHTS if file.is_dir() else file
    if not file.is_file():
        raise UserError(f"{file} is missing: name the folder of an exported network")
    return file


def _described(file: Path, metadata: Mapping[str, str]) -> Saved:
    try:
        content = json.loads(metadata["ecc"])
        if content["format"] != FORMAT:
            raise ValueError("another format")
        if content["version"] != VERSION:
            raise UserError(
                f"{file}: network format {content['version']}, this version of ecc reads "
                f"{VERSION}: update ecc or export the network again"
            )
        height, width = content["network"]["size"]
        return Saved(
            Network(**{**content["network"], "size": (height, width)}),
            [int(width) for width in content["widths"]],
            content["normalisation"],
            content["class_names"],
        )
    except UserError as error:
        known = str(error).startswith(str(file))
        raise error if known else UserError(f"{file}: {error}") from error
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(f"{file} is no network that ecc exported: export it with ecc") from error


def _noise(count: int, size: tuple[int, int]) -> Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(count))


def _compare(
    name: str,
    run: Callable[[Tensor], Tensor],
    inputs: list[Tensor],
    scores: list[Tensor],
    *,
    tolerance: float,
) -> None:
    """Raises UserError where `run` gives other scores than PyTorch gave for the same images."""
    for images, expected in zip(inputs, scores, strict=True):
        worst = float((run(images) - expected).detach().abs().max())
        if not worst <= tolerance:  # a difference that is no number, too
            raise UserError(
                f"{name} differs from PyTorch by {worst:.3g} on {len(images)} random images, "
                f"more than {tolerance:g}: it was not written"
            )


def _program(model: nn.Module, size: tuple[int, int]) -> torch.export.ExportedProgram:
    # Two images: torch takes a dimension of size 1 for a constant.
    batch = torch.export.Dim("batch", min=1)
    return torch.export.export(model, (torch.zeros(2, 3, *size),), dynamic_shapes=({0: batch},))


def _pt2(program: torch.export.ExportedProgram) -> tuple[bytes, Callable[[Tensor], Tensor]]:
    """The content of a .pt2 file, and what it computes."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    content = buffer.getvalue()
    module = torch.export.load(io.BytesIO(content)).module()

    def run(images: Tensor) -> Tensor:
        with torch.no_grad():
            scores: Tensor = module(images)
        return scores

    return content, run


def _onnx(program: torch.export.ExportedProgram) -> tuple[bytes, Callable[[Tensor], Tensor]]:
    """The content of an .onnx file, and what onnxruntime computes with it."""
    import onnxruntime  # here, as torch imports its own exporter: loading takes neither

    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["scores"]}
    found = torch.onnx.export(program, (), dynamo=True, verbose=False, **names)
    if found is None:
        raise UserError("torch gave no ONNX program")
    content: bytes = found.model_proto.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        [scores] = session.run(["scores"], {"images": images.numpy()})
        return torch.from_numpy(np.asarray(scores))

    return content, run
