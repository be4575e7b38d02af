"""Attention whose scores pass a tanh (Gemma 2), with the scores in full.

For where the kernel of `tunebook_kernels.attention` does not run: on a CPU, before Ampere, with a
mask of one's own or a key cache. Knows queries, keys and values only.
"""

from __future__ import annotations

import torch


def repeat_heads(states: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Keys or values once for each query head that reads them."""
    times = like.shape[1] // states.shape[1]
    return states if times == 1 else states.repeat_interleave(times, dim=1)


def in_full(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    softcap: float,
    mask: torch.Tensor,
) -> torch.Tensor:
    """Scores in full, for what no kernel computes (softcap); as transformers' eager attention."""
    k, v = repeat_heads(k, q), repeat_heads(v, q)
    scores = torch.tanh(q @ k.transpose(2, 3) * scale / softcap) * softcap
    if mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    else:
        scores = scores + mask
    wide = torch.promote_types(torch.float32, scores.dtype)
    return torch.softmax(scores, dim=-1, dtype=wide).to(q.dtype) @ v


def with_key_cache(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
    softcap: float,
) -> torch.Tensor:
    """Softcap with a key cache: fewer queries than keys, the mask as transformers made it."""
    if mask is None:
        length, keys = q.shape[2], k.shape[2]
        mask = torch.ones((length, keys), dtype=torch.bool, device=q.device).tril(keys - length)
    return in_full(q, k, v, scale, softcap, mask).transpose(1, 2)
