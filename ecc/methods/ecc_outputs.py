"""ECC that looks at outputs: an improvement of `ecc`, kept apart from the faithful method.

The optimisation problem, the proximal operator, the duals and the learning rate are those of `ecc`.
What differs, each with a setting that switches it off:

- `batches`: a channel's score tells how much it moves the outputs of the layers that read it, and
  how much these matter to the loss. The size of a depthwise kernel, which ECC adds to the score,
  says nothing about either where a batch norm follows.
- `exponent`, `ramp`: energy falls early, and fast first, so that most iterations train the final
  widths. (A polynomial schedule, as Zhu and Gupta, To prune or not to prune, 2017, for sparsity.)
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ecc.channels import Reader, is_depthwise
from ecc.errors import require
from ecc.memory import at_once
from ecc.methods import ecc
from ecc.methods.problem import Compressed, Problem

SEVERAL_BUDGETS = True


@dataclass(frozen=True)
class Settings(ecc.Settings):
    """Those of `ecc`, and:

    `batches` of training images, over which variances are taken; they count as iterations. With
    none, scores are those of `ecc`. `exponent`: at a time t in [0, 1] of the ramp, (1 - t) **
    exponent of the way to the budget is left, at the automatic pace; 1 is the line of `ecc`.
    """

    method: ClassVar[str] = "ecc_outputs"

    ramp: float = 0.3
    exponent: float = 2.0
    batches: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self,
            f"methods.{self.method}.",
            exponent=self.exponent > 0,
            batches=self.batches >= 0,
        )


def compress(problem: Problem, settings: Settings) -> Compressed:
    """As `ecc.compress`, with other scores and on another schedule."""
    given = problem.training.iterations
    batches = min(settings.batches, given)
    variances = input_variances(problem, batches)
    training = replace(problem.training, iterations=given - batches)
    problem = replace(problem, training=training)
    solver = Solver(problem, problem.student(), settings, variances)
    return replace(ecc.run(problem, solver), iterations=given)


class Solver(ecc.Solver):
    """That of ECC, with another diagonal and another way to the budget.

    `variances` (inputs,) are those of what a layer reads, by the layer's name.
    """

    settings: Settings

    def __init__(
        self, problem: Problem, model: nn.Module, settings: Settings, variances: dict[str, Tensor]
    ):
        super().__init__(problem, model, settings)
        self.inputs = {
            reader.weight(model): (reader.dim, variances[reader.layer])
            for reader in _columns(problem, model)
            if variances
        }

    def _left(self, iteration: int) -> float:
        return float(super()._left(iteration) ** self.settings.exponent)

    def _diagonal(self, weight: Tensor, optimizer: Optimizer) -> Tensor:
        """D = Var(x_i) g_o for the weight by which filter o reads input i; 0 for depthwise kernels.

        g_o^2 is the mean square of the gradient at the output: mean over i of D_adam^2 / mean over
        i of Var(x_i), as if D_adam^2 were g_o^2 Var(x_i).
        """
        diagonal = super()._diagonal(weight, optimizer)
        if not self.inputs:
            return diagonal
        if weight not in self.inputs:
            return diagonal.zero_()
        dim, variance = self.inputs[weight]
        others = [each for each in range(weight.dim()) if each != 1 - dim]
        gradient = (diagonal.square().mean(others, keepdim=True) / variance.mean()).sqrt()
        shape = [-1 if each == dim else 1 for each in range(weight.dim())]
        return gradient * variance.view(shape)


@torch.no_grad()
def input_variances(problem: Problem, batches: int) -> dict[str, Tensor]:
    """Var(x_i) of each input of the layers that read channels, in the dense network: (inputs,).

    By the layer's name; the mean over `batches` of training images, without any nothing.
    """
    model, found = problem.student().eval(), dict[str, Tensor]()
    device = next(model.parameters()).device

    def add(name: str, layer: nn.Module, given: tuple[Tensor]) -> None:
        others = [dim for dim in range(given[0].dim()) if dim != 1]
        # A constant input keeps a score, so that a group of such channels can be ranked.
        variance = given[0].var(dim=others, correction=0).clamp(min=1e-12)
        share = len(given[0]) / (batches * problem.training.batch_size)
        found[name] = found.get(name, torch.zeros_like(variance)) + share * variance

    for name in {reader.layer for reader in _columns(problem, model)}:
        model.get_submodule(name).register_forward_pre_hook(partial(add, name))
    stream = problem.train.batches(problem.training.batch_size, problem.seed)
    for _, (images, _) in zip(range(batches), stream, strict=False):
        for part in images.split(at_once(images.shape[-2:])):  # type: ignore[no-untyped-call]
            model(part.to(device))
    return found


def _columns(problem: Problem, model: nn.Module) -> list[Reader]:
    """All readers but depthwise kernels."""
    readers = [reader for group in problem.channels.readers for reader in group]
    return [each for each in readers if not is_depthwise(model.get_submodule(each.layer))]
