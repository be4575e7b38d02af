"""Packed projections, their heads and their angles, for the tests of rotary kernels."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from oracle import random


class Case(NamedTuple):
    """Sizes of a projection, and which rows of angles come with it."""

    batch: int
    q_heads: int
    kv_heads: int
    seq: int
    head_dim: int
    rotary_dim: int
    positions: str

    @property
    def heads(self) -> dict[str, int]:
        """What the raw functions are told of the heads."""
        return {"q_heads": self.q_heads, "kv_heads": self.kv_heads, "head_dim": self.head_dim}

    def projection(self, dtype: torch.dtype, seed: int) -> torch.Tensor:
        """(batch, seq, columns)"""
        columns = (self.q_heads + 2 * self.kv_heads) * self.head_dim
        return random((self.batch, self.seq, columns), dtype, seed)

    def split(self, packed: torch.Tensor) -> list[torch.Tensor]:
        """q, k and v (batch, heads, seq, head_dim) of a projection or its rows, as views."""
        heads = packed.view(self.batch, self.seq, -1, self.head_dim).transpose(1, 2)
        return list(heads.split((self.q_heads, self.kv_heads, self.kv_heads), 1))

    def angles(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """cos and sin whose two halves differ, so that taking one for the other shows."""
        rows = {
            "table": (self.seq,),
            "shared": (1, self.seq),
            "per-batch": (self.batch, self.seq),
        }[self.positions]
        turns = random((*rows, self.rotary_dim), torch.float64, 1)
        return turns.cos().to(dtype), turns.sin().to(dtype)


SMALL = Case(2, 4, 2, 3, 16, 16, "shared")
CASES = pytest.mark.parametrize(
    "case",
    [
        Case(2, 4, 2, 3, 16, 16, "per-batch"),
        Case(2, 2, 1, 3, 16, 16, "table"),
        Case(1, 3, 1, 5, 12, 6, "shared"),
        Case(2, 14, 5, 2, 80, 80, "shared"),  # several tiles; k and v share one
        Case(2, 6, 2, 2, 20, 8, "per-batch"),
    ],
    ids=lambda case: f"{case.q_heads}-{case.kv_heads}-{case.head_dim}-{case.positions}",
)


def packed(*heads: torch.Tensor) -> torch.Tensor:
    """(batch · seq, columns) of (batch, heads, seq, head_dim) tensors."""
    return torch.cat(heads, 1).transpose(1, 2).flatten(2).flatten(0, 1)


def in_wider_rows(matrix: torch.Tensor) -> torch.Tensor:
    """The matrix with five columns of sevens after it."""
    return torch.nn.functional.pad(matrix, (0, 5), value=7.0)
