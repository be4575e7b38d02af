"""The model's own weights run on many pictures of one size at once.

Transformers' forward takes windows and pictures one after the other; this one takes them together and
gives the same numbers (a test compares them). Knows the family's layers; it knows no training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tunebook.models.embedded_vision.build.model import MERGE, PATCH

_WINDOW = 7  # image tokens on each side of a window: 112 pixels


@dataclass(frozen=True)
class Grid:
    """Pictures of `high` x `wide` image tokens, each of four patches; tokens in the order of windows.

    Attributes:
        order: [tokens] int64, where each token stands when read row by row.
        windows: patches of each window.
        rows, columns: [patches] int64.
    """

    high: int
    wide: int
    order: Tensor
    windows: list[int]
    rows: Tensor
    columns: Tensor

    @property
    def tokens(self) -> int:
        """How many image tokens a picture has."""
        return self.high * self.wide


def grid_of(high: int, wide: int, device: torch.device | str = "cpu") -> Grid:
    """The grid of pictures that are `high` x `wide` image tokens."""
    token = torch.arange(high * wide, device=device)
    row, column = token // wide, token % wide
    window = row // _WINDOW * 4096 + column // _WINDOW
    order = window.argsort(stable=True)
    counts = torch.unique(window, return_counts=True)[1]
    windows = counts * MERGE * MERGE
    within = torch.arange(MERGE * MERGE, device=device)
    rows = row[order, None] * MERGE + within // MERGE
    columns = column[order, None] * MERGE + within % MERGE
    return Grid(high, wide, order, windows.tolist(), rows.flatten(), columns.flatten())


def patches_of(images: Tensor, grid: Grid) -> Tensor:
    """Cut pictures [batch, H, W] of the grid's size into patches [batch, N, 64]."""
    cut = images.reshape(len(images), grid.high, MERGE, PATCH, grid.wide, MERGE, PATCH)
    tokens = cut.permute(0, 1, 4, 2, 5, 3, 6).reshape(len(images), grid.tokens, -1)
    return tokens[:, grid.order].reshape(len(images), -1, PATCH * PATCH)


def tower(model: Any, patches: Tensor, grid: Grid) -> Tensor:
    """The vision tower and its projector: grey patches [batch, N, 64] to [batch, tokens, hidden]."""
    visual = model.model.visual
    # grey: the same in all three channels and both frames
    kernel = visual.patch_embed.proj.weight.sum(dim=(1, 2)).flatten(1)
    hidden_states = F.linear(patches, kernel)
    cos, sin = _rotation(visual, grid)
    for number, block in enumerate(visual.blocks):
        everywhere = number in visual.config.fullatt_block_indexes
        windows = [4 * grid.tokens] if everywhere else grid.windows
        hidden_states = hidden_states + _attention(
            block.attn, block.norm1(hidden_states), cos, sin, windows
        )
        hidden_states = hidden_states + block.mlp(block.norm2(hidden_states))
    merger = visual.merger
    normed = merger.ln_q(hidden_states)
    merged: Tensor = merger.mlp(normed.reshape(len(normed), -1, merger.hidden_size))
    return merged[:, grid.order.argsort()]


def _rotation(visual: Any, grid: Grid) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the axial position, [N, head size]."""
    dim = visual.config.hidden_size // visual.config.num_heads // 2
    steps = torch.arange(0, dim, 2, device=grid.rows.device, dtype=torch.float32)
    inverse = 10_000.0 ** (-steps / dim)
    angles = torch.cat([grid.rows[:, None] * inverse, grid.columns[:, None] * inverse], dim=-1)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def _attention(
    layer: Any, hidden_states: Tensor, cos: Tensor, sin: Tensor, windows: list[int]
) -> Tensor:
    batch, length, width = hidden_states.shape
    qkv = layer.qkv(hidden_states).reshape(batch, length, 3, layer.num_heads, -1)
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    query, key = (_rotated(x, cos, sin).to(value.dtype) for x in (query, key))
    parts = zip(*(x.split(windows, dim=2) for x in (query, key, value)), strict=True)
    mixed = torch.cat([F.scaled_dot_product_attention(*part) for part in parts], dim=2)
    out: Tensor = layer.proj(mixed.transpose(1, 2).reshape(batch, length, width))
    return out


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


@dataclass(frozen=True)
class Prompt:
    """What stands before and behind the picture, [length] int64 each, up to where the answer begins."""

    before: Tensor
    behind: Tensor


def hidden_states_of(
    model: Any, seen: Tensor, grid: Grid, prompt: Prompt, answers: Tensor
) -> Tensor:
    """The last hidden states of the places that predict `answers` and what follows them.

    Args:
        seen: [batch, tokens, hidden], from `tower`.
        answers: [batch, length] int64, padded on the right with anything.

    Returns:
        [batch, length + 1, hidden]; the first predicts the first token of the answer.
    """
    language = model.model.language_model
    behind = torch.cat([prompt.behind.expand(len(answers), -1), answers], dim=1)
    before = language.embed_tokens(prompt.before).expand(len(answers), -1, -1)
    embedded = torch.cat([before, seen.to(before.dtype), language.embed_tokens(behind)], dim=1)
    positions = _positions(len(prompt.before), grid, behind.shape[1])
    out: Tensor = language(
        inputs_embeds=embedded,
        position_ids=positions[:, None].expand(-1, len(answers), -1),
        use_cache=False,
    ).last_hidden_state
    return out[:, len(prompt.before) + grid.tokens + len(prompt.behind) - 1 :]


def _positions(before: int, grid: Grid, behind: int) -> Tensor:
    """Time, height and width of every place, [3, length], as the family counts them."""
    device = grid.order.device
    token = torch.arange(grid.tokens, device=device)
    seen = torch.stack([torch.zeros_like(token), token // grid.wide, token % grid.wide]) + before
    text = torch.arange(before, device=device).expand(3, -1)
    after = torch.arange(behind, device=device).expand(3, -1) + before + max(grid.high, grid.wide)
    return torch.cat([text, seen, after], dim=1)


@torch.no_grad()
def read(
    model: Any, patches: Tensor, grid: Grid, prompt: Prompt, end: int, longest: int
) -> list[list[int]]:
    """The greedy answer to each picture, without the token that ends it."""
    seen = tower(model, patches, grid)
    answers = torch.zeros((len(patches), 0), dtype=torch.int64, device=patches.device)
    done = torch.zeros(len(patches), dtype=torch.bool, device=patches.device)
    for _ in range(longest):
        last = hidden_states_of(model, seen, grid, prompt, answers)[:, -1]
        chosen = model.lm_head(last).argmax(dim=-1)
        answers = torch.cat([answers, chosen[:, None]], dim=1)
        done |= chosen == end
        if done.all():
            break
    return [row[: row.index(end)] if end in row else row for row in answers.tolist()]
