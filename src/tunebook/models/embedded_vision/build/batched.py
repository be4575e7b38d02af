"""The model's own weights run on many pictures of different sizes at once.

Transformers' forward takes windows and pictures one after the other; this one pads and masks, and
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
    """Where each patch of a batch stands; N patches in the family's order, 4 to an image token.

    Attributes:
        rows, columns: [batch, N] int64, in patches.
        shown: [batch, N] bool, False where a smaller picture is padded.
        high, wide: [batch] int64, in image tokens.
    """

    rows: Tensor
    columns: Tensor
    shown: Tensor
    high: Tensor
    wide: Tensor

    @property
    def tokens(self) -> Tensor:
        """How many image tokens each picture has, [batch]."""
        return self.high * self.wide


def grid_of(high: Tensor, wide: Tensor) -> Grid:
    """The grid of pictures that are `high` x `wide` image tokens, both [batch] int64."""
    most = int((high * wide).max())
    place = torch.arange(most * MERGE * MERGE, device=high.device).expand(len(high), -1)
    token, within = place // (MERGE * MERGE), place % (MERGE * MERGE)
    rows = token // wide[:, None] * MERGE + within // MERGE
    columns = token % wide[:, None] * MERGE + within % MERGE
    return Grid(rows, columns, token < (high * wide)[:, None], high, wide)


def patches_of(images: Tensor, grid: Grid) -> Tensor:
    """Cut pictures [batch, H, W] into patches [batch, N, 64]; H and W are multiples of 16."""
    batch, high, wide = images.shape
    cut = images.reshape(batch, high // PATCH, PATCH, wide // PATCH, PATCH).transpose(2, 3)
    flat = cut.reshape(batch, -1, PATCH * PATCH)
    across = wide // PATCH
    place = (grid.rows * across + grid.columns).clamp(max=flat.shape[1] - 1)
    return flat.gather(1, place[..., None].expand(-1, -1, PATCH * PATCH))


def tower(model: Any, patches: Tensor, grid: Grid) -> Tensor:
    """The vision tower and its projector: grey patches [batch, N, 64] to [batch, N / 4, hidden]."""
    visual = model.model.visual
    # grey: the same in all three channels and both frames
    kernel = visual.patch_embed.proj.weight.sum(dim=(1, 2)).flatten(1)
    hidden_states = F.linear(patches, kernel.to(patches.dtype))
    cos, sin = _rotation(visual, grid)
    everywhere = grid.shown[:, None, None, :]
    window = grid.rows // (MERGE * _WINDOW) * 4096 + grid.columns // (MERGE * _WINDOW)
    nearby = (window[:, None, :, None] == window[:, None, None, :]) & everywhere
    nearby = nearby | ~grid.shown[:, None, :, None]  # padding sees anything, for it must see something
    for number, block in enumerate(visual.blocks):
        mask = everywhere if number in visual.config.fullatt_block_indexes else nearby
        hidden_states = hidden_states + _attention(
            block.attn, block.norm1(hidden_states), cos, sin, mask
        )
        hidden_states = hidden_states + block.mlp(block.norm2(hidden_states))
    merger = visual.merger
    normed = merger.ln_q(hidden_states)
    return merger.mlp(normed.reshape(len(normed), -1, merger.hidden_size))


def _rotation(visual: Any, grid: Grid) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the axial position, [batch, 1, N, head size]."""
    dim = visual.config.hidden_size // visual.config.num_heads // 2
    steps = torch.arange(0, dim, 2, device=grid.rows.device, dtype=torch.float32)
    inverse = 10_000.0 ** (-steps / dim)
    angles = torch.cat([grid.rows[..., None] * inverse, grid.columns[..., None] * inverse], dim=-1)
    angles = torch.cat([angles, angles], dim=-1)[:, None]
    return angles.cos(), angles.sin()


def _attention(layer: Any, hidden_states: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
    batch, length, width = hidden_states.shape
    qkv = layer.qkv(hidden_states).reshape(batch, length, 3, layer.num_heads, -1)
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    query, key = (_rotated(x, cos, sin).to(value.dtype) for x in (query, key))
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return layer.proj(mixed.transpose(1, 2).reshape(batch, length, width))


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.float().chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


@dataclass(frozen=True)
class Prompt:
    """What stands before and behind the picture, [length] int64 each, up to where the answer begins."""

    before: Tensor
    behind: Tensor


def hidden_states_of(model: Any, seen: Tensor, grid: Grid, prompt: Prompt, answers: Tensor) -> Tensor:
    """The last hidden states of the places that predict `answers` and what follows them.

    Args:
        seen: [batch, tokens, hidden], from `tower`.
        answers: [batch, length] int64, padded on the right with anything.

    Returns:
        [batch, length + 1, hidden]; the first predicts the first token of the answer.
    """
    language = model.model.language_model
    behind = torch.cat([prompt.behind.expand(len(answers), -1), answers], dim=1)
    begin, tokens = len(prompt.before), grid.tokens[:, None]
    length = begin + int(tokens.max()) + behind.shape[1]
    place = torch.arange(length, device=answers.device).expand(len(answers), -1)
    inside = place - begin
    after = (inside - tokens).clamp(0, behind.shape[1] - 1)
    embed = language.embed_tokens
    picture = inside.clamp(0, seen.shape[1] - 1)[..., None].expand(-1, -1, seen.shape[2])
    embedded = torch.where(
        (inside < tokens)[..., None], seen.gather(1, picture).float(), embed(behind.gather(1, after)).float()
    )
    embedded = torch.cat([embed(prompt.before).float().expand(len(answers), -1, -1), embedded[:, begin:]], 1)
    out = language(
        inputs_embeds=embedded, position_ids=_positions(place, begin, grid), use_cache=False
    ).last_hidden_state
    wanted = torch.arange(answers.shape[1] + 1, device=answers.device) + begin + len(prompt.behind) - 1
    return out.gather(1, (wanted + tokens)[..., None].expand(-1, -1, out.shape[2]))


def _positions(place: Tensor, begin: int, grid: Grid) -> Tensor:
    """Time, height and width of every place, [3, batch, length], as the family counts them."""
    inside = place - begin
    wide, tokens = grid.wide[:, None], grid.tokens[:, None]
    shown = (inside >= 0) & (inside < tokens)
    after = begin + torch.maximum(grid.high, grid.wide)[:, None] + inside - tokens
    text = torch.where(inside < 0, place, after)
    picture = (torch.full_like(place, begin), begin + inside // wide, begin + inside % wide)
    return torch.stack([torch.where(shown, at, text) for at in picture])


@torch.no_grad()
def read(model: Any, patches: Tensor, grid: Grid, prompt: Prompt, end: int, longest: int) -> list[list[int]]:
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
    return [[*_until(row, end)] for row in answers.tolist()]


def _until(row: list[int], end: int) -> list[int]:
    return row[: row.index(end)] if end in row else row
