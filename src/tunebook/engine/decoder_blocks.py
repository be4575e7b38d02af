"""The two halves of a decoder layer, x + attention(norm(x)) and x + mlp(norm(x)), by fused kernels.

Each half computes forward and hand-derived backward on plain tensors; what is not kept in between
is made again. Knows no autograd function, no model, and not who decides what is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from tunebook.engine.activation import Activation
from tunebook.engine.attention import CAUSAL, Segments, attention_forward
from tunebook.engine.direct_attention import Attention
from tunebook.engine.linear_group import LinearGroup
from tunebook_kernels import (
    gated_backward,
    gated_forward,
    qk_norm_rope_backward,
    qk_norm_rope_forward,
    rms_norm_backward,
    rms_norm_forward,
    rope_backward,
    rope_forward,
)

Gradients = list[torch.Tensor]


@dataclass(frozen=True)
class Context:
    """What a layer's forward and backward share.

    Attributes:
        shape: (batch, length).
        cos, sin: rotary tables, (1 or batch, length, rotary_dim).
        mask: None for plain causal rows (or `segments`), else as `attend` takes it.
        segments: of packed rows.
        seed: of this layer's dropout masks.
    """

    shape: tuple[int, int]
    cos: torch.Tensor
    sin: torch.Tensor
    mask: torch.Tensor | None
    segments: Segments | None
    seed: int

    @classmethod
    def of(cls, hidden_states: torch.Tensor, kwargs: dict[str, Any], seed: int) -> Context:
        """From a decoder layer's arguments."""
        cos, sin = kwargs["position_embeddings"]
        mask = kwargs.get("attention_mask")
        plain = mask is None or mask is CAUSAL
        batch, length, _ = hidden_states.shape
        segments = Segments.of(kwargs) if plain else None
        return cls((batch, length), cos, sin, None if plain else mask, segments, seed)


