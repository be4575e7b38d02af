"""Linear layers that read one input (q|k|v, gate|up, o, down) as one product, with their LoRA.

Knows matrices and hand-derived gradients; knows no norm, no attention and no decoder layer.

With x (T, in), frozen W (out, in), and all adapters stacked as A (R, in), already multiplied by
their scaling, and B (out, R), block-diagonal (LoRA: Hu et al. 2021, arXiv:2106.09685):

    y  = x Wᵀ + (x Aᵀ) Bᵀ
    g  = dy B         dx = dy W + g A         dA = gᵀ x         dB = dyᵀ (x Aᵀ)

Where W has to be copied anyway (4-bit weights, or a copy kept in the compute dtype), W, A and B
stand in one matrix E = [[W, B], [A, ·]], so that each line is one product: y = [x, x Aᵀ] E[:out]ᵀ
and dx = [dy, g] E[:, :in].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tunebook.engine.linear_parts import LinearParts, mark_of, read_linear

_ALIGN = 16  # ranks are padded, so that kernels may read rows 16 bytes at a time


@dataclass
class Operands:
    """Matrices of one group in the compute dtype, valid until the next group asks for its own.

    Attributes:
        blocks: (W, first, last) for the rows of W that `first:last` of the output come from.
        A: (R, in), scaled; B: (out, R), block-diagonal. None without adapters.
        extended: (out + R, in + R) where all stand in one matrix, else None.
        bias: (out,) or None.
    """

    blocks: list[tuple[torch.Tensor, int, int]]
    A: torch.Tensor | None
    B: torch.Tensor | None
    extended: torch.Tensor | None
    bias: torch.Tensor | None


class Layout:
    """Counts how often buffers of any fused layer were made or given back.

    A captured graph holds their addresses: it may be replayed only while `version` stays the same.
    """

    def __init__(self) -> None:
        self.version = 0

    def changed(self) -> None:
        """Say that addresses of an earlier version may be gone."""
        self.version += 1


LAYOUT = Layout()


class Scratch:
    """One growing buffer an owner, device and dtype, for weights that are dequantised at each use.

    An owner is a model: two of them may run at the same time, in two threads.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[int, torch.device, torch.dtype], torch.Tensor] = {}

    def take(self, owner: int, rows: int, columns: int, like: torch.Tensor) -> torch.Tensor:
        """(rows, columns) of undefined content."""
        key, size = (owner, like.device, like.dtype), rows * columns
        buffer = self._buffers.get(key)
        if buffer is None or buffer.numel() < size:
            LAYOUT.changed()
            buffer = self._buffers[key] = torch.empty(size, dtype=like.dtype, device=like.device)
        return buffer[:size].view(rows, columns)

    def clear(self, owner: int) -> None:
        """Give the owner's memory back."""
        LAYOUT.changed()
        for key in [key for key in self._buffers if key[0] == owner]:
            self._buffers.pop(key, None)


SCRATCH = Scratch()


