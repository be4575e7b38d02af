"""The error shown is the one that bitsandbytes makes."""

from __future__ import annotations

import numpy as np
import pytest

from tunebook.plan.rounding import BLOCK, FP4, NF4, dequantized, rounding_key, roundings


def weights(seed: int = 0) -> np.ndarray:
    return (0.02 * np.random.default_rng(seed).standard_normal((64, 256))).astype(np.float32)


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_four_bits_agree_with_bitsandbytes(kind):
    import bitsandbytes.functional as functional
    import torch

    exact = torch.tensor(weights())
    packed, state = functional.quantize_4bit(exact, blocksize=BLOCK, quant_type=kind)
    stored = functional.dequantize_4bit(packed, state)
    error = float((exact - stored).norm() / exact.norm())
    assert roundings(weights())[kind].error == pytest.approx(error, rel=1e-4)


def test_levels_are_used_by_all_weights_and_nf4_more_evenly_than_fp4():
    ways = roundings(weights())
    for way, levels in ((ways["nf4"], NF4), (ways["fp4"], FP4)):
        assert len(way.used) == len(levels)
        assert sum(way.used) == pytest.approx(1)
        assert sum(way.histogram) == pytest.approx(1, abs=1e-3)
    assert max(ways["nf4"].used) < max(ways["fp4"].used)
    assert ways["16"].error < ways["int8"].error < ways["nf4"].error < ways["fp4"].error


def test_bfloat16_agrees_with_torch():
    import torch

    exact = torch.tensor(weights(1))
    error = float((exact - exact.bfloat16().float()).norm() / exact.norm())
    assert roundings(weights(1))["16"].error == pytest.approx(error, rel=1e-4)


def test_zeros_have_no_error():
    ways = roundings(np.zeros((4, 64), np.float32))
    assert {way.error for way in ways.values()} == {0.0}


def test_each_value_goes_to_the_nearest_level():
    near, index = dequantized(np.array([-0.99, 0.001, 0.8], np.float32), NF4)
    assert near.tolist() == pytest.approx([-1.0, 0.0, 0.72295684])
    assert [NF4[at] for at in index] == pytest.approx(near.tolist())
    assert [rounding_key(bits, "fp4") for bits in (4, 8, 16)] == ["fp4", "int8", "16"]
