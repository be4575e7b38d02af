"""IQ4_NL and IQ4_XS: four bits that name one of sixteen unevenly spaced values.

Places first and blocks last, as in `kquants`; the search is `quantize_row_iq4_nl_impl` of
ggml-quants.c.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from tunebook.export.gguf.packing import (
    as_bytes,
    from_half_bytes,
    half_bytes,
    pack_planes,
    unpack_planes,
)
from tunebook.export.gguf.searches import (
    LEAST,
    TINY,
    inverse_or_0,
    is_above,
    over,
    signed_extreme,
    weights_of,
)

VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
_TRIALS = range(-7, 8)


def pack_iq4_nl(x: Tensor, importance: Tensor | None) -> Tensor:
    """18 bytes for 32 weights (32, n): d, then two indices a byte."""
    groups = x[None]
    d = _scales(groups, importance)
    quants = as_bytes(_nearest(groups, inverse_or_0(d)))
    return torch.cat([half_bytes(d[0]), _indices(quants)])


def unpack_iq4_nl(packed: Tensor) -> Tensor:
    """The weights (32, n) of IQ4_NL bytes (18, n)."""
    return _values(packed[2:], from_half_bytes(packed[:2])[None])


def pack_iq4_xs(x: Tensor, importance: Tensor | None) -> Tensor:
    """136 bytes for 256 weights (256, n): d, 6-bit scales of eight groups, two indices a byte."""
    groups = x.view(8, 32, -1)
    scales = _scales(groups, importance)
    d = signed_extreme(scales[None])[0] / -32
    codes = (inverse_or_0(d) * scales).round_().clamp_(-32, 31)
    quants = as_bytes(_nearest(groups, inverse_or_0(d * codes)))
    whole = as_bytes(codes.add_(32))
    high = pack_planes((whole >> 4).view(2, 4, 1, -1), 2).view(2, -1)
    low = pack_planes((whole & 15).view(4, 2, 1, -1), 4).view(4, -1)
    return torch.cat([half_bytes(d), high, low, _indices(quants)])


def unpack_iq4_xs(packed: Tensor) -> Tensor:
    """The weights (256, n) of IQ4_XS bytes (136, n)."""
    high = unpack_planes(packed[2:4].view(2, 1, -1), 2).view(8, -1)
    low = unpack_planes(packed[4:8].view(4, 1, -1), 4).view(8, -1)
    scales = (low | high << 4).float().sub_(32)
    return _values(packed[8:], from_half_bytes(packed[:2]) * scales)


def _scales(groups: Tensor, importance: Tensor | None) -> Tensor:
    """The scale of each group (groups, 32, n) with the least weighted squared error: (groups, n)."""
    weights = groups.square() if importance is None else weights_of(groups, importance, 2)
    weighted = weights * groups
    extreme = signed_extreme(groups)
    zero = extreme.abs() < TINY
    extreme.masked_fill_(zero, 1)
    table = _table(groups.device, values=True)
    product = torch.empty_like(groups)

    def fitted(inverse: Tensor) -> tuple[Tensor, Tensor]:
        value = table.index_select(0, _places(groups, inverse).view(-1)).view_as(groups)
        sum_xl = torch.mul(weighted, value, out=product).sum(1)
        sum_l2 = value.square_().mul_(weights).sum(1)
        scale = sum_xl / sum_l2.clamp_(min=LEAST)
        return scale, sum_xl.mul_(scale)

    scale, best = fitted((extreme / -VALUES[0]).reciprocal_())
    for trial in _TRIALS:
        this_scale, gain = fitted(over(trial + VALUES[0], extreme))
        better = is_above(gain, best)
        torch.maximum(gain, best, out=best)
        scale.lerp_(this_scale, better)
    return scale.masked_fill_(zero, 0)


def _places(groups: Tensor, inverse: Tensor) -> Tensor:
    """Where x * inverse lies in `_table`, whose steps are half: int32, like `groups`."""
    halves = (groups * (2 * inverse)[:, None]).floor_().clamp_(-256, 255)
    return halves.add_(256).to(torch.int32).clamp_(0, 511)  # nan may lead nowhere else either


def _nearest(groups: Tensor, inverse: Tensor) -> Tensor:
    """The index of the value nearest to x * inverse, the upper one of two as near; float32."""
    table = _table(groups.device, values=False)
    return table.index_select(0, _places(groups, inverse).view(-1)).view_as(groups)


@cache
def _table(device: torch.device, *, values: bool) -> Tensor:
    """Index or value nearest to each half from -128 on; the borders between values are halves."""
    known = torch.tensor(VALUES, dtype=torch.float32)
    borders = (known[1:] + known[:-1]) / 2
    halves = torch.arange(-256, 256) / 2
    index = (halves[:, None] >= borders).sum(1)
    return (known[index] if values else index.float()).to(device)


def _indices(quants: Tensor) -> Tensor:
    """(groups, 32, n) to bytes (groups * 16, n): places j and j + 16 share one."""
    groups, _, n = quants.shape
    return pack_planes(quants.view(groups, 2, 16, n), 4).view(groups * 16, n)


def _values(packed: Tensor, scales: Tensor) -> Tensor:
    """The weights of indices (groups * 16, n) and scales (groups, n): (groups * 32, n)."""
    groups, n = scales.shape
    index = unpack_planes(packed.view(groups, 16, n), 4).reshape(groups, 32, n)
    values = torch.tensor(VALUES, dtype=torch.float32, device=packed.device)
    return (values[index.int()] * scales[:, None]).view(groups * 32, n)
