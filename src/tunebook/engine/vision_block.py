"""Recognises a block of a vision tower, proves it by running a small one, and runs it fused.

Knows the names that vision towers give their parts; the blocks themselves are those of decoder layers,
with other norms and activations, and attention to all patches of an image. Knows no image.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tunebook.engine.activation import LoneActivation, lone_activation_of
from tunebook.engine.attention import Segments
from tunebook.engine.decoder import (
    FusedLayer,
    computable,
    fused,
    left_out,
    norm_of,
    owner_of,
    width_of,
)
from tunebook.engine.decoder_blocks import (
    AttentionBlock,
    Context,
    Entrance,
    Exit,
    Gradients,
    MLPBlock,
    Norm,
)
from tunebook.engine.linear_group import LinearGroup
from tunebook.engine.linear_parts import Unsupported
from tunebook.engine.modules import Leave, ModuleKind, Swap, facts_of
from tunebook.engine.vision_layout import LONE_UPS, layout_of
from tunebook_kernels import (
    activation_backward,
    activation_forward,
    layer_norm_backward,
    layer_norm_forward,
)

_QKV = (("qkv",), ("q_proj", "k_proj", "v_proj"))
_OUTPUTS = ("proj", "out_proj", "o_proj")
_UPS = (("gate_proj", "up_proj"), *((name,) for name in LONE_UPS))
_DOWNS = ("down_proj", "fc2", "linear_fc2")
_ACTIVATIONS = ("act_fn", "act", "activation_fn")


@dataclass(frozen=True)
class LayerNorm(Norm):
    """One that subtracts the mean and adds a bias; its statistics are mean and 1 / deviation."""

    @property
    def bias(self) -> torch.Tensor | None:
        """(n,)."""
        return self.module.bias  # type: ignore[return-value]

    @property
    def trainable(self) -> list[torch.Tensor]:
        """Weight and bias, those that learn."""
        return [p for p in (self.weight, self.bias) if p is not None and p.requires_grad]

    def forward(self, x: torch.Tensor, out: torch.Tensor | None = None) -> tuple[torch.Tensor, Any]:
        """The normed rows, and mean and 1 / deviation of each."""
        y, _, mean, rstd = layer_norm_forward(x, self.weight, self.bias, self.eps, out=out)
        return y, (mean, rstd)

    def backward(
        self, dy: torch.Tensor, x: torch.Tensor, rstd: Any, dresidual: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Gradients]:
        """The input's gradient plus `dresidual`, and those of weight and bias if they learn."""
        bias = self.bias
        dx, *sums = layer_norm_backward(
            dy,
            x,
            self.weight,
            *rstd,
            dresidual=dresidual,
            needs_dweight=self.weight.requires_grad,
            needs_dbias=bias is not None and bias.requires_grad,
        )
        made = [gradient for gradient in sums if gradient is not None]
        return dx, [g.to(p.dtype) for g, p in zip(made, self.trainable, strict=True)]


@dataclass(frozen=True)
class PlainMLPBlock(MLPBlock):
    """x + down(act(up(norm(x)))): without a gate."""

    alone: LoneActivation = "gelu"

    def activate(self, projected: torch.Tensor) -> torch.Tensor:
        """The rows that down reads."""
        return activation_forward(projected, self.alone)

    def activate_back(
        self, dhidden: torch.Tensor, projected: torch.Tensor, buffer: torch.Tensor
    ) -> None:
        """Write the gradient of `projected` into `buffer`; `dhidden` becomes the rows themselves."""
        dx = buffer[:, : self.entrance.group.out_features]
        activation_backward(dhidden, projected, self.alone, dx=dx, h=dhidden)


