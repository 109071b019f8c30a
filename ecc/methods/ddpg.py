"""Deep deterministic policy gradient (Lillicrap et al., ICLR 2016), as AMC sets it up.

He et al., AMC, ECCV 2018, section 3.4: one continuous action a step, the reward of an episode given
to each of its steps, less a moving average; no discount.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam

from ecc.optimizer import EagerAdam

Floats = NDArray[np.float64]
UNITS = 300
ACTOR_RATE, CRITIC_RATE = 1e-4, 1e-3
SOFT = 0.01  # tau, of the target networks
BATCH = 64
AVERAGING = 0.5  # of the moving average of rewards


class Actor(nn.Module):
    """States (n, features) to actions (n, 1) in (0, 1)."""

    def __init__(self, features: int):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Linear(features, UNITS), nn.ReLU(), nn.Linear(UNITS, UNITS), nn.ReLU()),
            *(nn.Linear(UNITS, 1), nn.Sigmoid()),
        )

    def forward(self, states: Tensor) -> Tensor:
        actions: Tensor = self.layers(states)
        return actions


class Critic(nn.Module):
    """States (n, features) and actions (n, 1) to their values (n, 1)."""

    def __init__(self, features: int):
        super().__init__()
        self.state, self.action = nn.Linear(features, UNITS), nn.Linear(1, UNITS)
        self.layers = nn.Sequential(
            nn.ReLU(), nn.Linear(UNITS, UNITS), nn.ReLU(), nn.Linear(UNITS, 1)
        )

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        values: Tensor = self.layers(self.state(states) + self.action(actions))
        return values


@dataclass
class Memory:
    """The last `capacity` steps: columns of states, actions, rewards, next states, and not-last."""

    capacity: int
    features: int

    def __post_init__(self) -> None:
        self.rows = torch.zeros(0, 2 * self.features + 3)

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, states: Tensor, actions: Tensor, reward: float) -> None:
        """The steps of one episode: states (steps, features), actions (steps,)."""
        goes_on = torch.ones(len(states), 1)
        goes_on[-1] = 0
        columns = (states, actions[:, None], torch.full_like(goes_on, reward))
        following = torch.cat([states[1:], torch.zeros(1, self.features)])
        episode = torch.cat([*columns, following, goes_on], dim=1)
        self.rows = torch.cat([self.rows, episode])[-self.capacity :]

    def sample(self, stream: np.random.Generator) -> tuple[Tensor, ...]:
        chosen = torch.from_numpy(stream.integers(len(self.rows), size=BATCH))
        return torch.split(self.rows[chosen], [self.features, 1, 1, self.features, 1], dim=1)


class Agent:
    """Actor and critic with their slowly following targets."""

    def __init__(self, features: int, capacity: int, *, seed: int):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.actor, self.critic = Actor(features), Critic(features)
        self.slow_actor, self.slow_critic = copy.deepcopy((self.actor, self.critic))
        self.actor_step = EagerAdam(self.actor.parameters(), lr=ACTOR_RATE, fused=True)
        self.critic_step = EagerAdam(self.critic.parameters(), lr=CRITIC_RATE, fused=True)
        self.memory = Memory(capacity, features)
        self.average: float | None = None

    @torch.no_grad()
    def act(self, state: Floats) -> float:
        """The action for one state (features,)."""
        return float(self.actor(torch.tensor(state[None], dtype=torch.float32)))

    def update(self, stream: np.random.Generator) -> None:
        """One step of critic and actor on a batch of the memory."""
        states, actions, rewards, following, goes_on = self.memory.sample(stream)
        mean = float(rewards.mean())
        before = mean if self.average is None else self.average
        self.average = before + AVERAGING * (mean - before)
        with torch.no_grad():
            ahead = self.slow_critic(following, self.slow_actor(following))
            targets = rewards - self.average + goes_on * ahead
        _descend(self.critic_step, functional.mse_loss(self.critic(states, actions), targets))
        _descend(self.actor_step, -self.critic(states, self.actor(states)).mean())
        for slow, fast in ((self.slow_actor, self.actor), (self.slow_critic, self.critic)):
            old, new = ([p.data for p in network.parameters()] for network in (slow, fast))
            torch._foreach_lerp_(old, new, SOFT)

    def state(self) -> dict[str, Tensor]:
        """All that a resumed run needs."""
        found = {"memory": self.memory.rows}
        found["average"] = torch.tensor(float("nan") if self.average is None else self.average)
        for name in ("actor", "critic", "slow_actor", "slow_critic"):
            for key, value in getattr(self, name).state_dict().items():
                found[f"{name}.{key}"] = value.clone()
        for name in ("actor_step", "critic_step"):
            for index, entry in getattr(self, name).state_dict()["state"].items():
                for key, value in entry.items():
                    found[f"{name}.{index}.{key}"] = value.clone()
        return found

    def restore(self, state: dict[str, Tensor]) -> None:
        self.memory.rows = state["memory"]
        average = float(state["average"])
        self.average = None if np.isnan(average) else average
        for name in ("actor", "critic", "slow_actor", "slow_critic"):
            getattr(self, name).load_state_dict(_below(state, name))
        for name in ("actor_step", "critic_step"):
            optimizer = getattr(self, name)
            moments: dict[int, dict[str, Tensor]] = {}
            for key, value in _below(state, name).items():
                index, _, moment = key.partition(".")
                moments.setdefault(int(index), {})[moment] = value
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": moments, "param_groups": groups})


def _descend(optimizer: Adam, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _below(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}
