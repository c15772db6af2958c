"""The search for cuts and reuse: the space, a recurrent controller trained by policy gradient, and its controls.

An architecture is a row of tokens: for each map size, shallow to deep, s - 1 cuts and then the s (s - 1) / 2 bits of
reuse. What a candidate is worth is measured once and kept; the reward of Sec. 3 of the paper,

    R = ACC (COST / MACs_static)^omega,

is computed from what was kept, so that any omega can be tried on it. The form and omega = -0.07 are MnasNet's, which
the paper's sources leave open. Two controls with as many candidates run beside the controller: draws of one that never
learns, which favours what few tokens reach, and draws that are even over all architectures.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import comb
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dynlib.errors import InputError
from dynlib.papers.s2dnas.convert import Config
from dynlib.papers.s2dnas.exits import Outcome
from dynlib.settings import check_number

OMEGA = -0.07  # halving the cost is worth 5 % of the accuracy
Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Space:
    """All architectures of a network."""

    sizes: int = 3  # groups of map sizes, `model.meta["groups"]` of a converted network
    stages: int = 3
    groups: int = 8  # of channels

    def __post_init__(self):
        for name, low in (("sizes", 1), ("stages", 2), ("groups", 2)):
            check_number(self, name, low, whole=True)
        if self.stages > self.groups:
            raise InputError(f"stages is {self.stages}; with {self.groups} groups there are at most as many")

    @property
    def bits(self) -> int:
        """Bits of reuse of one map size."""
        return self.stages * (self.stages - 1) // 2

    @property
    def per_size(self) -> int:
        """Choices of one map size."""
        return comb(self.groups - 1, self.stages - 1) * 2**self.bits

    def __len__(self) -> int:
        """Number of architectures."""
        return self.per_size**self.sizes

    def allowed(self, prefix: Tokens) -> range:
        """What the next token may be: a cut that rises and leaves a group to each later stage, or a bit."""
        place = len(prefix) % (self.stages - 1 + self.bits)
        if place >= self.stages - 1:
            return range(2)
        return range(prefix[-1] + 1 if place else 1, self.groups - self.stages + place + 2)

    @property
    def length(self) -> int:
        """Tokens of an architecture."""
        return self.sizes * (self.stages - 1 + self.bits)

    def config(self, tokens: Tokens) -> Config:
        """The settings that the tokens stand for."""
        step = self.stages - 1 + self.bits
        assert len(tokens) == self.length
        rows = [tokens[start : start + step] for start in range(0, self.length, step)]
        return Config(
            tuple((0, *row[: self.stages - 1], self.groups) for row in rows),
            tuple(row[self.stages - 1 :] for row in rows),
        )

    def draw(self, generator: torch.Generator | None = None) -> Tokens:
        """One architecture, all equally likely; without a generator from torch's own."""
        tokens = []
        for _ in range(self.sizes):
            order = torch.randperm(self.groups - 1, generator=generator)[: self.stages - 1]
            tokens += (order.sort().values + 1).tolist()
            tokens += torch.randint(2, (self.bits,), generator=generator).tolist()
        return tuple(tokens)

    def densest(self) -> Tokens:
        """The architecture with the largest first stages and full reuse."""
        return (*range(self.groups - self.stages + 1, self.groups), *[1] * self.bits) * self.sizes

    def every(self) -> Iterator[Tokens]:
        """All architectures."""
        cuts = itertools.combinations(range(1, self.groups), self.stages - 1)
        rows = [cut + bits for cut in cuts for bits in itertools.product((0, 1), repeat=self.bits)]
        return (tuple(itertools.chain(*choice)) for choice in itertools.product(rows, repeat=self.sizes))


class Measured(NamedTuple):
    """What a candidate was found to do on held-out images."""

    outcomes: tuple[Outcome, ...]  # at several thresholds
    macs_static: int
    seconds: float  # of the processor


class Candidate(NamedTuple):
    """One step of a search."""

    config: Config
    reward: float
    outcome: Outcome  # the one that was worth it


def reward(
    top1: float,
    macs: float,
    macs_static: int,
    omega: float = OMEGA,
) -> float:
    """ACC (COST / MACs_static)^omega."""
    return top1 * (macs / macs_static) ** omega  # eq-s2dnas-reward


