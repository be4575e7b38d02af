"""Cross-entropy of rows of logits, whose gradient takes the place of the logits in the same launch.

Knows one matrix of logits that it may overwrite; where the logits come from is others' business.

Formula, for each row z of V logits with label y, after z <- cap · tanh(scale · z / cap):

    p = softmax(z)        nll = log(sum(exp(z))) - z_y        entropy = log(sum(exp(z))) - sum(p · z)
    loss = (1 - ε) · nll + ε · mean over j of (log(sum(exp(z))) - z_j)          (ε: label smoothing)
    dz   = (p - (1 - ε) · onehot(y) - ε / V) · (1 - tanh²) · scale

The sum runs once over the row, online (Milakov & Gimelshein 2018, arXiv:1805.02867), for each lane by
itself. The term of the highest logit, which is 1, stays out of it: so a loss of 1e-9 is 1e-9, not 0.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from tunebook_kernels._launch import can_launch, jit, on_device_of, options_for, power_of_2, tl

_BLOCK = 4096


class Head(NamedTuple):
    """What a model and a recipe fix for all rows.

    Attributes:
        ignore_index: rows with this label count for nothing.
        softcap: cap · tanh(logits / cap), or None.
        logit_scale: logits are multiplied by it, before the cap.
        label_smoothing: ε.
    """

    ignore_index: int = -100
    softcap: float | None = None
    logit_scale: float = 1.0
    label_smoothing: float = 0.0


class Outcome(NamedTuple):
    """What is known of each token: `token_loss` and `entropy` in float32 (float64 for float64
    logits), `correct` in bool; 0, 0 and False where the label is ignored."""

    token_loss: torch.Tensor
    entropy: torch.Tensor
    correct: torch.Tensor

    @classmethod
    def zeros(cls, tokens: int, logits_dtype: torch.dtype, device: torch.device) -> Outcome:
        """Room for this many tokens."""
        losses = torch.zeros(tokens, dtype=wide(logits_dtype), device=device)
        return cls(losses, torch.zeros_like(losses), torch.zeros_like(losses, dtype=torch.bool))


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype that losses are computed in."""
    return torch.promote_types(dtype, torch.float32)


def cross_entropy_rows_(
    logits: torch.Tensor,
    labels: torch.Tensor,
    outcome: Outcome,
    head: Head,
    *,
    scale: torch.Tensor | None,
    tokens: torch.Tensor | None = None,
) -> None:
    """Fill `outcome` and put each row's gradient in the place of its logits; no autograd.

    Args:
        logits: (rows, V), adjacent columns; overwritten, with anything if `scale` is None.
        labels: (tokens,), int64. One outside the vocabulary makes its loss NaN on a GPU and raises
            on a CPU, as nothing here waits for the device.
        outcome: (tokens,) each.
        head: softcap and the like.
        scale: factor of the gradient, of one element or (tokens,); None if none is wanted.
        tokens: (rows,), int64, the token of each row; None where row i is token i.
    """
    if not can_launch(logits):
        _rows_in_torch_(logits, labels, outcome, head, scale, tokens)
        return
    n_rows, n_cols = logits.shape
    block = min(_BLOCK, power_of_2(n_cols))
    with on_device_of(logits):
        cross_entropy_rows_kernel[(n_rows,)](
            logits,
            labels,
            labels if tokens is None else tokens,
            outcome.token_loss if scale is None else scale,
            outcome.token_loss,
            outcome.entropy,
            outcome.correct.view(torch.uint8),
            logits.stride(0),
            0 if scale is None or scale.numel() == 1 else scale.stride(0),
            head.ignore_index,
            SOFTCAP=head.softcap or 0.0,
            LOGIT_SCALE=head.logit_scale,
            SMOOTHING=head.label_smoothing,
            HAS_TOKENS=tokens is not None,
            NEEDS_GRADIENT=scale is not None,
            N_COLS=n_cols,
            BLOCK=block,
            **options_for(2 * block),  # half the registers a thread: twice the warps hide the loads
        )


