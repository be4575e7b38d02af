"""Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1: blocks of 32 weights with one scale, and a minimum in the `_1`s.

`pack` functions take weights as (32, n), one block a column, and give its bytes as (bytes, n);
`unpack` functions the reverse. Where it is known how much each weight counts, (32, n), ggml
searches for the scale; else it takes that of the largest weight.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tunebook.export.gguf.packing import (
    as_bytes,
    from_half_bytes,
    half_bytes,
    pack_bits,
    pack_planes,
    unpack_bits,
    unpack_planes,
)
from tunebook.export.gguf.searches import inverse_or_0, make_qkx, make_qx, signed_extreme

_STEPS = (-0.9, 0.05, 36)  # of make_qkx3


def pack_q8_0(x: Tensor, _: Tensor | None) -> Tensor:
    """34 bytes: d, then 32 signed bytes."""
    d = x.abs().amax(0) / 127
    scaled = x * inverse_or_0(d)
    whole = scaled.to(torch.int32)
    half = scaled.sub_(whole.float()).mul_(2).to(torch.int32)  # C's roundf: away from zero
    return torch.cat([half_bytes(d), whole.add_(half).to(torch.uint8)])


def unpack_q8_0(packed: Tensor) -> Tensor:
    """The weights (32, n) of Q8_0 bytes (34, n)."""
    return from_half_bytes(packed[:2]) * packed[2:].view(torch.int8).float()


def pack_signed(x: Tensor, weights: Tensor | None, *, bits: int) -> Tensor:
    """Q4_0 (18 bytes) and Q5_0 (22 bytes): x is d * (quant - half)."""
    half = 1 << bits - 1
    if weights is None:
        d = signed_extreme(x[None])[0] / -half
        quants = (x * inverse_or_0(d)).add_(half + 0.5).clamp_(max=2 * half - 1)
    else:
        scale, searched = make_qx(x[None], weights[None], half, quants=True)
        assert searched is not None
        d, quants = scale[0], searched[0]
    return torch.cat([half_bytes(d), _packed(quants, bits)])


def unpack_signed(packed: Tensor, *, bits: int) -> Tensor:
    """The weights (32, n) of Q4_0 or Q5_0 bytes."""
    quants = _unpacked(packed[2:], bits).sub_(1 << bits - 1)
    return quants.mul_(from_half_bytes(packed[:2]))


def pack_affine(x: Tensor, weights: Tensor | None, *, bits: int) -> Tensor:
    """Q4_1 (20 bytes) and Q5_1 (24 bytes): x is d * quant + m."""
    nmax = (1 << bits) - 1
    if weights is None:
        m = x.amin(0)
        d = (x.amax(0) - m) / nmax
        quants = (x - m).mul_(inverse_or_0(d)).add_(0.5).clamp_(max=nmax)
    else:
        scale, minimum, searched = make_qkx(x[None], weights[None], nmax, _STEPS, quants=True)
        assert searched is not None
        d, m, quants = scale[0], -minimum[0], searched[0]
    return torch.cat([half_bytes(d), half_bytes(m), _packed(quants, bits)])


def unpack_affine(packed: Tensor, *, bits: int) -> Tensor:
    """The weights (32, n) of Q4_1 or Q5_1 bytes."""
    d, m = from_half_bytes(packed[:2]), from_half_bytes(packed[2:4])
    return _unpacked(packed[4:], bits).mul_(d).add_(m)


def _packed(quants: Tensor, bits: int) -> Tensor:
    """Fifth bits, if any, then two quants a byte: places j and j + 16."""
    whole = as_bytes(quants)
    low = pack_planes((whole & 15).view(2, 16, -1), 4)
    return low if bits == 4 else torch.cat([pack_bits(whole >> 4), low])


def _unpacked(packed: Tensor, bits: int) -> Tensor:
    low = unpack_planes(packed[-16:], 4).view(32, -1)
    if bits == 4:
        return low.float()
    return (low | unpack_bits(packed[:4]) << 4).float()
