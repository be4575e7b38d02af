"""How quants and scales of several bits share bytes in ggml's blocks, and back.

Tensors lie with the places of a block first and the blocks last: (places, n). Knows no type.
"""

from __future__ import annotations

import torch
from torch import Tensor


def half_bytes(value: Tensor) -> Tensor:
    """(n) float32 as the two bytes of float16: (2, n)."""
    return value.to(torch.float16).contiguous().view(torch.uint8).view(-1, 2).t()


def from_half_bytes(packed: Tensor) -> Tensor:
    """(2, n) bytes as float32 (n)."""
    return packed.t().contiguous().view(torch.float16).view(-1).float()


def as_bytes(quants: Tensor) -> Tensor:
    """Numbers from -128 to 255 in float32 as uint8: their fraction dropped, and -1 as 255."""
    return quants.to(torch.int32).to(torch.uint8)  # by way of int32 it is vectorised


def pack_planes(values: Tensor, bits: int) -> Tensor:
    """Share a byte among neighbours of dim -3: (..., 8 / bits, places, n) to (..., places, n)."""
    packed = values[..., 0, :, :].clone()
    for plane in range(1, 8 // bits):
        packed |= values[..., plane, :, :] << bits * plane
    return packed


def unpack_planes(packed: Tensor, bits: int) -> Tensor:
    """The reverse of `pack_planes`: (..., places, n) to (..., 8 / bits, places, n)."""
    planes = [packed >> bits * plane for plane in range(8 // bits)]
    return torch.stack(planes, dim=-3) & ((1 << bits) - 1)


def pack_k4_scales(scales: Tensor, minima: Tensor) -> Tensor:
    """Eight scales and eight minima of 6 bits, (8, n) each, as the 12 bytes of Q4_K and Q5_K."""
    return torch.cat(
        [
            scales[:4] | scales[4:] >> 4 << 6,
            minima[:4] | minima[4:] >> 4 << 6,
            scales[4:] & 15 | minima[4:] << 4,
        ]
    )


def unpack_k4_scales(packed: Tensor) -> tuple[Tensor, Tensor]:
    """The reverse of `pack_k4_scales`."""
    first, second, third = packed[:4], packed[4:8], packed[8:]
    scales = torch.cat([first & 63, third & 15 | first >> 6 << 4])
    return scales, torch.cat([second & 63, third >> 4 | second >> 6 << 4])


def pack_q3_scales(scales: Tensor) -> Tensor:
    """Sixteen scales of 6 bits, (16, n), as the 12 bytes of Q3_K."""
    low, high = scales & 15, scales >> 4
    return torch.cat([low[:8] | low[8:] << 4, pack_planes(high.view(4, 4, -1), 2)])


def unpack_q3_scales(packed: Tensor) -> Tensor:
    """The reverse of `pack_q3_scales`."""
    low = torch.cat([packed[:8] & 15, packed[:8] >> 4])
    return low | unpack_planes(packed[8:], 2).reshape(16, -1) << 4


def pack_bits(bits: Tensor) -> Tensor:
    """The 32 fifth bits of a block, (32, n), as the four bytes of a little-endian number."""
    return pack_planes(bits.view(4, 8, 1, -1), 1).view(4, -1)


def unpack_bits(packed: Tensor) -> Tensor:
    """The reverse of `pack_bits`."""
    return unpack_planes(packed.view(4, 1, -1), 1).reshape(32, -1)
