"""AMC (He et al., ECCV 2018), with energy as the resource: an agent chooses widths group by group.

Every episode walks over the channel groups in forward order; DDPG (`ecc.methods.ddpg`) gives each
the share of its channels that stays. A wall on the energy model keeps every episode inside the
budget. The reward is the hold-out accuracy of the network whose layers were refitted by least
squares, without training; the best episode is what is returned.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import truncnorm
from torch import Tensor, nn

from ecc.errors import require
from ecc.methods.checkpoint import Checkpoint
from ecc.methods.ddpg import Agent
from ecc.methods.problem import Compressed, Problem
from ecc.methods.reconstruction import Reconstruction
from ecc.methods.recording import Recorder
from ecc.training import device_of, evaluate

Floats = NDArray[np.float64]
Widths = NDArray[np.int64]


@dataclass(frozen=True)
class Settings:
    """The published ones by default: `episodes`, of which the first `warm_up` act at random and the
    others with truncated normal noise, `noise` of standard deviation that decays by `decay` each.

    No group keeps fewer than `smallest_ratio` of its channels, unless the budget needs it; widths
    are multiples of `multiple` where the wall allows. Least squares sees `positions` of each of
    `batches` x 50 training images. A reward is the accuracy on `holdout_images` (0: all), which are
    spread evenly over the split and the same in every episode.
    """

    episodes: int = 400
    warm_up: int = 100
    noise: float = 0.5
    decay: float = 0.95
    smallest_ratio: float = 0.2
    multiple: int = 8
    batches: int = 60
    positions: int = 10
    holdout_images: int = 0

    def __post_init__(self) -> None:
        require(
            self,
            "methods.amc.",
            episodes=self.episodes >= 1,
            warm_up=self.warm_up >= 1,
            noise=self.noise > 0,
            decay=0 < self.decay <= 1,
            smallest_ratio=0 <= self.smallest_ratio <= 1,
            multiple=self.multiple >= 1,
            batches=self.batches >= 0,
            positions=self.positions >= 1,
            holdout_images=self.holdout_images >= 0,
        )


IMAGES = 50  # of one batch that least squares sees
LEAST_NOISE = 1e-9  # that a draw is defined where the noise has decayed to nothing


def compress(problem: Problem, settings: Settings) -> Compressed:
    """Searches for `episodes`, keeps the best; trains nothing: its iterations go to fine-tuning."""
    search = _Search(problem, settings)
    with Checkpoint(problem, settings) as checkpoint:
        if saved := checkpoint.restore():
            search.restore(*saved)
        while len(search.history) < settings.episodes:
            search.episode(len(search.history))
            checkpoint.save(search.history, search.state)
    keep = search.pruner.choose(search.best)
    model = search.pruner.pruned(keep)
    history = pd.DataFrame(search.history).astype({"episode": int})
    return Compressed(model, keep, history, iterations=0)


class Wall:
    """The widths that keep an episode inside the budget, one group after another.

    With the groups that are not decided yet at their smallest width, a group may take its largest
    width whose energy is inside (AMC, section 3.3, with the energy model for the FLOPs).
    """

    def __init__(self, problem: Problem, smallest_ratio: float, multiple: int):
        self.problem, self.multiple, self.full = problem, multiple, problem.full_widths
        wanted = np.ceil(smallest_ratio * self.full).astype(np.int64)
        self.least = np.maximum(problem.smallest, wanted)
        if problem.joules(self.least) > problem.budget_j:
            self.least = problem.smallest

    def width(self, decided: Sequence[int], share: float) -> int:
        """The width of the next group, for a share in [0, 1] of its channels."""
        return int(self.widths(np.array([decided], dtype=np.int64), np.array([share]))[0])

    def widths(self, decided: Widths, shares: Floats) -> Widths:
        """The same of many episodes: widths (n, groups so far) and shares (n,) to widths (n,)."""
        group = decided.shape[1]
        least, full = int(self.least[group]), int(self.full[group])
        aimed = shares * full
        wanted = np.round(aimed / self.multiple) * self.multiple
        # All of a group need not be a multiple.
        whole = (wanted > full) | (full - aimed < abs(wanted - aimed))
        wanted = np.maximum(np.where(whole, full, wanted), least).astype(np.int64)
        options = np.arange(least, wanted.max() + 1)
        trials = np.tile(self.least, (len(decided), len(options), 1))
        trials[..., :group] = decided[:, None]
        trials[..., group] = options
        inside = self.problem.energy.energy(trials) <= self.problem.budget_j
        inside &= options <= wanted[:, None]
        # The smallest width is inside: it was when the group before was decided.
        allowed = np.where(inside, options, least).max(axis=1)
        rounded = np.where(inside & (options % self.multiple == 0), options, 0).max(axis=1)
        return np.asarray(np.where((allowed == wanted) | (rounded == 0), allowed, rounded))


class Features:
    """What the agent sees of a group and of the episode so far, each in [0, 1]: 12 numbers.

    Of the operation that reads the group first: index, whether a depthwise one reads it too, input
    and output channels, height and width, stride, kernel, and the share of dense energy that the
    group decides on; then the energy reduced so far, what can still be, and the last action.
    """

    SIZE = 12

    def __init__(self, problem: Problem):
        structure, self.problem = problem.channels.structure, problem
        rows = []
        self.dense_j = problem.joules(problem.full_widths)
        for group, width in enumerate(problem.full_widths):
            reading = [op for op in structure.operations if group in op.reads]
            first = next((op for op in reading if op.kind != "depthwise"), reading[0])
            alone = problem.full_widths.copy()
            alone[group] = problem.smallest[group]
            out = first.fixed_out if first.writes is None else structure.groups[first.writes].width
            rows.append(
                [
                    *(group, any(op.kind == "depthwise" for op in reading), width, out),
                    *(*first.in_size, first.stride[0], first.kernel[0]),
                    (self.dense_j - problem.joules(alone)) / self.dense_j,
                ]
            )
        table = np.array(rows, dtype=float)
        low, span = table.min(axis=0), np.ptp(table, axis=0)
        self.fixed = (table - low) / np.where(span > 0, span, 1)

    def of(self, decided: Sequence[int], action: float, least: Widths) -> Floats:
        """The state (12,) in which the next group is decided, after `action` for the last."""
        group, full = len(decided), self.problem.full_widths
        now_j = self.problem.joules(np.array([*decided, *full[group:]]))
        least_j = self.problem.joules(np.array([*decided, *least[group:]]))
        reduced, rest = (self.dense_j - now_j) / self.dense_j, (now_j - least_j) / self.dense_j
        return np.array([*self.fixed[group], reduced, rest, action])


class Pruner:
    """Masks the dense network to given widths, refits its layers, and says how accurate it is."""

    def __init__(self, problem: Problem, settings: Settings):
        self.problem, channels = problem, problem.channels
        self.device = device_of(problem.training.device)
        self.dense = problem.student().eval()
        norms = channels.scores(self.dense, torch.abs)
        self.order = [torch.sort(n, descending=True, stable=True).indices.cpu() for n in norms]
        stream = problem.train.batches(IMAGES, problem.seed)
        images = [next(stream)[0] for _ in range(settings.batches)]
        recorder = Recorder(images, settings.positions, seed=problem.seed)
        self.reconstruction = Reconstruction(channels, self.dense, recorder if images else None)
        self.model = problem.student().eval()
        few = settings.holdout_images
        self.holdout = problem.some_holdout(few) if few else problem.holdout

    def choose(self, widths: Sequence[int] | Widths) -> list[Tensor]:
        """The channels of largest sum |w| in each group."""
        keep = []
        for order, width in zip(self.order, widths, strict=True):
            chosen = torch.zeros(len(order), dtype=torch.bool)
            chosen[order[: int(width)]] = True
            keep.append(chosen)
        return keep

    def pruned(self, keep: Sequence[Tensor]) -> nn.Module:
        """The one model of this object, masked and refitted."""
        self.model.load_state_dict(self.dense.state_dict())
        self.problem.channels.mask(self.model, keep)
        self.reconstruction.refit(self.model, keep)
        return self.model

    def accuracy(self, model: nn.Module) -> float:
        """On the hold-out images of an episode, a fraction."""
        return evaluate(model, self.holdout, device=self.problem.training.device)


class _Search:
    def __init__(self, problem: Problem, settings: Settings):
        self.problem, self.settings = problem, settings
        self.pruner = Pruner(problem, settings)
        self.wall = Wall(problem, settings.smallest_ratio, settings.multiple)
        self.features, groups = Features(problem), len(problem.full_widths)
        self.agent = Agent(Features.SIZE, 100 * groups, seed=problem.seed)
        self.history: list[dict[str, float]] = []
        self.best = self.wall.least
        self.reward = -1.0

    def episode(self, number: int) -> None:
        """One walk over all groups, its reward, and the agent's updates."""
        # A stream of its own for every episode: a resumed search draws the same.
        stream = np.random.default_rng([self.problem.seed, number])
        past_warm_up = number - self.settings.warm_up
        decayed = self.settings.noise * self.settings.decay ** max(past_warm_up, 0)
        noise = max(decayed, LEAST_NOISE)
        decided: list[int] = []
        states, actions, action = [], [], 1.0
        for full in self.problem.full_widths:
            state = self.features.of(decided, action, self.wall.least)
            if past_warm_up < 0:
                share = stream.random()
            else:
                share = _noisy(self.agent.act(state), noise, stream)
            decided.append(self.wall.width(decided, share))
            action = decided[-1] / int(full)  # what was done, not what was asked for
            states.append(state)
            actions.append(action)
        keep = self.pruner.choose(decided)
        accuracy = self.pruner.accuracy(self.pruner.pruned(keep))
        taken = torch.tensor(np.array(states), dtype=torch.float32), torch.tensor(actions)
        self.agent.memory.add(taken[0], taken[1].float(), accuracy)
        if past_warm_up >= 0:
            for _ in decided:
                self.agent.update(stream)
        if accuracy > self.reward:
            self.reward, self.best = accuracy, np.array(decided)
        energy_j = self.problem.joules(np.array(decided))
        row = {"episode": number, "holdout_accuracy": accuracy, "energy_j": energy_j}
        shown = noise if past_warm_up >= 0 else math.nan
        self.history.append({**row, "noise": shown, "best": self.reward})

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint needs besides the history."""
        agent = {f"agent.{name}": value for name, value in self.agent.state().items()}
        return {"best": torch.tensor(self.best), **agent}

    def restore(self, history: list[dict[str, float]], tensors: dict[str, Tensor]) -> None:
        """Goes on from what a checkpoint has of this very search."""
        self.history, self.reward = history, history[-1]["best"]
        self.best = tensors.pop("best").numpy()
        self.agent.restore({k.removeprefix("agent."): v for k, v in tensors.items()})


def _noisy(action: float, sigma: float, stream: np.random.Generator) -> float:
    """A draw from the normal distribution around an action, truncated to [0, 1]."""
    low, high = (0 - action) / sigma, (1 - action) / sigma
    return float(truncnorm.rvs(low, high, loc=action, scale=sigma, random_state=stream))
