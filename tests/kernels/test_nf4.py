"""Dequantised weights are those of bitsandbytes, to the last bit."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from oracle import DEVICE, DTYPES, random

from tunebook_kernels import Packed4bit, Packed8bit, dequantize_4bit, dequantize_8bit

bnb = pytest.importorskip("bitsandbytes")

# more than 256 blocks; rows that end inside a block; columns that are not eights; an odd number
SHAPES = [(160, 128), (24, 104), (7, 96), (5, 36), (3, 33)]


def quantized(shape: tuple[int, int], dtype: torch.dtype, seed: int = 1, **how):
    """A `Params4bit` on the device, as `Linear4bit` holds it."""
    return bnb.nn.Params4bit(random(shape, dtype, seed), **how).to(DEVICE)


def theirs(weight, dtype: torch.dtype | None = None) -> torch.Tensor:
    """The weight dequantised by bitsandbytes, which writes the dtype that its state names."""
    state = copy.copy(weight.quant_state)
    state.dtype = dtype or state.dtype
    # Its code for CPUs starts a block at each row (0.50.2, rows of 16·k columns), and goes another
    # way for odd columns: give it one even row.
    count = weight.quant_state.shape.numel()
    state.shape = torch.Size([1, count + count % 2])
    flat = bnb.functional.dequantize_4bit(weight.data, state).view(-1)
    return flat[:count].view(weight.quant_state.shape)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("blocksize", [64, 128])
@pytest.mark.parametrize("double", [True, False], ids=["double", "plain"])
@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_four_bits_equal_those_of_bitsandbytes(dtype, quant_type, double, blocksize, shape):
    weight = quantized(
        shape, dtype, quant_type=quant_type, compress_statistics=double, blocksize=blocksize
    )
    ours = Packed4bit.of(weight).dequantize()
    assert ours.dtype == dtype
    assert torch.equal(ours, theirs(weight))


def test_the_values_are_those_of_the_formula():
    weight = quantized((160, 128), torch.float32, quant_type="nf4", compress_statistics=True)
    state, inner = weight.quant_state, weight.quant_state.state2
    packed = weight.data.view(-1).cpu().long()
    nibbles = torch.stack((packed // 16, packed % 16), dim=1).view(-1)
    blocks = torch.arange(160 * 128) // 64
    outer = inner.code.cpu().double()[state.absmax.cpu().long()[blocks]]
    absmax = outer * inner.absmax.cpu().double()[blocks // 256] + state.offset.cpu().double()
    expected = (state.code.cpu().double()[nibbles] * absmax).view(160, 128)
    ours = Packed4bit.of(weight).dequantize().cpu().double()
    torch.testing.assert_close(ours, expected, rtol=3e-7, atol=1e-9)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_another_dtype_is_rounded_once(dtype):
    packed = Packed4bit.of(weight := quantized((24, 104), torch.float16, quant_type="nf4"))
    assert torch.equal(packed.dequantize(dtype=dtype), theirs(weight, dtype))
    assert torch.equal(
        packed.dequantize(dtype=dtype), packed.dequantize(dtype=torch.float32).to(dtype)
    )


@pytest.mark.parametrize("padding", [5, 8, 16])
@pytest.mark.parametrize("shape", [(24, 104), (5, 36)], ids=str)
def test_several_weights_become_rows_of_one_wider_buffer(shape, padding):
    rows, cols = shape
    weights = [quantized(shape, torch.float16, seed, quant_type="nf4") for seed in (1, 2)]
    buffer = torch.full((2 * rows, cols + padding), 7.0, dtype=torch.float16, device=DEVICE)
    for index, weight in enumerate(weights):
        out = buffer[index * rows : (index + 1) * rows, :cols]
        assert Packed4bit.of(weight).dequantize(out=out) is out
    assert torch.equal(buffer[:, :cols], torch.cat([theirs(weight) for weight in weights]))
    assert (buffer[:, cols:] == 7.0).all()


@pytest.mark.parametrize("storage", [torch.uint8, torch.float16, torch.float32], ids=str)
def test_the_weight_of_a_layer_is_read_whatever_stores_it(storage):
    layer = bnb.nn.Linear4bit(64, 48, bias=False, quant_type="nf4", quant_storage=storage)
    layer = layer.to(DEVICE)
    x = random((5, 64), torch.float32, 3)
    weight = Packed4bit.of(layer.weight).dequantize(dtype=torch.float32)
    assert weight.shape == (48, 64)
    torch.testing.assert_close(x @ weight.t(), layer(x), rtol=1e-4, atol=1e-4)


def test_the_raw_function_takes_plain_tensors():
    weight = quantized((8, 64), torch.float32, quant_type="fp4", compress_statistics=False)
    state = weight.quant_state
    ours = dequantize_4bit(weight.data, state.absmax, state.code, shape=(8, 64), blocksize=64)
    assert ours.dtype == torch.float32
    assert torch.equal(ours, theirs(weight))


@pytest.mark.parametrize(
    ("weight", "why"),
    [
        (torch.ones(2, 2), "not quantised yet"),
        (SimpleNamespace(quant_state=SimpleNamespace(packing_format_for_cpu=True)), "repacked"),
        (SimpleNamespace(quant_state=SimpleNamespace(shape=(2, 2, 2))), "not a matrix"),
    ],
    ids=["plain", "repacked", "cube"],
)
def test_a_weight_that_cannot_be_read_says_why(weight, why):
    with pytest.raises(ValueError, match=why):
        Packed4bit.of(weight)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(33, 100), (3, 5000), (1, 7)], ids=str)
def test_eight_bits_equal_those_of_bitsandbytes(shape, dtype):
    weight = bnb.nn.Int8Params(random(shape, torch.float16, 1).cpu(), requires_grad=False).to(
        DEVICE
    )
    assert weight.data.dtype == torch.int8
    expected = bnb.functional.int8_vectorwise_dequant(weight.data, weight.SCB).to(dtype)
    ours = dequantize_8bit(weight.data, weight.SCB, dtype=dtype)
    assert ours.dtype == dtype
    assert torch.equal(ours, expected)


def test_eight_bits_become_columns_of_a_wider_buffer():
    wide = torch.randint(-127, 128, (6, 48), device=DEVICE).to(torch.int8)
    scale = random((6,), torch.float32, 2).abs()
    buffer = torch.full((6, 48), 7.0, device=DEVICE)
    dequantize_8bit(wide[:, :40], scale, out=buffer[:, :40])
    expected = wide[:, :40].double() * scale.double()[:, None] / 127
    torch.testing.assert_close(buffer[:, :40].double(), expected)
    assert (buffer[:, 40:] == 7.0).all()


def test_the_weight_of_an_eight_bit_layer_is_read_before_and_after_its_first_use():
    layer = bnb.nn.Linear8bitLt(64, 48, bias=False, has_fp16_weights=False)
    with pytest.raises(ValueError, match="not quantised"):
        Packed8bit.of(layer)
    exact, layer = layer.weight.detach().to(DEVICE), layer.to(DEVICE)
    first = Packed8bit.of(layer).dequantize()
    assert (first - exact).abs().max() < exact.abs().max() / 127
    layer(random((5, 64), torch.float16, 3))
    assert layer.weight.SCB is None
    assert torch.equal(Packed8bit.of(layer).dequantize(dtype=torch.float32), first)