class Judge:
    """Rewards of architectures, each measured once; `measured` can be read, and shared by searches."""

    def __init__(self, measure: Callable[[Sequence[Config]], Sequence[Measured]], omega: float = OMEGA):
        self.measure, self.omega = measure, omega
        self.measured: dict[Config, Measured] = {}

    def __call__(self, configs: Sequence[Config]) -> list[Candidate]:
        """Candidates in the order of the settings; those not seen yet are measured together."""
        fresh = [config for config in dict.fromkeys(configs) if config not in self.measured]
        self.measured |= dict(zip(fresh, self.measure(fresh), strict=True)) if fresh else {}
        return [self._best(config) for config in configs]

    def _best(self, config: Config) -> Candidate:
        outcomes, static, _ = self.measured[config]
        worth = [reward(outcome.top1, outcome.macs, static, self.omega) for outcome in outcomes]
        best = max(range(len(worth)), key=worth.__getitem__)
        return Candidate(config, worth[best], outcomes[best])


class Controller(nn.Module):
    """A recurrent policy over tokens, in the manner of ENAS: one LSTM layer, one output for cuts and one for bits."""

    def __init__(self, space: Space, units: int = 64, temper: float = 1.5):
        super().__init__()
        self.space, self.temper = space, temper
        self.embedding = nn.Embedding(1 + space.groups + 2, units)  # start, cuts, bits
        self.cell = nn.LSTMCell(units, units)
        self.cut, self.bit = nn.Linear(units, space.groups), nn.Linear(units, 2)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)

    def forward(self, generator: torch.Generator) -> tuple[Tokens, Tensor, Tensor]:
        """An architecture, the logarithm of its probability, and the entropy summed over its tokens."""
        state, last, tokens = None, torch.zeros(1, dtype=torch.int64), ()
        log_probability = entropy = torch.zeros(())
        for _ in range(self.space.length):
            state = self.cell(self.embedding(last), state)
            allowed = self.space.allowed(tokens)
            is_bit = len(tokens) % (self.space.stages - 1 + self.space.bits) >= self.space.stages - 1
            scores = self.temper * torch.tanh((self.bit if is_bit else self.cut)(state[0])[0])
            policy = scores[allowed.start : allowed.stop].log_softmax(0)
            choice = int(torch.multinomial(policy.detach().exp(), 1, generator=generator))
            log_probability = log_probability + policy[choice]
            entropy = entropy - (policy.exp() * policy).sum()
            token = allowed[choice]
            tokens = (*tokens, token)
            last = torch.tensor([token + (1 + self.space.groups if is_bit else 1)])
        return tokens, log_probability, entropy


def policy_search(
    space: Space,
    judge: Judge,
    samples: int,
    *,
    seed: int,
    lr: float = 3.5e-3,
    batch: int = 5,
    decay: float = 0.95,
    entropy_weight: float = 1e-4,
) -> list[Candidate]:
    """REINFORCE (Sec. 3): `samples` candidates in the order in which they were drawn, repeats included.

    At the rate 0 the controller never learns: the control. The default suits up to 500 samples; take 1e-3 for more. The
    baseline is a moving average that starts at the first batch's mean: rewards are all near each other, and one that
    starts at zero would teach every first choice.
    Raises InputError for no samples.
    """
    if samples < 1:
        raise InputError(f"samples is {samples}; at least 1")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        controller = Controller(space)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(controller.parameters(), lr)
    history: list[Candidate] = []
    baseline = None
    while len(history) < samples:
        count = min(batch, samples - len(history))
        drawn = [controller(generator) for _ in range(count)]
        tokens, log_probability, entropy = zip(*drawn, strict=True)
        found = judge([space.config(of) for of in tokens])
        rewards = torch.tensor([candidate.reward for candidate in found])
        mean = rewards.mean().item()
        new = (1 - decay) * mean
        baseline = mean if baseline is None else decay * baseline + new
        ahead = rewards - baseline
        gain = ahead * torch.stack(log_probability)  # eq-s2dnas-policy
        loss = -gain.mean() - entropy_weight * torch.stack(entropy).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history += found
    return history


def random_search(space: Space, judge: Judge, samples: int, *, seed: int) -> list[Candidate]:
    """As many different architectures drawn evenly. Raises InputError where there are not that many."""
    if not 1 <= samples <= len(space):
        raise InputError(f"samples is {samples}; the space has 1 to {len(space)}")
    generator, drawn = torch.Generator().manual_seed(seed), {}
    while len(drawn) < samples:
        drawn.setdefault(space.draw(generator))
    return judge([space.config(tokens) for tokens in drawn])


def exhaustive(space: Space, judge: Judge) -> list[Candidate]:
    """Every architecture of the space, the best first."""
    return best(judge([space.config(tokens) for tokens in space.every()]))


def best(history: Sequence[Candidate], count: int | None = None) -> list[Candidate]:
    """Different candidates of a search, the highest reward first; `count` of them where given."""
    return sorted(dict.fromkeys(history), key=lambda candidate: -candidate.reward)[:count]