class FusedVisionBlock(FusedLayer):
    """One block of a vision tower as two blocks of ours.

    Raises:
        Unsupported: a part of it is of a kind that these do not compute.
    """

    def __init__(self, block: nn.Module) -> None:
        layout = layout_of(block)
        if layout is None:
            raise Unsupported("it is no block of a vision tower")
        parts: Any = block
        attention, mlp = getattr(parts, layout.attention), getattr(parts, layout.mlp)
        owner = owner_of(attention.config)
        heads = int(attention.num_heads)
        output = _first(attention, _OUTPUTS)
        head_dim = width_of(output, "in_features") // heads
        ups = _all(mlp, _UPS)
        self.attention = AttentionBlock(
            Entrance(
                _any_norm(getattr(parts, layout.first_norm)),
                LinearGroup(_all(attention, _QKV), extend=True, owner=owner),
            ),
            Exit(LinearGroup([output], extend=False, owner=owner), None),
            *(heads, heads, head_dim),
            scale=float(_attribute(attention, ("scaling", "scale"))),
            window=None,
            softcap=None,
        )
        entrance = Entrance(
            _any_norm(getattr(parts, layout.second_norm)),
            LinearGroup(ups, extend=True, owner=owner),
        )
        way_out = Exit(LinearGroup([_first(mlp, _DOWNS)], extend=False, owner=owner), None)
        activation = _activation(mlp)
        if len(ups) == 1:
            self.mlp = PlainMLPBlock(entrance, way_out, "gelu", activation)
        elif activation == "quick_gelu":
            raise Unsupported("its gate passes a quick GELU")
        else:
            self.mlp = MLPBlock(entrance, way_out, activation)
        self._know(block)


def _context(
    hidden_states: torch.Tensor, kwargs: dict[str, Any], mask: torch.Tensor | None, seed: int
) -> Context:
    """From a block's arguments: patches of all images in one row, or images side by side."""
    cos, sin = kwargs.get("position_embeddings") or (None, None)
    segments = None
    if hidden_states.dim() == 2:
        shape = (1, hidden_states.shape[0])
        starts = kwargs["cu_seqlens"]
        if starts.numel() > 2:
            segments = Segments(starts, int(kwargs.get("max_seqlen") or hidden_states.shape[0]))
    else:
        shape = (hidden_states.shape[0], hidden_states.shape[1])
    return Context(shape, cos, sin, mask, segments, seed, causal=False)