@jit
def _tanh(x):  # type: ignore[no-untyped-def]
    """Near 0 a polynomial, since 1 - 2 / (exp(2x) + 1) would lose all but the absolute size."""
    square = x * x
    near = 1.0 + square * (-1 / 3 + square * (2 / 15 + square * (-17 / 315 + square * (62 / 2835))))
    far = 1.0 - 2.0 / (tl.exp(2.0 * tl.abs(x)) + 1.0)
    return tl.where(tl.abs(x) < 0.3, x * near, tl.where(x < 0.0, -far, far))


@jit
def _log1p(x):  # type: ignore[no-untyped-def]
    near = x * (1.0 - x * (1 / 2 - x * (1 / 3 - x * (1 / 4))))
    return tl.where(x < 0.01, near, tl.log(1.0 + x))


@jit
def _one_minus_exp_of_minus(x):  # type: ignore[no-untyped-def]
    near = x * (1.0 - x * (1 / 2 - x * (1 / 6 - x * (1 / 24))))
    return tl.where(x < 0.01, near, 1.0 - tl.exp(-x))


@jit
def _final_logits(raw, SOFTCAP: tl.constexpr, LOGIT_SCALE: tl.constexpr):  # type: ignore[no-untyped-def]
    z = raw.to(tl.float32) * LOGIT_SCALE
    if SOFTCAP > 0.0:
        z = SOFTCAP * _tanh(z / SOFTCAP)
    return z


@jit
def cross_entropy_rows_kernel(  # type: ignore[no-untyped-def]
    logits_ptr,  # (n_rows, N_COLS); becomes the gradient
    labels_ptr,  # (tokens,), int64
    tokens_ptr,  # (n_rows,), int64: the token of each row
    scale_ptr,  # float32, (tokens,) or one for all
    loss_ptr,  # (tokens,), float32
    entropy_ptr,  # (tokens,), float32
    correct_ptr,  # (tokens,), uint8
    logits_stride,
    scale_stride,
    ignore_index,
    SOFTCAP: tl.constexpr,
    LOGIT_SCALE: tl.constexpr,
    SMOOTHING: tl.constexpr,
    HAS_TOKENS: tl.constexpr,
    NEEDS_GRADIENT: tl.constexpr,
    N_COLS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    token = row
    if HAS_TOKENS:
        token = tl.load(tokens_ptr + row)
    label = tl.load(labels_ptr + token)
    row_ptr = logits_ptr + row * logits_stride
    lanes = tl.arange(0, BLOCK)
    if label == ignore_index:
        if NEEDS_GRADIENT:
            zeros = tl.zeros([BLOCK], dtype=logits_ptr.dtype.element_ty)
            for start in range(0, N_COLS, BLOCK):
                tl.store(row_ptr + start + lanes, zeros, mask=start + lanes < N_COLS)
        tl.store(loss_ptr + token, 0.0)
        tl.store(entropy_ptr + token, 0.0)
        tl.store(correct_ptr + token, 0)
        return

    known = (label >= 0) & (label < N_COLS)
    at_label = tl.load(row_ptr + label, mask=known, other=float("nan"))
    at_label = _final_logits(at_label, SOFTCAP, LOGIT_SCALE)

    # What a lane has seen: its highest logit and where; over its other logits z the sums of
    # e = exp(z - best) and of e · (best - z). Lanes without any logit keep -1e38 and weigh 0.
    best = tl.full([BLOCK], -1e38, dtype=tl.float32)
    best_at = tl.full([BLOCK], -1, dtype=tl.int32)
    rest = tl.zeros([BLOCK], dtype=tl.float32)
    spread = tl.zeros([BLOCK], dtype=tl.float32)
    plain_sum = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, N_COLS, BLOCK):
        cols = start + lanes
        z = tl.load(row_ptr + cols, mask=cols < N_COLS, other=0.0)
        z = _final_logits(z, SOFTCAP, LOGIT_SCALE)
        if SMOOTHING > 0.0:
            plain_sum += tl.where(cols < N_COLS, z, 0.0)
        z = tl.where(cols < N_COLS, z, -1e38)
        distance = z - best
        e = tl.exp(-tl.abs(distance))
        higher = distance > 0.0
        spread = tl.where(higher, e * (spread + distance * (rest + 1.0)), spread - e * distance)
        rest = tl.where(higher, e * (rest + 1.0), rest + e)
        best_at = tl.where(higher, cols, best_at)
        best = tl.where(higher, z, best)

    top = tl.max(best, axis=0)
    top_at = tl.min(tl.where(best == top, best_at, N_COLS), axis=0)
    weight = tl.exp(best - top)
    others = tl.sum(tl.where(best_at == top_at, rest, weight * (rest + 1.0)), axis=0)
    spread_sum = tl.sum(weight * (spread + (top - best) * (rest + 1.0)), axis=0)
    log_sum = _log1p(others)  # of exp(z - top)
    nll = (top - at_label) + log_sum
    loss = nll
    if SMOOTHING > 0.0:
        mean = tl.sum(plain_sum, axis=0) / N_COLS
        loss = (1.0 - SMOOTHING) * nll + SMOOTHING * (log_sum + (top - mean))
    tl.store(loss_ptr + token, loss)
    tl.store(entropy_ptr + token, log_sum + spread_sum / (1.0 + others))
    tl.store(correct_ptr + token, (top_at == label).to(tl.uint8))

    if NEEDS_GRADIENT:
        factor = tl.load(scale_ptr + token * scale_stride) * LOGIT_SCALE
        dz_label = SMOOTHING - SMOOTHING / N_COLS - _one_minus_exp_of_minus(nll)
        blocks: tl.constexpr = (N_COLS + BLOCK - 1) // BLOCK
        for block in range(0, blocks):
            cols = (blocks - 1 - block) * BLOCK + lanes  # what was read last is still in the cache
            z = tl.load(row_ptr + cols, mask=cols < N_COLS, other=0.0)
            z = _final_logits(z, SOFTCAP, LOGIT_SCALE)
            dz = tl.exp((z - top) - log_sum) - SMOOTHING / N_COLS
            dz = tl.where(cols == label, dz_label, dz) * factor
            if SOFTCAP > 0.0:
                dz = dz * (1.0 - (z / SOFTCAP) * (z / SOFTCAP))
            tl.store(row_ptr + cols, dz.to(logits_ptr.dtype.element_ty), mask=cols < N_COLS)