class LinearGroup:
    """Layers with one input, seen as one.

    Args:
        modules: in the order of the output's columns.
        extend: whether weights that are copied stand in one matrix with the adapters, which asks
            the caller for inputs and gradients with `rank` spare columns (`input_buffer`,
            `gradient_buffer`).
        owner: of the scratch that packed weights are written to; one for all groups of a model.
    """

    def __init__(self, modules: Sequence[nn.Module], *, extend: bool, owner: int = 0) -> None:
        self.owner = owner
        self.modules = tuple(modules)
        self.parts = [read_linear(module) for module in modules]
        self.in_features = self.parts[0].in_features
        self.out_features = sum(part.out_features for part in self.parts)
        self.ranks = sum(part.rank for part in self.parts)
        self.rank = -(-self.ranks // _ALIGN) * _ALIGN
        self.dropout = max((part.dropout for part in self.parts), default=0.0)
        self.packed = all(part.packed is not None for part in self.parts)
        self.trainable = [p for p in self._parameters() if p.requires_grad]
        self._places = self._find_places()
        self._base_learns = any(
            p is part.weight or p is part.bias for p in self.trainable for part in self.parts
        )
        self._may_extend = extend and self.rank > 0 and not self.dropout
        self._kept: Operands | None = None
        self._adapter: tuple[torch.Tensor, torch.Tensor] | None = None
        self._matrix: torch.Tensor | None = None
        self._copies: tuple[torch.Tensor, list[torch.Tensor], list[Any]] | None = None
        self.keep_weights(False)

    def keep_weights(self, resident: bool) -> None:
        """Whether the weights stay in the compute dtype, as copies made at the next forward.

        Weights that learn do not: a copy would not follow them.
        """
        self.resident = resident and not self._base_learns
        self.extended = self._may_extend and (resident or self.packed)
        self._kept = self._copies = self._adapter = self._matrix = None
        LAYOUT.changed()

    def still_valid(self) -> bool:
        """Whether the modules are still what they were when this group read them."""
        pairs = zip(self.modules, self.parts, strict=True)
        return all(mark_of(module) == part.mark for module, part in pairs)

    def input_buffer(self, rows: int, like: torch.Tensor) -> torch.Tensor:
        """(rows, in [+ R]) for the caller to write the input into the first columns."""
        return like.new_empty((rows, self.in_features + self.rank * self.extended))

    def gradient_buffer(self, rows: int, like: torch.Tensor) -> torch.Tensor:
        """(rows, out [+ R]) for the caller to write the output's gradient into."""
        return like.new_empty((rows, self.out_features + self.rank * self.extended))

    # ------------------------------------------------------------------ weights

    def operands(self, like: torch.Tensor) -> Operands:
        """The matrices in the dtype and on the device of `like`; adapters as last refreshed."""
        if self._kept is not None:
            return self._kept
        made = self._make(like)
        if self.resident:
            self._kept = made
        return made

    def adapters(self, like: torch.Tensor) -> Operands:
        """Operands without weights, of a group that is not extended."""
        return Operands([], *self._home(like), None, None)

    def refresh(self, like: torch.Tensor) -> tuple[list[torch.Tensor], list[Any]]:
        """Where the adapters go in the compute dtype, and where they come from, for one copy.

        They change at every weight update. Scaling is applied to the copies by `scale`.
        """
        if not self.rank:
            return [], []
        A, B = self._home(like)
        if self._copies is None or self._copies[0] is not A:
            targets: list[torch.Tensor] = []
            sources: list[Any] = []
            for part, rows, columns in self._places:
                targets += [A[rows], B[columns, rows]]
                # the parameters themselves: an optimizer may give them other storage
                sources += [part.lora_A, part.lora_B]
            self._copies = A, targets, sources
        return self._copies[1], self._copies[2]

    def scale(self) -> None:
        """Multiply the refreshed A by each adapter's scaling."""
        if self._copies is None:
            return
        for (part, _, _), target in zip(self._places, self._copies[1][::2], strict=True):
            if part.scaling != 1.0:
                target.mul_(part.scaling)

    def _make(self, like: torch.Tensor) -> Operands:
        bias = self._bias(like)
        A, B = self._home(like) if self.rank else (None, None)
        if self.extended and A is not None and B is not None:
            return self._make_extended(A, B, bias, like)
        if self.resident or self.packed:
            shape = (self.out_features, self.in_features)
            weights = like.new_empty(shape) if self.resident else self._scratch(*shape, like)
            self._copy_weights(weights)
            return Operands([(weights, 0, self.out_features)], A, B, None, bias)
        blocks, first = [], 0
        for part in self.parts:
            blocks.append((self._plain(part, like), first, first + part.out_features))
            first += part.out_features
        return Operands(blocks, A, B, None, bias)

    def _scratch(self, rows: int, columns: int, like: torch.Tensor) -> torch.Tensor:
        return SCRATCH.take(self.owner, rows, columns, like)

    def _make_extended(
        self, A: torch.Tensor, B: torch.Tensor, bias: torch.Tensor | None, like: torch.Tensor
    ) -> Operands:
        out, width = self.out_features, self.in_features
        matrix = self._matrix  # of which A and B are parts, where the weights are resident
        if matrix is None:
            matrix = self._scratch(out + self.rank, width + self.rank, like)
            matrix[out:, :width].copy_(A)
            matrix[:out, width:].copy_(B)
        weights = matrix[:out, :width]
        self._copy_weights(weights)
        blocks = [(weights, 0, out)]
        return Operands(blocks, matrix[out:, :width], matrix[:out, width:], matrix, bias)

    def _home(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A and B in the compute dtype: matrices of their own, or parts of the resident one."""
        if self._adapter is None or self._adapter[0].dtype != like.dtype:
            out, width, rank = self.out_features, self.in_features, self.rank
            if self.extended and self.resident:
                self._matrix = like.new_zeros((out + rank, width + rank))
                self._adapter = self._matrix[out:, :width], self._matrix[:out, width:]
            else:
                self._adapter = like.new_zeros((rank, width)), like.new_zeros((out, rank))
            self._kept = None
            LAYOUT.changed()
        return self._adapter

    def _plain(self, part: LinearParts, like: torch.Tensor) -> torch.Tensor:
        if part.packed is not None:
            return part.packed.dequantize(dtype=like.dtype)
        return part.weight.detach().to(like.dtype)

    def _copy_weights(self, target: torch.Tensor) -> None:
        """Write all weights, dequantised, into the rows of `target` (out, in), which may be strided."""
        first = 0
        for part in self.parts:
            rows = target[first : first + part.out_features]
            if part.packed is None:
                rows.copy_(part.weight.detach())
            else:
                part.packed.dequantize(out=rows)
            first += part.out_features

    def _find_places(self) -> list[tuple[LinearParts, slice, slice]]:
        """Each adapter with its rows of A (columns of B) and its rows of B."""
        places, rank, out = [], 0, 0
        for part in self.parts:
            if part.rank:
                rows = slice(rank, rank + part.rank)
                places.append((part, rows, slice(out, out + part.out_features)))
            rank, out = rank + part.rank, out + part.out_features
        return places

    def _bias(self, like: torch.Tensor) -> torch.Tensor | None:
        biases = [part.bias for part in self.parts]
        if all(bias is None for bias in biases):
            return None
        return torch.cat(
            [
                like.new_zeros(part.out_features)
                if part.bias is None
                else part.bias.detach().to(like.dtype)
                for part in self.parts
            ]
        )

    # ------------------------------------------------------------------ forward

    def forward(
        self, buffer: torch.Tensor, operands: Operands, seed: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The output (T, out), and x Aᵀ (T, R), which the backward needs (None without adapters).

        Args:
            buffer: from `input_buffer`, its first `in` columns written.
            seed: of the dropout masks; the backward must be given the same.
        """
        if operands.extended is not None:
            low = self.low(buffer, operands)
            return _product(buffer, operands.extended[: self.out_features], operands.bias), low
        y = self._base(buffer[:, : self.in_features], operands)
        if operands.A is None or operands.B is None:
            return y, None
        low = self.low(buffer, operands, seed)
        assert low is not None
        return y.addmm_(low, operands.B.t()), low

    def low(
        self, buffer: torch.Tensor, operands: Operands, seed: int | None = None
    ) -> torch.Tensor | None:
        """x Aᵀ alone, as `forward` gives it; written into the spare columns where there are some."""
        if operands.A is None:
            return None
        x = buffer[:, : self.in_features]
        if operands.extended is not None:
            return torch.mm(x, operands.A.t(), out=buffer[:, self.in_features :])
        if not self.dropout:
            return x @ operands.A.t()
        low = x.new_zeros((x.shape[0], self.rank))
        for index, (part, rows, _) in enumerate(self._places):
            dropped = x * _keep_mask(x, part.dropout, seed, index)
            low[:, rows] = dropped @ operands.A[rows].t()
        return low

    def _base(self, x: torch.Tensor, operands: Operands) -> torch.Tensor:
        if len(operands.blocks) == 1:
            return _product(x, operands.blocks[0][0], operands.bias)
        y = x.new_empty((x.shape[0], self.out_features))
        for weight, first, last in operands.blocks:
            torch.mm(x, weight.t(), out=y[:, first:last])
        return y if operands.bias is None else y.add_(operands.bias)

    # ----------------------------------------------------------------- backward

    def input_gradient(
        self,
        buffer: torch.Tensor,
        operands: Operands,
        *,
        needed: bool = True,
        seed: int | None = None,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """dx (T, in), and g = dy B (T, R), which `parameter_gradients` needs.

        Args:
            buffer: from `gradient_buffer` (or any (T, out) if not extended), dy written.
            needed: False where nothing before this group learns; then dx is None.
        """
        out, width = self.out_features, self.in_features
        dy = buffer[:, :out]
        g: torch.Tensor | None
        if operands.extended is not None:
            assert operands.B is not None
            g = torch.mm(dy, operands.B, out=buffer[:, out:])
            return (buffer @ operands.extended[:, :width] if needed else None), g
        g = None if operands.B is None else dy @ operands.B
        if not needed:
            return None, g
        dx: torch.Tensor | None = None
        for weight, first, last in operands.blocks:
            piece = dy[:, first:last]
            dx = piece @ weight if dx is None else dx.addmm_(piece, weight)
        assert dx is not None
        if g is not None and operands.A is not None:
            if not self.dropout:
                dx.addmm_(g, operands.A)
            else:
                for index, (part, rows, _) in enumerate(self._places):
                    mask = _keep_mask(dx, part.dropout, seed, index)
                    dx += (g[:, rows] @ operands.A[rows]) * mask
        return dx, g

    def parameter_gradients(
        self,
        dy: torch.Tensor,
        g: torch.Tensor | None,
        x: torch.Tensor,
        low: torch.Tensor | None,
        seed: int | None = None,
    ) -> list[torch.Tensor]:
        """Gradients of `trainable`, in that order and in each one's dtype.

        Args:
            dy: (T, out). g, low: from `input_gradient` and `forward`. x: (T, in).
        """
        if not self.trainable:
            return []
        made: dict[int, torch.Tensor] = {}
        if g is not None and low is not None:
            self._adapter_gradients(made, dy, g, x, low, seed)
        if self._base_learns:
            self._base_gradients(made, dy, x)
        return [made[id(parameter)] for parameter in self.trainable]

    def _adapter_gradients(
        self,
        made: dict[int, torch.Tensor],
        dy: torch.Tensor,
        g: torch.Tensor,
        x: torch.Tensor,
        low: torch.Tensor,
        seed: int | None,
    ) -> None:
        dtype = self._places[0][0].lora_A.dtype  # type: ignore[union-attr]
        dA = None if self.dropout else _mm(g.t(), x, dtype)
        dB = _mm(dy.t(), low, dtype)
        for index, (part, rows, columns) in enumerate(self._places):
            if dA is None:
                dropped = x * _keep_mask(x, part.dropout, seed, index)
                piece = _mm(g[:, rows].t(), dropped, dtype)
            else:
                piece = dA[rows]
            made[id(part.lora_A)] = piece if part.scaling == 1.0 else piece * part.scaling
            made[id(part.lora_B)] = dB[columns, rows]

    def _base_gradients(
        self, made: dict[int, torch.Tensor], dy: torch.Tensor, x: torch.Tensor
    ) -> None:
        first = 0
        for part in self.parts:
            piece = dy[:, first : first + part.out_features]
            if part.weight.requires_grad:
                made[id(part.weight)] = _mm(piece.t(), x, part.weight.dtype)
            if part.bias is not None and part.bias.requires_grad:
                made[id(part.bias)] = piece.sum(0, dtype=torch.float32).to(part.bias.dtype)
            first += part.out_features

    def _parameters(self) -> list[nn.Parameter]:
        return [
            parameter
            for part in self.parts
            for parameter in (part.lora_A, part.lora_B, part.weight, part.bias)
            if parameter is not None
        ]


def _product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return x @ weight.t() if bias is None else torch.addmm(bias, x, weight.t())


def _mm(left: torch.Tensor, right: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """left @ right in `dtype`; on a GPU the 32-bit sums of 16-bit products are not rounded first."""
    if dtype == left.dtype:
        return left @ right
    if left.is_cuda and dtype == torch.float32:
        return torch.mm(left, right, out_dtype=torch.float32)
    return (left @ right).to(dtype)


def _keep_mask(like: torch.Tensor, share: float, seed: int | None, index: int) -> torch.Tensor:
    """A dropout mask divided by what it keeps, the same whenever seed and index are."""
    if not share:
        return like.new_ones(())
    assert seed is not None
    # a layer's four groups have consecutive seeds: no two of its masks may be the same
    generator = torch.Generator(device=like.device).manual_seed(seed + 4 * index)
    mask = torch.empty(like.shape, dtype=like.dtype, device=like.device)
    return mask.bernoulli_(1 - share, generator=generator).div_(1 - share)