def forward(self: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    """The block's output: fused, or by the block's own code as a decoder layer's is."""
    layout = layout_of(self)
    assert layout is not None
    dtype: torch.dtype = getattr(self, layout.first_norm).weight.dtype
    own = len(args) > 1 or bool(kwargs.get("is_causal"))
    own = own or not computable(getattr(self, layout.attention), dtype, hidden_states)
    if not own:
        try:
            block = fused(self, FusedVisionBlock)
        except Unsupported:  # adapters changed to what is no plain LoRA
            own = True
    if own:
        return type(self).forward(self, hidden_states, *args, **kwargs)
    mask = args[0] if args and hidden_states.dim() == 3 else kwargs.get("attention_mask")
    if args and hidden_states.dim() == 2:
        kwargs = {**kwargs, "cu_seqlens": args[0]}
    context = _context(hidden_states, kwargs, mask, block.new_seed())
    checkpointed = self.training and getattr(self, "gradient_checkpointing", False)
    return block.run_in(context, hidden_states, checkpointed=checkpointed)


# ------------------------------------------------------------------------------- recognising


def examine(module: nn.Module) -> Swap | Leave | None:
    """A fused forward for a block of a vision tower, a reason to leave it, or None for others."""
    if layout_of(module) is None:
        return None
    if module._parameters:
        return Leave("it has weights beside those of its parts")
    try:
        FusedVisionBlock(module)
    except Unsupported as error:
        return Leave(str(error))
    except AttributeError as error:
        return Leave(f"it is laid out differently: {error}")
    reason = left_out(module) or _difference(module)
    return Leave(reason) if reason else Swap(forward)


VISION = ModuleKind("vision_block", examine)


def _first(module: nn.Module, names: tuple[str, ...]) -> nn.Module:
    found = next((module._modules[name] for name in names if name in module._modules), None)
    if found is None:
        raise Unsupported(f"its {type(module).__name__} has no {' or '.join(names)}")
    return found


def _all(module: nn.Module, choices: tuple[tuple[str, ...], ...]) -> list[nn.Module]:
    for names in choices:
        found = [module._modules.get(name) for name in names]
        if all(part is not None for part in found):
            return [part for part in found if part is not None]
    raise Unsupported(f"its {type(module).__name__} is laid out differently")


def _attribute(module: nn.Module, names: tuple[str, ...]) -> Any:
    found = next((getattr(module, name) for name in names if hasattr(module, name)), None)
    if found is None:
        raise Unsupported(f"its {type(module).__name__} has no {' or '.join(names)}")
    return found


def _any_norm(module: nn.Module) -> Norm:
    if type(module) is nn.LayerNorm and module.elementwise_affine:
        return LayerNorm(module, float(module.eps), 0.0)
    return norm_of(module)


def _activation(mlp: nn.Module) -> Any:
    function = _attribute(mlp, _ACTIVATIONS)
    found = lone_activation_of(function)
    if found is None:
        raise Unsupported(f"its activation is {type(function).__name__}")
    return found


# ------------------------------------------------------------------------------------ proving

_SMALL = {
    "hidden_size": 32,
    "embed_dim": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_heads": 4,
    "attention_heads": 4,
    "head_dim": 8,
    "mlp_ratio": 2,
}
_PATCHES = 10
_TOLERANCE = 1e-4
_NOTHING = 1e-3

_DONE: dict[tuple[Any, ...], str | None] = {}


def _difference(block: nn.Module) -> str | None:
    """Why blocks of this class and config may not be fused, or None; each is tried once."""
    layout = layout_of(block)
    assert layout is not None
    attention: Any = getattr(block, layout.attention)
    parts = {name: type(part) for name, part in block.named_children()}
    facts = *facts_of(block), *facts_of(attention), *parts.items()
    key = (type(block), attention.config.to_json_string(use_diff=False), *facts)
    if key not in _DONE:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                _DONE[key] = _compare(type(block), attention.config, parts)
            except Exception as error:  # a stranger's class may want anything; then it is left
                _DONE[key] = f"it could not be tried out: {type(error).__name__}: {error}"
    return _DONE[key]


def _compare(kind: type[nn.Module], config: Any, parts: dict[str, type[nn.Module]]) -> str | None:
    with torch.device("cpu"):
        block: Any = _small_block(kind, config)
        for name, part in block.named_children():
            if type(part) is not parts.get(name):
                return f"its {name} is not the {type(part).__name__} that such a block has"
        ours = FusedVisionBlock(block)
        worst = max(
            _distance(block, ours, x, kwargs) for x, kwargs in _cases(kind, ours.attention.head_dim)
        )
    if worst <= _TOLERANCE:
        return None
    return f"its forward is not that of a pre-norm vision block (differs by {worst:.0e})"


def _distance(block: Any, ours: FusedVisionBlock, x: torch.Tensor, kwargs: Any) -> float:
    """The largest relative difference of output and gradients, the block's own code and fused."""
    upstream = torch.randn_like(x)
    context = _context(x, kwargs, kwargs.get("attention_mask"), 0)

    def step(run: Any) -> list[torch.Tensor]:
        start = x.clone().requires_grad_()
        output = run(start)
        return [output.detach(), *torch.autograd.grad(output, [start, *ours.trainable], upstream)]

    theirs = step(lambda start: block(start, **kwargs))
    mine = step(lambda start: ours.run_in(context, start, checkpointed=False))
    largest = max(float(b.norm()) for b in theirs)  # keys' biases have no gradient but rounding
    return max(
        float((a - b).norm() / b.norm().clamp_min(_NOTHING * largest))
        for a, b in zip(mine, theirs, strict=True)
    )


def _cases(kind: type[nn.Module], head_dim: int) -> Iterator[tuple[torch.Tensor, dict[str, Any]]]:
    """Two images in one row; or two side by side, all seen or as a mask says."""
    names = inspect.signature(kind.forward).parameters
    tables = {}
    if "position_embeddings" in names:
        angles = torch.randn((_PATCHES, head_dim // 2)).repeat(1, 2)
        tables["position_embeddings"] = (angles.cos(), angles.sin())
    if "cu_seqlens" in names:
        starts = torch.tensor([0, 4, _PATCHES], dtype=torch.int32)
        yield torch.randn((_PATCHES, 32)), {"cu_seqlens": starts, **tables}
        return
    images = 1 if tables else 2
    x = torch.randn((images, _PATCHES, 32))
    yield x, {"attention_mask": None, **tables}
    hidden = torch.zeros((images, 1, _PATCHES, _PATCHES))
    hidden[:, :, :4, 4:] = torch.finfo(torch.float).min
    yield x, {"attention_mask": hidden, **tables}


def _small_block(kind: type[nn.Module], config: Any) -> Any:
    small = copy.deepcopy(config)
    for name, value in _SMALL.items():
        if getattr(small, name, None) is not None:
            setattr(small, name, value)
    small._attn_implementation = "eager"
    make: Any = kind
    block: Any = make(small)
    block.float().eval().requires_grad_(True)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return block
