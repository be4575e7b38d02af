"""Training from nothing: a reader of pictures that first sees short formulas, then all.

Knows batches and the batched forward; it knows neither files nor how answers are judged.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tunebook.models.embedded_vision.build.batched import Prompt, hidden_states_of, tower
from tunebook.models.embedded_vision.build.batches import Batch, Shelf


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        seconds: the learning rate is at zero then.
        steps: the same in steps; whichever comes first.
        rows: pictures a step.
        growing: the share of the time in which ever longer formulas come in.
    """

    seconds: float
    steps: int
    rows: int
    lr: float
    growing: float = 0.3
    warmup: int = 200


def train(
    model: Any,
    shelf: Shelf,
    prompts: Sequence[Prompt],
    schedule: Schedule,
    seed: int,
    log: Callable[[str], None],
) -> dict[str, float]:
    """Train in place; returns what it took."""
    device = shelf.train.device
    cuda = device.type == "cuda"
    generator = torch.Generator(device).manual_seed(seed)
    rng = random.Random(seed)
    signs = nn.Linear(model.config.text_config.hidden_size, model.config.text_config.vocab_size)
    signs.to(device)
    optimizer = _optimizer([model, signs], schedule.lr)
    by_length = shelf.train[shelf.lengths[shelf.train].argsort()]
    began, step, progress, seen = time.monotonic(), 0, 0.0, 0
    model.train()
    while progress < 1.0:
        share = min(1.0, 0.08 + 0.92 * max(0.0, progress - 0.04) / schedule.growing)
        numbers = _alike(by_length[: int(share * len(by_length))], shelf, schedule.rows, generator, rng)
        batch = shelf.batch(numbers, generator)
        rate = min(1.0, (step + 1) / schedule.warmup) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr * rate
        hint = max(0.0, 1 - progress / 0.5)
        with torch.autocast(device.type, torch.bfloat16, enabled=cuda):
            answer, sign = losses(model, signs, batch, rng.choice(prompts))
            torch.autograd.backward(answer + hint * sign)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step, seen = step + 1, seen + len(numbers)
        seconds = time.monotonic() - began
        progress = max(step / schedule.steps, seconds / schedule.seconds)
        if step % (100 if cuda else 20) == 0 or progress >= 1.0:
            log(
                f"step {step} loss {answer.item():.4f} signs {sign.item():.4f} "
                f"up to {int(shelf.lengths[by_length[int(share * len(by_length)) - 1]])} tokens, {seconds:.0f} s"
            )
    model.eval()
    _grey(model)
    return {"steps": step, "pictures_seen": seen, "seconds": seconds, "final_loss": answer.item()}


def losses(model: Any, signs: nn.Linear, batch: Batch, prompt: Prompt) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the answers, and of which signs are anywhere in the picture.

    The second teaches the tower to tell signs apart long before the language model knows where to look.
    """
    seen = tower(model, batch.patches, batch.grid)
    hidden_states = hidden_states_of(model, seen, batch.grid, prompt, batch.answers)[:, :-1]
    logits = model.lm_head(hidden_states[batch.learnt]).float()
    answer = F.cross_entropy(logits, batch.answers[batch.learnt])
    found = signs(seen).float()
    shown = torch.arange(seen.shape[1], device=seen.device) < batch.grid.tokens[:, None]
    found = found.masked_fill(~shown[..., None], -1e4).amax(dim=1)
    there = torch.zeros_like(found).scatter_(1, batch.answers, 1.0)
    weight = 1 + 9 * there
    sign = F.binary_cross_entropy_with_logits(found, there, weight=weight)
    return answer, 5 * sign


def _alike(
    numbers: Tensor, shelf: Shelf, rows: int, generator: torch.Generator, rng: random.Random
) -> Tensor:
    """Random pictures of like size, so that little is padded."""
    pool = numbers[torch.randint(len(numbers), (4 * rows,), device=numbers.device, generator=generator)]
    pool = pool[shelf.areas(pool).argsort()]
    place = rng.randrange(4) * rows
    return pool[place : place + rows]


def _optimizer(modules: list[nn.Module], lr: float) -> torch.optim.AdamW:
    parameters = [p for module in modules for p in module.parameters()]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)


@torch.no_grad()
def _grey(model: Any) -> None:
    """Make all channels and frames count alike, which was never told apart in training."""
    kernel = model.model.visual.patch_embed.proj.weight
    kernel.copy_(kernel.mean(dim=(1, 2), keepdim=True).expand_as(kernel))
