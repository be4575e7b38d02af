"""Training from nothing: lines of single signs first, then ever longer formulas.

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

from tunebook.latex.grammar import SIGNS
from tunebook.models.embedded_vision.build.batched import Prompt, hidden_states_of, tower
from tunebook.models.embedded_vision.build.batches import Batch, Shelf


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        seconds: the learning rate is at zero then.
        steps: the same in steps; whichever comes first.
        rows: pictures a step.
        lines: the longest share of the time in which lines of signs alone are read.
        growing: the share in which ever longer formulas come in, after that.
    """

    seconds: float
    steps: int
    rows: int
    lr: float
    lines: float = 0.3
    growing: float = 0.3
    warmup: int = 100


class Lines:
    """How many signs a line has: one, then one more whenever lines of so many are read well."""

    LONGEST = 8
    WELL = 0.35  # cross-entropy a token

    def __init__(self) -> None:
        self.reach = 1
        self._loss = math.inf

    @property
    def learnt(self) -> bool:
        """Whether the longest are read well."""
        return self.reach > self.LONGEST

    def signs(self, rng: random.Random) -> int:
        """Of the next line: mostly as many as are being learnt."""
        reach = min(self.reach, self.LONGEST)
        return reach if rng.random() < 0.7 else rng.randint(1, reach)

    def heard(self, signs: int, loss: float) -> None:
        """Take note of the loss of a batch of lines."""
        if signs == self.reach:
            self._loss = loss if self._loss == math.inf else 0.8 * self._loss + 0.2 * loss
            if self._loss < self.WELL:
                self.reach, self._loss = self.reach + 1, math.inf


def train(
    model: Any,
    shelf: Shelf,
    prompts: Sequence[Prompt],
    schedule: Schedule,
    seed: int,
    log: Callable[[str], None],
) -> dict[str, float]:
    """Train in place; returns what it took."""
    cuda = shelf.device.type == "cuda"
    generator = torch.Generator(shelf.device).manual_seed(seed)
    rng = random.Random(seed)
    bias = nn.Parameter(torch.full((len(SIGNS),), -3.0, device=shelf.device))
    optimizer = _optimizer([*model.parameters(), bias], schedule.lr)
    lines, begin = Lines(), schedule.lines
    by_length = shelf.train[shelf.lengths[shelf.train].argsort()]
    began, step, progress, seen = time.monotonic(), 0, 0.0, 0
    shown: dict[str, Any] = {"line": math.nan, "signs": math.nan, "formula": math.nan}
    model.train()
    while progress < 1.0:
        if lines.learnt:
            begin = min(begin, progress)
        grown = (progress - begin) / schedule.growing
        signs = 0
        if grown < 0 or rng.random() < 0.15:
            signs = lines.signs(rng)
            batch = shelf.line(schedule.rows, signs, generator)
        else:
            known = by_length[: int(min(1.0, 0.1 + 0.9 * grown) * len(by_length))]
            batch = shelf.batch(*_alike(known, shelf, schedule.rows, generator), generator)
        rate = min(1.0, (step + 1) / schedule.warmup) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr * rate
        with torch.autocast(shelf.device.type, torch.bfloat16, enabled=cuda):
            parts = losses(model, bias, shelf.signs, batch, rng.choice(prompts))
            torch.autograd.backward(torch.stack([*parts.values()]).sum())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step, seen = step + 1, seen + len(batch.answers)
        seconds = time.monotonic() - began
        progress = max(step / schedule.steps, seconds / schedule.seconds)
        shown.update({name: part.detach() for name, part in parts.items()})
        if signs:
            lines.heard(signs, float(shown["line"]))
        if step % (100 if cuda else 20) == 0 or progress >= 1.0:
            told = " ".join(f"{name} {float(value):.4f}" for name, value in shown.items())
            log(f"step {step} {told}, lines of {lines.reach}, {seconds:.0f} s")
    model.eval()
    _grey(model)
    return {
        "steps": step,
        "pictures_seen": seen,
        "seconds": seconds,
        "final_loss": float(shown["formula"]),
    }


def losses(
    model: Any, bias: Tensor, signs: Tensor, batch: Batch, prompt: Prompt
) -> dict[str, Tensor]:
    """Cross-entropy of the answers and, of lines, of which signs are where.

    The second teaches the tower to write the embedding of a sign's token where the sign is, long before
    the language model knows where to look.

    Args:
        bias: [signs], of the second.
        signs: [signs] int64, the token of each sign.
    """
    seen = tower(model, batch.patches, batch.grid)
    hidden_states = hidden_states_of(model, seen, batch.grid, prompt, batch.answers)[:, :-1]
    logits = model.lm_head(hidden_states[batch.learnt]).float()
    answer = F.cross_entropy(logits, batch.answers[batch.learnt])
    if batch.places is None:
        return {"formula": answer}
    language = model.model.language_model
    found = F.linear(language.norm(seen), language.embed_tokens.weight[signs]).float() + bias
    sign = F.binary_cross_entropy_with_logits(found, batch.places, reduction="sum")
    return {"line": answer, "signs": sign / batch.places.sum()}


def _alike(
    numbers: Tensor, shelf: Shelf, rows: int, generator: torch.Generator
) -> tuple[Tensor, tuple[int, int]]:
    """Random pictures of like size, and the size in image tokens that they are all resized to."""
    drawn = torch.randint(len(numbers), (24 * rows,), device=numbers.device, generator=generator)
    pool = numbers[drawn]
    sizes = shelf.cells(pool)
    apart = (sizes.float().log() - sizes[0].float().log()).abs().sum(dim=1)
    high, wide = sizes[0].tolist()
    return pool[apart.topk(min(rows, len(pool)), largest=False).indices], (high, wide)


def _optimizer(parameters: list[nn.Parameter], lr: float) -> torch.optim.AdamW:
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