@dataclass(frozen=True)
class Norm:
    """An RMSNorm: its module, eps and offset (0 as in Llama, 1 as in Gemma)."""

    module: nn.Module
    eps: float
    offset: float

    @property
    def weight(self) -> torch.Tensor:
        """(n,)."""
        return self.module.weight  # type: ignore[return-value]

    @property
    def trainable(self) -> list[torch.Tensor]:
        """The weight, if it learns."""
        return [self.weight] if self.weight.requires_grad else []

    def forward(
        self, x: torch.Tensor, out: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The normed rows, and 1 / root mean square of each for the backward."""
        y, _, rstd = rms_norm_forward(x, self.weight, self.eps, offset=self.offset, out=out)
        return y, rstd

    def backward(
        self,
        dy: torch.Tensor,
        x: torch.Tensor,
        rstd: torch.Tensor,
        dresidual: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, Gradients]:
        """The input's gradient plus `dresidual`, and the gradient of the weight if it learns."""
        dx, dweight = rms_norm_backward(
            dy,
            x,
            self.weight,
            rstd,
            offset=self.offset,
            dresidual=dresidual,
            needs_dweight=self.weight.requires_grad,
        )
        return dx, [] if dweight is None else [dweight]


@dataclass
class Entered:
    """What `Entrance` keeps: the norm's statistics, its output [and x Aᵀ], and x Aᵀ."""

    rstd: torch.Tensor
    buffer: torch.Tensor | None
    low: torch.Tensor | None


@dataclass(frozen=True)
class Entrance:
    """A norm and the projections that read it: q|k|v or gate|up."""

    norm: Norm
    group: LinearGroup

    @property
    def trainable(self) -> list[torch.Tensor]:
        """In the order of `backward`'s gradients."""
        return [*self.group.trainable, *self.norm.trainable]

    def forward(self, x: torch.Tensor, seed: int) -> tuple[torch.Tensor, Entered]:
        """All projections, (T, out). x: (T, hidden_size)."""
        buffer, rstd = self._normed(x)
        y, low = self.group.forward(buffer, self.group.operands(x), seed)
        return y, Entered(rstd, buffer, low)

    def forget(self, kept: Entered) -> None:
        """Give up the norm's output; the backward makes it again."""
        if self.group.extended:
            kept.low = None  # a part of the buffer
        kept.buffer = None

    def backward(
        self,
        buffer: torch.Tensor,
        x: torch.Tensor,
        kept: Entered,
        dresidual: torch.Tensor,
        seed: int,
        *,
        needed: bool = True,
    ) -> tuple[torch.Tensor | None, Gradients]:
        """The gradient of x plus `dresidual` (None unless `needed`), and those of `trainable`.

        Args:
            buffer: the group's `gradient_buffer`, the gradient of the projections written.
        """
        operands = self.group.operands(x)
        if kept.buffer is None:
            kept.buffer, _ = self._normed(x)
            if operands.extended is not None:
                kept.low = self.group.low(kept.buffer, operands)
        needed = needed or bool(self.norm.trainable)
        dnormed, g = self.group.input_gradient(buffer, operands, needed=needed, seed=seed)
        gradients = self.group.parameter_gradients(
            buffer[:, : self.group.out_features],
            g,
            kept.buffer[:, : self.group.in_features],
            kept.low,
            seed,
        )
        if dnormed is None:
            return None, gradients
        dx, dweight = self.norm.backward(dnormed, x, kept.rstd, dresidual)
        return dx, gradients + dweight

    def _normed(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        buffer = self.group.input_buffer(x.shape[0], x)
        _, rstd = self.norm.forward(x, out=buffer[:, : self.group.in_features])
        return buffer, rstd


@dataclass
class Gone:
    """What `Exit` keeps: rows Aᵀ, and the norm's input and statistics where there is one."""

    low: torch.Tensor | None
    unnormed: torch.Tensor | None = None
    rstd: torch.Tensor | None = None

    def of_rows(self, rows: slice) -> Gone:
        """That of some of the rows."""
        return Gone(*(None if x is None else x[rows] for x in self._tensors()))

    @staticmethod
    def joined(parts: list[Gone]) -> Gone:
        """That of all rows, from parts in their order."""
        columns = zip(*(part._tensors() for part in parts), strict=True)
        return Gone(*(None if column[0] is None else torch.cat(column) for column in columns))

    def _tensors(self) -> tuple[torch.Tensor | None, ...]:
        return self.low, self.unnormed, self.rstd


@dataclass(frozen=True)
class Exit:
    """The projection back (o or down), the norm behind it in Gemma 2 and 3, and the residual."""

    group: LinearGroup
    norm: Norm | None

    @property
    def trainable(self) -> list[torch.Tensor]:
        """In the order of the gradients: the norm's, then the projection's."""
        return [*(self.norm.trainable if self.norm else []), *self.group.trainable]

    def forward(self, rows: torch.Tensor, x: torch.Tensor, seed: int) -> tuple[torch.Tensor, Gone]:
        """x + [norm](rows Wᵀ). rows: (T, in), x: (T, hidden_size)."""
        y, low = self.group.forward(rows, self.group.operands(x), seed)
        kept = Gone(low)
        if self.norm is not None:
            kept.unnormed = y
            y, kept.rstd = self.norm.forward(y)
        return y.add_(x), kept

    def without_product(self, rows: torch.Tensor, seed: int) -> Gone:
        """What the backward needs, where it needs no product: without a norm behind."""
        assert self.norm is None
        return Gone(self.group.low(rows, self.group.adapters(rows), seed))

    def input_gradient(
        self, dy: torch.Tensor, kept: Gone, seed: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, Gradients]:
        """The gradient of the rows, (T, in); the projection's own dy and g; the norm's gradient."""
        gradients: Gradients = []
        if self.norm is not None:
            assert kept.unnormed is not None
            assert kept.rstd is not None
            dy, gradients = self.norm.backward(dy, kept.unnormed, kept.rstd)
        drows, g = self.group.input_gradient(dy, self.group.operands(dy), seed=seed)
        assert drows is not None
        return drows, dy, g, gradients


@dataclass
class Attended:
    """What an attention block keeps.

    Attributes:
        entered: of q|k|v; None where they are to be made again.
        attention: with its own backward.
        rows: the attention's output, (T, heads · head_dim).
        projected, head_rstd: q|k|v before their norm, and its statistics, where there is one.
        gone: of o; None until it was computed.
    """

    entered: Entered | None
    attention: Attention
    rows: torch.Tensor
    projected: torch.Tensor | None
    head_rstd: torch.Tensor | None
    gone: Gone | None = None


@dataclass(frozen=True)
class AttentionBlock:
    """x + [norm](o(attention(rope([norm](q|k|v(norm(x)))))))."""

    entrance: Entrance
    exit: Exit
    heads: int
    key_heads: int
    head_dim: int
    scale: float
    window: int | None
    softcap: float | None
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    _sizes: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        sizes = {"q_heads": self.heads, "kv_heads": self.key_heads, "head_dim": self.head_dim}
        object.__setattr__(self, "_sizes", sizes)

    @property
    def trainable(self) -> list[torch.Tensor]:
        """Parameters that learn, in the order of `backward`'s gradients."""
        return [*self.exit.trainable, *self._head_weights(), *self.entrance.trainable]

    def start(self, x: torch.Tensor, context: Context, *, learns: bool = True) -> Attended:
        """Everything up to the attention's output. x: (T, hidden_size)."""
        q, k, v, from_x = self._heads(x, context)
        attention = attention_forward(
            q,
            k,
            v,
            learns=learns,
            scale=self.scale,
            window=self.window,
            softcap=self.softcap,
            segments=context.segments,
            mask=context.mask,
        )
        rows = attention.output.detach().transpose(1, 2).reshape(x.shape[0], -1)
        return Attended(attention=attention, rows=rows, **from_x)

    def forget_inputs(self, kept: Attended) -> Attended | None:
        """All but q, k, v and what led to them, which the backward makes again; None for a graph.

        A graph holds q, k and v, so that all of it would have to be made again.
        """
        if not kept.attention.by_hand:
            return None
        attention = kept.attention.with_inputs(None, None, None)
        return Attended(None, attention, kept.rows, None, None, kept.gone)

    def finish(self, x: torch.Tensor, kept: Attended, context: Context) -> torch.Tensor:
        """The block's output."""
        y, kept.gone = self.exit.forward(kept.rows, x, context.seed + 1)
        return y

    def backward(
        self, dy: torch.Tensor, x: torch.Tensor, kept: Attended, context: Context, *, needed: bool
    ) -> tuple[torch.Tensor | None, Gradients]:
        """Gradients of x (None unless `needed`) and of `trainable`."""
        gone = kept.gone
        if gone is None:
            gone = self._gone_again(x, kept, context)
        drows, inner, g, gradients = self.exit.input_gradient(dy, gone, context.seed + 1)
        o = self.exit.group
        gradients += o.parameter_gradients(inner, g, kept.rows, gone.low, context.seed + 1)
        upstream = drows.view(*context.shape, self.heads, self.head_dim).transpose(1, 2)
        if kept.entered is None:
            kept = self._with_inputs_again(x, kept, context)
        assert kept.entered is not None
        dq, dk, dv = kept.attention.backward(upstream)
        del drows, upstream, inner
        qkv = self.entrance.group
        buffer = qkv.gradient_buffer(x.shape[0], x)
        gradients += self._rotate_back((dq, dk, dv), buffer[:, : qkv.out_features], kept, context)
        del dq, dk, dv
        dx, more = self.entrance.backward(buffer, x, kept.entered, dy, context.seed, needed=needed)
        return dx, gradients + more

    def _heads(
        self, x: torch.Tensor, context: Context
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Any]]:
        """q, k and v, (batch, heads, length, head_dim), and what `Attended` keeps of the way there."""
        projected, entered = self.entrance.forward(x, context.seed)
        rotated, head_rstd = self._rotate(projected, context)
        heads = rotated.view(*context.shape, -1, self.head_dim).transpose(1, 2)
        first, last = self.heads, self.heads + self.key_heads
        before = None if head_rstd is None else projected
        from_x = {"entered": entered, "projected": before, "head_rstd": head_rstd}
        return heads[:, :first], heads[:, first:last], heads[:, last:], from_x

    def _with_inputs_again(self, x: torch.Tensor, kept: Attended, context: Context) -> Attended:
        """What `forget_inputs` left, and q, k and v."""
        q, k, v, from_x = self._heads(x, context)
        return replace(kept, attention=kept.attention.with_inputs(q, k, v), **from_x)

    def _gone_again(self, x: torch.Tensor, kept: Attended, context: Context) -> Gone:
        if self.exit.norm is None:
            return self.exit.without_product(kept.rows, context.seed + 1)
        return self.exit.forward(kept.rows, x, context.seed + 1)[1]

    def _rotate(
        self, projected: torch.Tensor, context: Context
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        cos, sin = context.cos, context.sin
        if self.q_norm is None or self.k_norm is None:
            rope_forward(projected, cos, sin, **self._sizes)
            return projected, None
        q, k = self.q_norm, self.k_norm
        return qk_norm_rope_forward(
            projected, q.weight, k.weight, cos, sin, q.eps, offset=q.offset, **self._sizes
        )

    def _rotate_back(
        self,
        heads: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        out: torch.Tensor,
        kept: Attended,
        context: Context,
    ) -> Gradients:
        cos, sin = context.cos, context.sin
        if self.q_norm is None or self.k_norm is None:
            rope_backward(*heads, cos, sin, out)
            return []
        q, k = self.q_norm, self.k_norm
        learn = self._head_weights()
        assert kept.projected is not None
        assert kept.head_rstd is not None
        weights = qk_norm_rope_backward(
            *heads,
            kept.projected,
            kept.head_rstd,
            q.weight,
            k.weight,
            cos,
            sin,
            out,
            offset=q.offset,
            needs_dweight=bool(learn),
        )
        if weights is None:
            return []
        return [dw for norm, dw in zip((q, k), weights, strict=True) if norm.trainable]

    def _head_weights(self) -> list[torch.Tensor]:
        return [w for norm in (self.q_norm, self.k_norm) if norm for w in norm.trainable]


@dataclass
class Gated:
    """What an MLP block keeps: of gate|up, its output (None: make it again), and of down."""

    entered: Entered | None
    projected: torch.Tensor | None
    gone: Gone | None


@dataclass(frozen=True)
class MLPBlock:
    """x + [norm](down(act(gate(norm(x))) · up(norm(x))))."""

    entrance: Entrance
    exit: Exit
    activation: Activation

    @property
    def trainable(self) -> list[torch.Tensor]:
        """Parameters that learn, in the order of `backward`'s gradients."""
        return [*self.exit.trainable, *self.entrance.trainable]

    def forward(self, x: torch.Tensor, context: Context) -> tuple[torch.Tensor, Gated]:
        """The block's output, and everything its backward needs. x: (T, hidden_size)."""
        projected, entered = self.entrance.forward(x, context.seed + 2)
        hidden = gated_forward(*self._halves(projected), self.activation)
        y, gone = self.exit.forward(hidden, x, context.seed + 3)
        return y, Gated(entered, projected, gone)

    def forward_in_tiles(
        self, x: torch.Tensor, context: Context, tile: int
    ) -> tuple[torch.Tensor, Gated]:
        """`forward` by `tile` rows at a time, of which only the way back is kept."""
        y = torch.empty_like(x)
        parts = []
        for rows in _tiles(x, tile):
            y[rows], kept = self.forward(x[rows], context)
            assert kept.gone is not None
            parts.append(kept.gone)
            del kept  # gate and up must not lie beside those of the next tile
        return y, Gated(None, None, Gone.joined(parts))

    def backward_in_tiles(
        self, dy: torch.Tensor, x: torch.Tensor, gone: Gone, context: Context, tile: int
    ) -> tuple[torch.Tensor, Gradients]:
        """`backward` by `tile` rows at a time: gate and up of all rows are never there at once."""
        dx = torch.empty_like(x)
        total: Gradients = []
        for rows in _tiles(x, tile):
            kept = Gated(None, None, gone.of_rows(rows))
            dx[rows], gradients = self.backward(dy[rows], x[rows], kept, context)
            wide = [g.to(torch.promote_types(g.dtype, torch.float32)) for g in gradients]
            total = [a.add_(b) for a, b in zip(total, wide, strict=True)] if total else wide
        learn = self.trainable
        return dx, [g.to(p.dtype) for g, p in zip(total, learn, strict=True)]

    def backward(
        self, dy: torch.Tensor, x: torch.Tensor, kept: Gated, context: Context
    ) -> tuple[torch.Tensor, Gradients]:
        """Gradients of x and of `trainable`. Without a norm behind, down is never repeated."""
        projected, entered, gone = kept.projected, kept.entered, kept.gone
        if gone is None:
            _, again = self.forward(x, context)
            projected, entered, gone = again.projected, again.entered, again.gone
        elif projected is None:
            projected, entered = self.entrance.forward(x, context.seed + 2)
        assert projected is not None
        assert entered is not None
        assert gone is not None
        kept.projected = None
        dhidden, inner, g, gradients = self.exit.input_gradient(dy, gone, context.seed + 3)
        buffer = self.entrance.group.gradient_buffer(x.shape[0], x)
        dgate, dup = self._halves(buffer)
        # the hidden rows are rebuilt in the place of their gradient
        gated_backward(
            dhidden, *self._halves(projected), self.activation, dgate=dgate, dup=dup, h=dhidden
        )
        del projected, dgate, dup
        down = self.exit.group
        gradients += down.parameter_gradients(inner, g, dhidden, gone.low, context.seed + 3)
        del dhidden, inner
        dx, more = self.entrance.backward(buffer, x, entered, dy, context.seed + 2)
        assert dx is not None
        return dx, gradients + more

    def _halves(self, both: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        width = self.entrance.group.out_features // 2
        return both[:, :width], both[:, width : 2 * width]


def _tiles(x: torch.Tensor, tile: int) -> Iterator[slice]:
    return (slice(first, first + tile) for first in range(0, x.shape[0], tile))
