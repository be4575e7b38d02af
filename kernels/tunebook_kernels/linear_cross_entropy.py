"""Output head and cross-entropy without the full logits, the gradient taken in the forward.

Knows hidden states, a weight and labels that the caller has shifted; which tokens are worth
predicting, and how losses of several devices are summed, are others' business.

For each chunk of tokens: z = h · Wᵀ + b, then z becomes dz = d loss / dz in place, then u = dz · W.
For any upstream gradient g of the token losses dh_t = g_t · u_t, so only u is kept: 4 · n · V
multiplications a token, where making the logits again in the backward takes 6 · n · V.

u is made for the mantissa of 1 / divisor, so that g_t of the mean loss is a power of two times it and
rounds nothing more. A head that is trained itself needs g for dW = Σ g_t · dz_t · h_tᵀ: there the
logits are made again in the backward (8 · n · V), which is exact for any g as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from tunebook_kernels._launch import ceil_div
from tunebook_kernels.cross_entropy_rows import Head, Outcome, cross_entropy_rows_, wide

_CHUNK_BYTES = {"cuda": 2**29, "cpu": 2**25}  # of logits
_FEWEST_ROWS = {"cuda": 1024, "cpu": 64}  # below it a product of matrices is slow


class LinearCrossEntropy(NamedTuple):
    """What `linear_cross_entropy` returns; the numbers are float32, or float64 for float64 weights.

    Attributes:
        loss: scalar, the sum of `token_loss` over the divisor.
        token_loss: (tokens,), 0 where not labelled; differentiable for any upstream gradient.
        entropy: (tokens,), of the predicted distribution in nats, 0 where not labelled.
        correct: (tokens,), bool, whether the first of the highest logits is the label's.
    """

    loss: torch.Tensor
    token_loss: torch.Tensor
    entropy: torch.Tensor
    correct: torch.Tensor


def linear_cross_entropy(
    hidden_states: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    ignore_index: int = -100,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    label_smoothing: float = 0.0,
    divisor: float | torch.Tensor | None = None,
    keep: torch.Tensor | None = None,
    chunk: int | None = None,
) -> LinearCrossEntropy:
    """Cross-entropy of `hidden_states @ weight.T + bias` with `labels`, chunk by chunk.

    Never waits for the device.

    Args:
        hidden_states: (..., n); multiplied in the dtype of the weight.
        weight: (V, n), float32, float16 or bfloat16 for the kernel.
        labels: (...), int64, already shifted. On a GPU one outside the vocabulary makes the loss NaN.
        bias: (V,).
        ignore_index: tokens with this label count for nothing, but are multiplied (see `keep`).
        softcap: logits become softcap · tanh(logits / softcap).
        logit_scale: logits are multiplied by it, before the cap.
        label_smoothing: share of the label's weight that is spread over the vocabulary.
        divisor: of the summed loss: a number, or a tensor of one element such as
            `num_items_in_batch`; None takes the number of labelled tokens. 0 counts as 1.
        keep: (kept,), int64, on the device: the tokens to look at, each once; the rest is not
            multiplied and counts as ignored. Made from labels on the host, it spares a sync.
        chunk: tokens at a time; None takes `tokens_per_chunk`.
    """
    head = Head(ignore_index, softcap, logit_scale, label_smoothing)
    flat = labels.reshape(-1)
    if divisor is None:
        counted = flat if keep is None else flat[keep]
        divisor = (counted != ignore_index).sum()
    divisor = _scalar(divisor, weight)
    token_loss, entropy, correct = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_states.reshape(-1, hidden_states.shape[-1]),
        weight,
        bias,
        flat,
        head,
        gradient_scale(divisor),
        keep,
        chunk,
        torch.is_grad_enabled(),
    )
    return LinearCrossEntropy(token_loss.sum() / divisor, token_loss, entropy, correct)


def linear_cross_entropy_reference(
    hidden_states: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    ignore_index: int = -100,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    label_smoothing: float = 0.0,
    divisor: float | torch.Tensor | None = None,
    keep: torch.Tensor | None = None,
) -> LinearCrossEntropy:
    """The same function in plain torch with all logits, rounded as Hugging Face models do."""
    flat = labels.reshape(-1)
    if keep is not None:
        flat = torch.full_like(flat, ignore_index).index_copy(0, keep, flat[keep])
    hidden_states = hidden_states.reshape(-1, hidden_states.shape[-1]).to(weight.dtype)
    logits = torch.nn.functional.linear(hidden_states, weight, bias) * logit_scale
    if softcap:
        logits = (logits / softcap).tanh() * softcap
    logits = logits.to(wide(logits.dtype))
    token_loss = torch.nn.functional.cross_entropy(
        logits, flat, ignore_index=ignore_index, reduction="none", label_smoothing=label_smoothing
    )
    labelled = flat != ignore_index
    divisor = _scalar(labelled.sum() if divisor is None else divisor, weight)
    with torch.no_grad():
        log_p = logits.log_softmax(-1)
        entropy = -(log_p.exp() * log_p).sum(-1).where(labelled, 0.0)
        correct = (logits.argmax(-1) == flat) & labelled
    return LinearCrossEntropy(token_loss.sum() / divisor, token_loss, entropy, correct)


def tokens_per_chunk(vocabulary: int, dtype: torch.dtype, device: torch.device) -> int:
    """How many tokens' logits are held at once: 512 MiB on a GPU, but 1024 tokens at least."""
    kind = "cpu" if device.type == "cpu" else "cuda"
    fitting = _CHUNK_BYTES[kind] // (vocabulary * dtype.itemsize)
    return max(_FEWEST_ROWS[kind], fitting // 128 * 128)


def gradient_scale(divisor: torch.Tensor) -> torch.Tensor:
    """The mantissa, from 0.5 to 1, of 1 / divisor; the `scale` of the forward and the backward."""
    return torch.frexp(divisor.reciprocal()).mantissa


def linear_cross_entropy_forward(
    hidden_states: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    head: Head,
    *,
    bias: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
    keep: torch.Tensor | None = None,
    chunk: int | None = None,
    out: torch.Tensor | None = None,
) -> tuple[Outcome, torch.Tensor | None]:
    """Losses, and scale · (d token_loss / d hidden_states) for `linear_cross_entropy_backward`.

    For callers that do their own differentiation: gradients must be disabled.

    Args:
        hidden_states: (tokens, n).
        weight: (V, n).
        labels: (tokens,), int64.
        head: softcap and the like.
        bias: (V,).
        scale: factor of the gradient, one element, float32 on the device; None, as for an
            evaluation, makes no gradient.
        keep: as for `linear_cross_entropy`.
        chunk: tokens at a time.
        out: (tokens, n), or (kept, n) with `keep`, of the weight's dtype: takes the gradient.
    """
    outcome = Outcome.zeros(hidden_states.shape[0], weight.dtype, weight.device)
    if scale is None:
        out = None
    elif out is None:
        rows = hidden_states.shape[0] if keep is None else keep.shape[0]
        out = weight.new_empty((rows, hidden_states.shape[1]))
    parts = _chunks(hidden_states, weight, labels, head, bias, scale, keep, chunk, outcome)
    for part, _, dz in parts:
        if out is not None:
            torch.mm(dz, weight, out=out[part])
    return outcome, out


def linear_cross_entropy_backward(
    upstream: torch.Tensor,
    gradient: torch.Tensor,
    scale: torch.Tensor,
    *,
    keep: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """The gradient of the hidden states, (tokens, n).

    Args:
        upstream: (tokens,), the gradient of the token losses.
        gradient: what the forward returned.
        scale: what the forward was given.
        keep: what the forward was given.
        out: (tokens, n), takes the result; may be `gradient` itself where there is no `keep`.
        dtype: of the result, if there is no `out`; None takes the gradient's.
    """
    factor = upstream / scale
    if out is None:
        shape = (upstream.shape[0], gradient.shape[1])
        out = torch.empty(shape, dtype=dtype or gradient.dtype, device=gradient.device)
    if keep is None:
        return torch.mul(gradient, factor[:, None], out=out)
    kept = (gradient * factor[keep, None]).to(out.dtype)
    return out.zero_().index_copy_(0, keep, kept)


def linear_cross_entropy_backward_of_head(
    upstream: torch.Tensor,
    hidden_states: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    head: Head,
    *,
    bias: torch.Tensor | None = None,
    keep: torch.Tensor | None = None,
    chunk: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """The gradients of hidden states, weight and bias, if any; the logits are made again.

    Arguments as for the forward, and `upstream`: (tokens,), the gradient of the token losses. The
    gradients of weight and bias are summed over chunks in float32.
    """
    dtype = wide(weight.dtype)
    d_hidden = torch.zeros_like(hidden_states)
    d_weight = torch.zeros(weight.shape, dtype=dtype, device=weight.device)
    d_bias = None if bias is None else torch.zeros_like(bias, dtype=dtype)
    outcome = Outcome.zeros(hidden_states.shape[0], weight.dtype, weight.device)
    scale = upstream.contiguous()
    parts = _chunks(hidden_states, weight, labels, head, bias, scale, keep, chunk, outcome)
    for part, hidden, dz in parts:
        where = part if keep is None else keep[part]
        d_hidden[where] = torch.mm(dz, weight).to(d_hidden.dtype)
        d_weight.add_(torch.mm(dz.t(), hidden))
        if d_bias is not None:
            d_bias.add_(dz.sum(0, dtype=dtype))
    if d_bias is not None:
        d_bias = d_bias.to(weight.dtype)
    return d_hidden, d_weight.to(weight.dtype), d_bias


def _chunks(
    hidden_states: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    head: Head,
    bias: torch.Tensor | None,
    scale: torch.Tensor | None,
    keep: torch.Tensor | None,
    chunk: int | None,
    outcome: Outcome,
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Of each chunk its rows, their hidden states and dz, in a buffer that the next one overwrites."""
    total = hidden_states.shape[0] if keep is None else keep.shape[0]
    if total == 0:
        return
    size = chunk or tokens_per_chunk(weight.shape[0], weight.dtype, weight.device)
    size = ceil_div(total, ceil_div(total, size))  # no short one at the end
    buffer = weight.new_empty((size, weight.shape[0]))
    for start in range(0, total, size):
        part = slice(start, min(start + size, total))
        tokens = None if keep is None else keep[part]
        seen = part if keep is None else slice(None)  # by the rows, or by their `tokens`
        of_part = scale[seen] if scale is not None and scale.numel() > 1 else scale
        hidden = hidden_states[part if tokens is None else tokens].to(weight.dtype)
        logits = buffer[: hidden.shape[0]]
        if bias is None:
            torch.mm(hidden, weight.t(), out=logits)
        else:
            torch.addmm(bias, hidden, weight.t(), out=logits)
        rows = Outcome(*(value[seen] for value in outcome))
        cross_entropy_rows_(logits, labels[seen], rows, head, scale=of_part, tokens=tokens)
        yield part, hidden, logits


class _LinearCrossEntropy(torch.autograd.Function):
    """Saves u, or for a trainable head its inputs."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_states: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        head: Head,
        scale: torch.Tensor,
        keep: torch.Tensor | None,
        chunk: int | None,
        differentiate: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        ctx.trainable_head = any(ctx.needs_input_grad[1:3])
        wanted = differentiate and ctx.needs_input_grad[0] and not ctx.trainable_head
        outcome, gradient = linear_cross_entropy_forward(
            hidden_states,
            weight,
            labels,
            head,
            bias=bias,
            scale=scale if wanted else None,
            keep=keep,
            chunk=chunk,
        )
        if ctx.trainable_head:
            ctx.save_for_backward(hidden_states, weight, labels, bias, keep)
            ctx.head, ctx.chunk = head, chunk
        elif wanted:
            ctx.save_for_backward(gradient, scale, keep)
            ctx.dtype = hidden_states.dtype
        ctx.mark_non_differentiable(outcome.entropy, outcome.correct)
        return outcome.token_loss, outcome.entropy, outcome.correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor, *_: Any) -> tuple[Any, ...]:
        nothing = (None,) * 6
        if not ctx.trainable_head:
            gradient, scale, keep = ctx.saved_tensors
            d_hidden = linear_cross_entropy_backward(
                upstream, gradient, scale, keep=keep, dtype=ctx.dtype
            )
            return d_hidden, None, None, *nothing
        hidden_states, weight, labels, bias, keep = ctx.saved_tensors
        gradients = linear_cross_entropy_backward_of_head(
            upstream,
            hidden_states,
            weight,
            labels,
            ctx.head,
            bias=bias,
            keep=keep,
            chunk=ctx.chunk,
        )
        wanted = zip(gradients, ctx.needs_input_grad, strict=False)
        return *(value if needed else None for value, needed in wanted), *nothing


def _scalar(number: float | torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """As a tensor of no dimensions beside the weight, 1 in place of 0; no sync."""
    if isinstance(number, torch.Tensor) and number.device == weight.device:
        scalar = number.detach().reshape(()).to(wide(weight.dtype))
    else:  # of the host: its value is at hand
        scalar = torch.full((), float(number), dtype=wide(weight.dtype), device=weight.device)
    return scalar + (scalar == 0)
