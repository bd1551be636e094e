"""The maths of a learner step written by hand in plain PyTorch: what `benchmarks.learner` measures ours against.

Nothing of ours but the kernels of CURL: no masks, terms, groups or checks, and only the metrics that such loops log.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from learners.augment import random_shift

Frames = dict[str, Tensor]


class Plain(nn.Module):
    """An actor-critic on stacks of frames (shared features) or on vectors (separate networks).

    Args:
        inputs: shape of an observation.
        actions: how many there are.
        bf16: convolutions under autocast.
        contrast: with CURL's head.
    """

    def __init__(self, inputs: tuple[int, ...], actions: int, *, bf16: bool, contrast: bool) -> None:
        super().__init__()
        self.bf16, self.image = bf16, len(inputs) == 3
        width = 512 if self.image else 64
        self.encoder = nature(inputs[0]) if self.image else mlp(inputs[0])
        self.critic = None if self.image else mlp(inputs[0])
        self.policy, self.value = nn.Linear(width, actions), nn.Linear(width, 1)
        if contrast:
            self.projection = nn.Sequential(nn.Linear(width, 128), nn.LayerNorm(128))
            self.matrix = nn.Parameter(torch.eye(128) / math.sqrt(128))

    def features(self, observation: Tensor, encoder: nn.Module) -> Tensor:
        """Features of observations (n, ...), float32."""
        if not self.image:
            return encoder(observation)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            dtype = torch.bfloat16 if self.bf16 else torch.float32
            pixels = observation.to(memory_format=torch.channels_last).to(dtype)
            return encoder(pixels.mul_(1 / 255)).float()

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features, log-probabilities of all actions, values."""
        features = self.features(observation, self.encoder)
        critic = features if self.critic is None else self.features(observation, self.critic)
        return features, self.policy(features).log_softmax(-1), self.value(critic).squeeze(-1)


def nature(channels: int) -> nn.Sequential:
    """The convolutional encoder of Mnih et al. 2015 for 84x84."""
    layers = [nn.Conv2d(channels, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3, 1)]
    encoder = nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(3136, 512), nn.ReLU())
    return encoder.to(memory_format=torch.channels_last)


def mlp(inputs: int) -> nn.Sequential:
    """Two layers of 64."""
    return nn.Sequential(nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())


class Loop:
    """A learner's step on batches (B, T + 1, ...) whose rows all hold decisions but each window's last.

    Args:
        model: to train.
        slow: the key encoder and projection of CURL; None: without CURL.
        lr: Adam's.
    """

    def __init__(self, model: Plain, slow: tuple[nn.Module, nn.Module] | None, *, lr: float) -> None:
        self.model, self.slow = model, slow
        self.optimiser = torch.optim.Adam(model.parameters(), lr=lr, eps=1e-5, fused=True)

    def step(self, batch: Frames) -> list[list[float]]:
        """Four epochs of four minibatches; the metrics of each."""
        columns = self.targets(batch)
        history = []
        for _ in range(4):
            for rows in torch.randperm(len(columns["action"])).tensor_split(4):
                history.append(self.minibatch({name: column[rows] for name, column in columns.items()}))
        return history

    @torch.no_grad()
    def targets(self, batch: Frames) -> Frames:
        """Normalised advantages, returns and keys: flat columns of the decided rows."""
        value = batch["value"].clone()
        value[:, -1] = self.model(batch["observation"][:, -1])[2]
        ongoing, rows = 1 - batch["terminated"], batch["reward"].shape[1] - 1
        advantage, tail = torch.zeros_like(value), torch.zeros(len(value))
        for t in reversed(range(rows)):
            error = batch["reward"][:, t] + 0.99 * ongoing[:, t] * value[:, t + 1] - value[:, t]
            tail = advantage[:, t] = error + 0.99 * 0.95 * ongoing[:, t] * tail
        flat = {name: batch[name][:, :-1].flatten(0, 1) for name in ("observation", "action", "log_prob")}
        advantage = advantage[:, :-1].flatten()
        flat |= {"return": advantage + value[:, :-1].flatten()}
        flat |= {"advantage": (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-8)}
        return flat | ({"key": torch.cat(list(self.keys(flat["observation"])))} if self.slow else {})

    def keys(self, observation: Tensor) -> Iterator[Tensor]:
        """The slow projections of shifted frames, 256 at a time."""
        assert self.slow is not None
        for frames in observation.split(256):
            yield self.slow[1](self.model.features(random_shift(frames, 4), self.slow[0]))

    def minibatch(self, batch: Frames) -> list[float]:
        """One optimiser step."""
        features, log_probs, value = self.model(batch["observation"])
        log_ratio = log_probs.gather(1, batch["action"].unsqueeze(1)).squeeze(1) - batch["log_prob"]
        ratio, advantage = log_ratio.exp(), batch["advantage"]
        policy = -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
        critic = 0.5 * (value - batch["return"]).square().mean()
        entropy = -(log_probs.exp() * log_probs).sum(-1).mean()
        with torch.no_grad():
            kl, clipped = ((ratio - 1) - log_ratio).mean(), ((ratio - 1).abs() > 0.2).float().mean()
        loss, metrics = policy + 0.5 * critic - 0.01 * entropy, [policy, critic, entropy, kl, clipped]
        if self.slow:
            scores = self.model.projection(features) @ self.model.matrix @ batch["key"].T
            contrast = cross_entropy(scores, torch.arange(len(scores)))
            loss, metrics = loss + 0.05 * contrast, [*metrics, contrast]
        self.optimiser.zero_grad()
        loss.backward()
        metrics.append(nn.utils.clip_grad_norm_(self.model.parameters(), 0.5))
        self.optimiser.step()
        self.follow()
        return torch.stack([metric.detach() for metric in metrics]).tolist()

    @torch.no_grad()
    def follow(self) -> None:
        """Move the slow copies."""
        if self.slow:
            for slow, part in zip(self.slow, (self.model.encoder, self.model.projection), strict=True):
                for old, new in zip(slow.parameters(), part.parameters(), strict=True):
                    old.lerp_(new, 0.05)