def _rows_in_torch_(
    logits: torch.Tensor,
    labels: torch.Tensor,
    outcome: Outcome,
    head: Head,
    scale: torch.Tensor | None,
    tokens: torch.Tensor | None,
) -> None:
    """The kernel's arithmetic in plain torch, in the dtype of `outcome`."""
    where = slice(None) if tokens is None else tokens
    labels = labels[where]
    learned = labels != head.ignore_index
    target = labels.where(learned, 0)[:, None]
    z = logits.to(outcome.token_loss.dtype) * head.logit_scale
    tanh = None
    if head.softcap:
        tanh = (z / head.softcap).tanh()
        z = tanh * head.softcap
    top, top_at = z.max(-1, keepdim=True)
    z = z - top
    p = z.exp().scatter_(1, top_at, 0.0)
    others = p.sum(-1)
    log_sum = others.log1p()
    p.scatter_(1, top_at, 1.0).div_((1 + others)[:, None])
    smoothing = head.label_smoothing
    nll = log_sum - z.gather(1, target)[:, 0]
    loss = nll
    if smoothing:
        loss = (1 - smoothing) * nll + smoothing * (log_sum - z.mean(-1))
    outcome.token_loss[where] = loss.where(learned, 0.0)
    outcome.entropy[where] = (log_sum - (p * z).sum(-1)).where(learned, 0.0)
    outcome.correct[where] = (top_at[:, 0] == labels) & learned
    if scale is None:
        return
    dz = p.sub_(smoothing / z.shape[1])
    dz.scatter_(1, target, ((-nll).expm1() + smoothing - smoothing / z.shape[1])[:, None])
    if tanh is not None:
        dz.mul_(1 - tanh * tanh)
    factor = scale if scale.numel() == 1 else scale[where, None]
    logits.copy_(dz.mul_(factor * head.logit_scale).masked_fill_(~learned[:, None], 0.0))
