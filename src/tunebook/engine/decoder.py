"""Runs a whole decoder layer as one function with a hand-derived backward, keeping what it is told.

Knows the layer's structure by the names of its parts and proves what it computes by running it; knows
no model family, no strategy and no budget.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, finalize

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from tunebook.engine.activation import Activation, activation_of
from tunebook.engine.decoder_blocks import (
    Attended,
    AttentionBlock,
    Context,
    Entrance,
    Exit,
    Gated,
    MLPBlock,
    Norm,
)
from tunebook.engine.decoder_probe import difference
from tunebook.engine.linear_group import SCRATCH, LinearGroup
from tunebook.engine.linear_parts import Unsupported
from tunebook.engine.modules import (
    Leave,
    ModuleKind,
    Swap,
    has_own_forward,
    swapped_kind,
)
from tunebook.engine.norm import convention_of
from tunebook.engine.offload import Berth, Cargo, loaded, unloaded

_DROPOUTS = ("attention_dropout", "dropout")
_RECORDER = "transformers.utils.output_capturing"
"""Whose hooks see what a caller asks for: attention weights, which no fused layer has."""
_SANDWICH = ("pre_feedforward_layernorm", "post_feedforward_layernorm")


@dataclass(frozen=True)
class Keep:
    """What of a layer stays in memory for its backward, beside its input; the rest is made again.

    Attributes:
        attention: q, k, v and the attention's output.
        output: the attention's output alone, or with its log-sum-exp where that is all the backward
            needs beside q, k and v (which are repeated). Where a graph holds them, it is not followed.
        residual: the sum after the attention (without it o's product is repeated).
        gate_up: gate and up.
        normed: the outputs of the two norms.
        tile: rows (tokens) that the MLP works on at a time where gate and up are not kept; None for
            all. Dropout's masks are made for all rows at once, so with dropout it is not followed.
    """

    attention: bool = True
    output: bool = True
    residual: bool = True
    gate_up: bool = True
    normed: bool = True
    tile: int | None = None


ALL = Keep()
NOTHING = Keep(False, False, False, False, False)


class FusedLayer:
    """One decoder layer as two blocks, and how its memory is spent.

    Raises:
        Unsupported: a part of the layer is of a kind that the blocks do not compute.
    """

    def __init__(self, layer: nn.Module) -> None:
        parts: Any = layer
        attention, mlp = parts.self_attn, parts.mlp
        sandwich = hasattr(layer, _SANDWICH[0])
        after_attention = parts.post_attention_layernorm
        owner = scratch_owner(layer)
        self.keep = ALL
        self.berth: Berth | None = None
        self.attention = AttentionBlock(
            Entrance(
                _norm(parts.input_layernorm),
                LinearGroup(_qkv(attention), extend=True, owner=owner),
            ),
            Exit(
                LinearGroup([attention.o_proj], extend=False, owner=owner),
                _norm(after_attention) if sandwich else None,
            ),
            *_head_counts(attention),
            scale=float(attention.scaling),
            window=window_of(attention),
            softcap=getattr(attention, "attn_logit_softcapping", None),
            q_norm=_norm(attention.q_norm) if hasattr(attention, "q_norm") else None,
            k_norm=_norm(attention.k_norm) if hasattr(attention, "k_norm") else None,
        )
        before_mlp = parts.pre_feedforward_layernorm if sandwich else after_attention
        self.mlp = MLPBlock(
            Entrance(_norm(before_mlp), LinearGroup(_gate_up(mlp), extend=True, owner=owner)),
            Exit(
                LinearGroup([mlp.down_proj], extend=False, owner=owner),
                _norm(parts.post_feedforward_layernorm) if sandwich else None,
            ),
            _activation(mlp),
        )
        self.groups = (
            self.attention.entrance.group,
            self.attention.exit.group,
            self.mlp.entrance.group,
            self.mlp.exit.group,
        )
        self.trainable = [*self.attention.trainable, *self.mlp.trainable]
        self.drops = any(group.dropout for group in self.groups)
        self._sections = rotary_sections(attention)
        self._parameters = list(layer.parameters())
        self._learn = [parameter.requires_grad for parameter in self._parameters]

    def still_valid(self) -> bool:
        """Whether the layer's parts are still those that were read, and the same ones learn."""
        if [parameter.requires_grad for parameter in self._parameters] != self._learn:
            return False
        return all(group.still_valid() for group in self.groups)

    def run(
        self, hidden_states: torch.Tensor, kwargs: dict[str, Any], *, checkpointed: bool = False
    ) -> torch.Tensor:
        """The layer's output, (batch, length, hidden_size); differentiable.

        Args:
            kwargs: of the layer's forward.
            checkpointed: whether transformers was told to recompute the layer; then nothing is kept.
        """
        self._refresh_adapters(hidden_states)
        seed = int(torch.randint(2**40, ())) if self.drops else 0
        context = Context.of(hidden_states, self._with_one_table(kwargs), seed)
        learns = torch.is_grad_enabled() and (hidden_states.requires_grad or bool(self.trainable))
        if learns:
            how = (NOTHING, None) if checkpointed else (self.keep, self.berth)
            inputs = (hidden_states, *self.trainable)
            result: torch.Tensor = _Layer.apply(self, context, *how, *inputs)  # type: ignore[no-untyped-call]
            return result
        with no_autocast(hidden_states), torch.no_grad():
            x = hidden_states.reshape(-1, hidden_states.shape[-1])
            middle = self.attention.finish(
                x, self.attention.start(x, context, learns=False), context
            )
            return self.mlp.forward(middle, context)[0].view(hidden_states.shape)

    @torch.no_grad()
    def rehearse(self, hidden_states: torch.Tensor, kwargs: dict[str, Any]) -> None:
        """Call all kernels of a forward and backward in this thread, for their own sake."""
        self._refresh_adapters(hidden_states)
        context = Context.of(hidden_states, kwargs, 0)
        with no_autocast(hidden_states):
            x = hidden_states.reshape(-1, hidden_states.shape[-1])
            attended = self.attention.start(x, context)
            middle = self.attention.finish(x, attended, context)
            y, gated = self.mlp.forward(middle, context)
            dmiddle, _ = self.mlp.backward(y, middle, gated, context)
            self.attention.backward(dmiddle, x, attended, context, needed=True)

    def tile_of(self, keep: Keep, x: torch.Tensor) -> int | None:
        """Rows that the MLP works on at a time, None for all at once."""
        if keep.tile is None or keep.gate_up or self.drops or keep.tile >= x.shape[0]:
            return None
        return keep.tile

    def _with_one_table(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Rotary tables for time, height and width (3, batch, length, dim) put into one.

        So they come from transformers before 5.16, whose Qwen 2 and 2.5 VL do this in each layer.
        """
        tables = kwargs["position_embeddings"]
        if self._sections is None or tables[0].dim() < 4:
            return kwargs
        return {**kwargs, "position_embeddings": [one_table(t, self._sections) for t in tables]}

    @torch.no_grad()
    def _refresh_adapters(self, like: torch.Tensor) -> None:
        """Copy all adapters to their places in the compute dtype, in one call."""
        pairs = [group.refresh(like) for group in self.groups]
        targets = [target for some, _ in pairs for target in some]
        if targets:
            torch._foreach_copy_(targets, [source for _, some in pairs for source in some])
            for group in self.groups:
                group.scale()


def no_autocast(like: torch.Tensor) -> AbstractContextManager[Any]:
    """Products as they are written: what is fused has one dtype and needs no casts."""
    if torch.is_autocast_enabled(like.device.type):
        return torch.autocast(like.device.type, enabled=False)
    return nullcontext()


class _Layer(torch.autograd.Function):
    """Both blocks. Their gradients are computed together, with what was kept or is made again."""

    @staticmethod
    def forward(
        ctx: Any,
        layer: FusedLayer,
        context: Context,
        keep: Keep,
        berth: Berth | None,
        hidden_states: torch.Tensor,
        *trainable: torch.Tensor,
    ) -> torch.Tensor:
        cargo: Cargo | None = None
        ctx.before = None
        with no_autocast(hidden_states):
            x = hidden_states.reshape(-1, hidden_states.shape[-1])
            if berth is not None:
                cargo, ctx.before = berth.enter()
            held: tuple[Any, ...] = (x if cargo is None else cargo.load(x),)
            attended = layer.attention.start(x, context)
            middle = layer.attention.finish(x, attended, context)
            # before the MLP, which needs room of its own, and which copies may run beside
            ctx.attended = _trim_attended(layer, attended, keep)
            del attended
            sum_: Any = middle if keep.residual else None
            if cargo is not None and berth is not None:
                if sum_ is not None and berth.sums:
                    sum_ = cargo.load(sum_)
                if ctx.attended is not None and ctx.attended.attention.by_hand:
                    ctx.attended = loaded(ctx.attended, cargo, berth.attended)
                cargo.seal()
            held = (*held, sum_)
            tile = layer.tile_of(keep, x)
            if tile:
                y, gated = layer.mlp.forward_in_tiles(middle, context, tile)
            else:
                y, gated = layer.mlp.forward(middle, context)
        ctx.tile = tile
        ctx.layer, ctx.context = layer, context
        ctx.gated = _trim_gated(layer, gated, keep)
        # tickets cannot be saved as tensors are
        ctx.held = tuple(None if isinstance(one, torch.Tensor) else one for one in held)
        ctx.save_for_backward(*(one if isinstance(one, torch.Tensor) else None for one in held))
        ctx.cargo = cargo
        if berth is not None:
            berth.leave(cargo, ctx.before)
        return y.view(hidden_states.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[Any, ...]:
        layer, context = ctx.layer, ctx.context
        attended: Attended | None = ctx.attended
        x, middle = (
            one if ticket is None else ticket
            for one, ticket in zip(ctx.saved_tensors, ctx.held, strict=True)
        )
        if ctx.cargo is not None:
            arrived = ctx.cargo.take()
            x, middle, attended = (unloaded(one, arrived) for one in (x, middle, attended))
            del arrived
        if ctx.before is not None:
            ctx.before.send_for()
        gated: Gated = ctx.gated or Gated(None, None, None)  # None: a graph that is run twice
        ctx.attended = ctx.gated = None
        shape = dy.shape
        with no_autocast(dy):
            dy = dy.reshape(x.shape)
            if middle is None:
                attended = attended or layer.attention.start(x, context)
                middle = layer.attention.finish(x, attended, context)
            if ctx.tile and gated.gone is not None:
                dmiddle, of_mlp = layer.mlp.backward_in_tiles(
                    dy, middle, gated.gone, context, ctx.tile
                )
            else:
                dmiddle, of_mlp = layer.mlp.backward(dy, middle, gated, context)
            del middle, gated, dy
            if attended is None:  # not earlier: it would lie beside the MLP's gradients
                attended = layer.attention.start(x, context)
            dx, of_attention = layer.attention.backward(
                dmiddle, x, attended, context, needed=ctx.needs_input_grad[4]
            )
        dx = None if dx is None else dx.view(shape)
        return None, None, None, None, dx, *of_attention, *of_mlp


def _trim_attended(layer: FusedLayer, kept: Attended, keep: Keep) -> Attended | None:
    if not keep.attention:
        return layer.attention.forget_inputs(kept) if keep.output else None
    if not keep.normed and kept.entered is not None:
        layer.attention.entrance.forget(kept.entered)
    return kept


def _trim_gated(layer: FusedLayer, kept: Gated, keep: Keep) -> Gated:
    if not keep.gate_up:
        return Gated(None, None, kept.gone)
    if not keep.normed and kept.entered is not None:
        layer.mlp.entrance.forget(kept.entered)
    return kept


# ------------------------------------------------------------------------- the swapped forward

_OWNERS: set[int] = set()
_FUSED: WeakKeyDictionary[nn.Module, FusedLayer] = WeakKeyDictionary()


def fused(layer: nn.Module) -> FusedLayer:
    """The fused form of a layer, made anew when its adapters changed.

    Raises:
        Unsupported: as `FusedLayer`.
    """
    known = _FUSED.get(layer)
    if known is not None and known.still_valid():
        return known
    made = FusedLayer(layer)
    if known is not None:
        made.keep, made.berth = known.keep, known.berth
        for group, before in zip(made.groups, known.groups, strict=True):
            group.keep_weights(before.resident)
    _FUSED[layer] = made
    return made


def scratch_owner(layer: Any) -> int:
    """What the layers of one model share, and those of two models do not: its config's identity.

    The scratch goes with the config.
    """
    config = layer.self_attn.config
    owner = id(config)
    if owner not in _OWNERS:
        _OWNERS.add(owner)
        finalize(config, _disown, owner)
    return owner


def _disown(owner: int) -> None:
    _OWNERS.discard(owner)
    SCRATCH.clear(owner)


def berth_of(layer: nn.Module) -> Berth | None:
    """A layer's place among those whose inputs wait in the host's memory, if it was given one."""
    known = _FUSED.get(layer)
    return None if known is None else known.berth


def forget(layer: nn.Module) -> None:
    """Drop a layer's fused form and the copies of weights that it keeps."""
    _FUSED.pop(layer, None)


def forward(self: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    """The layer's output: fused, or by the layer's own code where that is needed.

    The own code serves with a key cache (generation), with attention dropout, and wherever the
    hidden states are not in the dtype that the products are computed in.
    """
    own = args or kwargs.get("past_key_values") is not None or not _computable(self, hidden_states)
    if not own:
        try:
            layer = fused(self)
        except Unsupported:  # adapters changed to what is no plain LoRA
            own = True
    if own:
        return type(self).forward(self, hidden_states, *args, **kwargs)
    checkpointed = self.training and getattr(self, "gradient_checkpointing", False)
    return layer.run(hidden_states, kwargs, checkpointed=checkpointed)


def _computable(layer: Any, hidden_states: torch.Tensor) -> bool:
    attention = layer.self_attn
    dropouts = (getattr(attention, name, 0.0) for name in _DROPOUTS)
    if layer.training and any(isinstance(share, float) and share > 0 for share in dropouts):
        return False
    device = hidden_states.device.type
    if (
        torch.is_autocast_enabled(device)
        and torch.get_autocast_dtype(device) != hidden_states.dtype
    ):
        return False
    dtype: torch.dtype = layer.input_layernorm.weight.dtype
    return dtype == hidden_states.dtype


# ------------------------------------------------------------------------------- recognising


def examine(module: nn.Module) -> Swap | Leave | None:
    """A fused forward for a pre-norm decoder layer, a reason to leave it, or None for others."""
    parts = module._modules
    if not {"self_attn", "mlp"} <= parts.keys():
        return None
    if "input_layernorm" not in parts:
        return Leave("it has no norm before its attention")
    if "post_attention_layernorm" not in parts:
        return Leave("it has no norm between attention and MLP")
    try:
        FusedLayer(module)
    except Unsupported as error:
        return Leave(str(error))
    except AttributeError as error:
        return Leave(f"it is laid out differently: {error}")
    reason = _left_out(module) or difference(module)
    return Leave(reason) if reason else Swap(forward)


DECODER = ModuleKind("decoder_layer", examine)


def _left_out(layer: nn.Module) -> str | None:
    """What was added to a part of the layer, which is not called any more once it runs fused."""
    for name, part in layer.named_modules():
        if part is layer:
            continue
        if has_own_forward(part) and swapped_kind(part) is None:
            return f"the forward of its {name} was replaced by something else"
        hooks = [*part._forward_hooks.values(), *part._forward_pre_hooks.values()]
        if part._backward_hooks or any(hook.__module__ != _RECORDER for hook in hooks):
            return f"its {name} has hooks"
    return None


def window_of(attention: Any) -> int | None:
    """How far back this layer looks, itself included; None for everything."""
    if hasattr(attention, "sliding_window"):
        window = attention.sliding_window
    else:
        window = getattr(attention.config, "sliding_window", None)
    return None if window is None else int(window)


def rotary_sections(attention: Any) -> list[int] | None:
    """Of half a head, the numbers that turn by time, height and width; None where all do by one."""
    parameters = getattr(attention.config, "rope_parameters", None) or {}
    found = parameters.get("mrope_section")
    return None if found is None else [int(section) for section in found]


def one_table(table: torch.Tensor, sections: list[int]) -> torch.Tensor:
    """(batch, length, dim) of one for each axis, (3, batch, length, dim)."""
    pieces = table.split(sections * 2, dim=-1)
    return torch.cat([piece[index % 3] for index, piece in enumerate(pieces)], dim=-1)


def _norm(module: nn.Module) -> Norm:
    found = convention_of(module)
    if found is None:
        raise Unsupported(f"its {type(module).__name__} is no RMSNorm of Llama's or Gemma's kind")
    return Norm(module, *found)


def _qkv(attention: Any) -> list[nn.Module]:
    if hasattr(attention, "qkv_proj"):
        return [attention.qkv_proj]
    return [attention.q_proj, attention.k_proj, attention.v_proj]


def _gate_up(mlp: Any) -> list[nn.Module]:
    return [mlp.gate_up_proj] if hasattr(mlp, "gate_up_proj") else [mlp.gate_proj, mlp.up_proj]


def _head_counts(attention: Any) -> tuple[int, int, int]:
    head_dim = int(attention.head_dim)
    heads = _width(attention.o_proj, "in_features") // head_dim
    return heads, heads // int(attention.num_key_value_groups), head_dim


def _width(module: Any, name: str) -> int:
    return int(getattr(getattr(module, "base_layer", module), name))


def _activation(mlp: Any) -> Activation:
    function = getattr(mlp, "act_fn", None) or getattr(mlp, "activation_fn", None)
    found = activation_of(function)
    if found is None:
        raise Unsupported(f"its activation is {type(function).__name__}")
    return found
