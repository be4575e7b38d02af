"""Q2_K to Q6_K: superblocks of 256 weights in groups with small integer scales, as ggml makes them.

`pack` functions take weights as (256, n), one superblock a column, and give its bytes as (bytes, n);
`unpack` functions the reverse. The layouts are those of ggml-common.h.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from tunebook.export.gguf.packing import (
    as_bytes,
    from_half_bytes,
    half_bytes,
    pack_k4_scales,
    pack_planes,
    pack_q3_scales,
    unpack_k4_scales,
    unpack_planes,
    unpack_q3_scales,
)
from tunebook.export.gguf.searches import (
    TINY,
    make_q3,
    make_qkx,
    make_qp,
    make_qx,
    over,
    signed_extreme,
    weights_of,
)

_SEARCHED = (-0.9, 0.05, 36)  # the steps of make_qkx3, for weights of known importance


class _Superblock(NamedTuple):
    """Quants (256, n) and the scales and minima of the groups (groups, n), uint8; d and dmin (n)."""

    quants: Tensor
    scales: Tensor
    minima: Tensor
    d: Tensor
    dmin: Tensor


def pack_q2_k(x: Tensor, importance: Tensor | None) -> Tensor:
    """84 bytes a superblock: 16 groups of 16; 2-bit quants, 4-bit scales and minima."""
    groups = x.view(16, 16, -1)
    if importance is None:
        fitted = _rounded(groups, groups.abs(), 3, 15, (-0.5, 0.1, 15), measure="absolute")
    else:
        fitted = _rounded(groups, weights_of(groups, importance, 1), 3, 15, _SEARCHED)
    quants = pack_planes(fitted.quants.view(2, 4, 32, -1), 2).view(64, -1)
    scales = fitted.scales | fitted.minima << 4
    return torch.cat([scales, quants, half_bytes(fitted.d), half_bytes(fitted.dmin)])


def unpack_q2_k(packed: Tensor) -> Tensor:
    """The weights (256, n) of Q2_K bytes (84, n)."""
    quants = unpack_planes(packed[16:80].view(2, 32, -1), 2)
    d, dmin = from_half_bytes(packed[80:82]), from_half_bytes(packed[82:])
    return _affine(quants, packed[:16] & 15, packed[:16] >> 4, d, dmin)


def pack_q3_k(x: Tensor, importance: Tensor | None) -> Tensor:
    """110 bytes a superblock: 16 groups of 16; 3-bit quants, 6-bit scales of either sign."""
    groups = x.view(16, 16, -1)
    if importance is None:
        scales = make_q3(groups, 4)
        inverse = over(-32, signed_extreme(scales[None])[0])
        zero = inverse.isinf()
        codes = (inverse * scales).round_().clamp_(-32, 31).add_(32).masked_fill_(zero, 0)
        d = inverse.reciprocal().masked_fill_(zero, 0)
    else:
        weights = weights_of(groups, importance, 2)
        total = weights.sum(1)
        scales = make_qx(groups, weights, 4).scale
        block, quants = make_qx(scales[None], total[None], 32, quants=True)
        assert quants is not None
        codes, d = quants[0], block[0]
    quants = as_bytes(_divided(groups, _half(d) * (codes - 32), (-4, 3)))
    high = pack_planes(quants.view(8, 32, -1) >> 2, 1)
    low = pack_planes(quants.view(2, 4, 32, -1) & 3, 2).view(64, -1)
    return torch.cat([high, low, pack_q3_scales(as_bytes(codes)), half_bytes(d)])


def unpack_q3_k(packed: Tensor) -> Tensor:
    """The weights (256, n) of Q3_K bytes (110, n)."""
    high = unpack_planes(packed[:32], 1).view(256, -1)
    low = unpack_planes(packed[32:96].view(2, 32, -1), 2).view(256, -1)
    quants = (low | high << 2).view(16, 16, -1).float().sub_(4)
    scales = unpack_q3_scales(packed[96:108]).float().sub_(32)
    return (quants * (from_half_bytes(packed[108:]) * scales)[:, None]).view(256, -1)


def pack_q4_k(x: Tensor, importance: Tensor | None) -> Tensor:
    """144 bytes a superblock: 8 groups of 32; 4-bit quants, 6-bit scales and minima."""
    fitted = _eight_groups(x, importance, 15, (-1, 0.1, 20))
    quants = pack_planes(fitted.quants.view(4, 2, 32, -1), 4).view(128, -1)
    return torch.cat([*_head(fitted), quants])


def unpack_q4_k(packed: Tensor) -> Tensor:
    """The weights (256, n) of Q4_K bytes (144, n)."""
    quants = unpack_planes(packed[16:].view(4, 32, -1), 4)
    return _from_head(packed, quants)


def pack_q5_k(x: Tensor, importance: Tensor | None) -> Tensor:
    """176 bytes a superblock: 8 groups of 32; 5-bit quants, 6-bit scales and minima."""
    fitted = _eight_groups(x, importance, 31, (-0.5, 0.1, 15))
    low = pack_planes((fitted.quants & 15).view(4, 2, 32, -1), 4).view(128, -1)
    high = pack_planes(fitted.quants.view(8, 32, -1) >> 4, 1)
    return torch.cat([*_head(fitted), high, low])


def unpack_q5_k(packed: Tensor) -> Tensor:
    """The weights (256, n) of Q5_K bytes (176, n)."""
    high = unpack_planes(packed[16:48], 1)
    low = unpack_planes(packed[48:].view(4, 32, -1), 4).view(8, 32, -1)
    return _from_head(packed, low | high << 4)


def pack_q6_k(x: Tensor, importance: Tensor | None) -> Tensor:
    """210 bytes a superblock: 16 groups of 16; 6-bit quants, 8-bit scales of either sign."""
    groups = x.view(16, 16, -1)
    weights = groups * groups if importance is None else importance.view(16, 16, -1)
    scales = make_qx(groups, weights, 32).scale
    extreme = signed_extreme(scales[None])[0]
    inverse = over(-128, extreme)
    d = inverse.reciprocal().masked_fill_(extreme.abs() < TINY, 0)
    codes = (inverse * scales).round_().clamp_(max=127).masked_fill_(d == 0, 0)
    quants = as_bytes(_divided(groups, _half(d) * codes, (-32, 31))).view(2, 4, 32, -1)
    low = pack_planes((quants & 15).view(2, 2, 64, -1), 4)
    high = pack_planes(quants >> 4, 2)
    return torch.cat([low.view(128, -1), high.view(64, -1), as_bytes(codes), half_bytes(d)])


def unpack_q6_k(packed: Tensor) -> Tensor:
    """The weights (256, n) of Q6_K bytes (210, n)."""
    low = unpack_planes(packed[:128].view(2, 64, -1), 4).view(256, -1)
    high = unpack_planes(packed[128:192].view(2, 32, -1), 2).view(256, -1)
    quants = (low | high << 4).view(16, 16, -1).float().sub_(32)
    scales = packed[192:208].view(torch.int8).float()
    return (quants * (from_half_bytes(packed[208:]) * scales)[:, None]).view(256, -1)


def _eight_groups(
    x: Tensor, importance: Tensor | None, nmax: int, steps: tuple[float, float, int]
) -> _Superblock:
    """Q4_K and Q5_K, which differ in their quants and trial scales alone."""
    groups = x.view(8, 32, -1)
    if importance is None:
        weights = groups.abs().add_(groups.square().mean(1, keepdim=True).sqrt_())
        return _rounded(groups, weights, nmax, 63, steps, measure="gain")
    return _rounded(groups, weights_of(groups, importance, 2), nmax, 63, _SEARCHED)


def _rounded(
    groups: Tensor,
    weights: Tensor,
    nmax: int,
    limit: int,
    steps: tuple[float, float, int],
    *,
    measure: Literal["gain", "square", "absolute"] = "square",
) -> _Superblock:
    """Scales and minima of groups (groups, size, n) as whole numbers, and the quants they leave.

    Args:
        weights: as `make_qkx` wants them; used up.
        limit: the largest whole number for a scale or minimum.
        measure: as of `make_qkx`. With the squared error, which is for weights of known importance,
            d and dmin are searched for too, else they are those of the largest scale and minimum.
    """
    total = weights.sum(1) if measure == "square" else None
    fitted = make_qkx(groups, weights, nmax, steps, measure=measure)
    pair = torch.stack([fitted.scale, fitted.minimum])
    if total is None:
        largest = pair.amax(1)
        inverse = torch.where(largest > 0, over(limit, largest), 0)
        codes = (pair * inverse[:, None]).round_().clamp_(0, limit)
        d = largest / limit
    else:
        d, codes = make_qp(pair, total.expand_as(pair), limit)
    step = _half(d)[:, None] * codes
    quants = _divided(groups, step[0], (0, nmax), step[1])
    scales, minima = as_bytes(codes)
    return _Superblock(as_bytes(quants).view(256, -1), scales, minima, d[0], d[1])


def _divided(
    groups: Tensor, step: Tensor, limits: tuple[int, int], minimum: Tensor | None = None
) -> Tensor:
    """Quants (groups, size, n), counted from 0, for steps and minima (groups, n); 0 for a step of 0."""
    some = (step != 0).float()
    shifted = groups if minimum is None else groups + minimum[:, None]
    quants = (shifted / (step + (1 - some))[:, None]).round_().clamp_(*limits)
    return quants.sub_(limits[0]).mul_(some[:, None])


def _half(value: Tensor) -> Tensor:
    """Rounded as a block stores it."""
    return value.to(torch.float16).float()


def _head(fitted: _Superblock) -> tuple[Tensor, Tensor, Tensor]:
    """d, dmin, scales and minima: the first 16 bytes of Q4_K and Q5_K."""
    scales = pack_k4_scales(fitted.scales, fitted.minima)
    return half_bytes(fitted.d), half_bytes(fitted.dmin), scales


def _from_head(packed: Tensor, quants: Tensor) -> Tensor:
    scales, minima = unpack_k4_scales(packed[4:16])
    d, dmin = from_half_bytes(packed[:2]), from_half_bytes(packed[2:4])
    return _affine(quants, scales, minima, d, dmin)


def _affine(quants: Tensor, scales: Tensor, minima: Tensor, d: Tensor, dmin: Tensor) -> Tensor:
    """d * scale * quant - dmin * minimum for groups of 256 / len(scales): (256, n)."""
    groups = quants.reshape(len(scales), -1, quants.shape[-1]).float()
    step, offset = d * scales, dmin * minima
    return groups.mul_(step[:, None]).sub_(offset[:, None]).view(256, -1)
