"""Measured bytes are those that tensors really take, from any thread."""

from __future__ import annotations

import gc
import threading

import pytest
import torch

from tunebook.training.memory import measure_step_memory, resident_bytes

MIB = 2**20


def two_temporaries() -> None:
    first = torch.zeros(MIB, dtype=torch.uint8)
    second = torch.zeros(2 * MIB, dtype=torch.uint8)
    del first
    torch.zeros(MIB // 2, dtype=torch.uint8)
    del second


def test_peak_is_the_highest_sum_of_live_tensors():
    assert measure_step_memory(two_temporaries) == 3 * MIB


def test_peak_counts_backward():
    weight = torch.ones(256, 1024, requires_grad=True)

    def step() -> None:
        weight.exp().sum().backward()  # keeps exp(w), then makes its gradient
        weight.grad = None

    assert 2 * MIB <= measure_step_memory(step) <= 2 * MIB + 4096


def test_garbage_of_an_earlier_measurement_is_not_the_steps():
    class Node:
        def __init__(self) -> None:
            self.tensor, self.itself = torch.zeros(MIB, dtype=torch.uint8), self

    def step() -> None:
        gc.collect()
        two_temporaries()

    gc.disable()
    try:
        assert measure_step_memory(Node) == MIB
        assert measure_step_memory(step) == 3 * MIB
    finally:
        gc.enable()


def test_a_worker_thread_measures_the_same(capfd):
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(measure_step_memory(two_temporaries)))
    thread.start()
    thread.join()
    assert found == [3 * MIB]
    assert capfd.readouterr().err == ""


def test_an_error_in_the_step_passes_through_and_recording_ends():
    def broken() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        measure_step_memory(broken)
    assert measure_step_memory(two_temporaries) == 3 * MIB


def test_resident_counts_weights_gradients_and_optimizer_once():
    layer = torch.nn.Linear(64, 64, bias=False)
    twin = torch.nn.Linear(64, 64, bias=False)
    twin.weight = layer.weight
    model = torch.nn.Sequential(layer, twin)
    optimizer = torch.optim.AdamW(model.parameters())
    weights = 64 * 64 * 4
    assert resident_bytes(model) == weights
    model(torch.ones(1, 64)).sum().backward()
    optimizer.step()
    assert resident_bytes(model, optimizer) == pytest.approx(4 * weights, abs=64)


def test_resident_counts_the_scales_of_four_bit_weights():
    bitsandbytes = pytest.importorskip("bitsandbytes")
    layer = bitsandbytes.nn.Linear4bit(
        256, 256, bias=False, quant_type="nf4", compress_statistics=True
    ).to("cpu")
    weights = 256 * 256
    scales = weights // 64 + 4 * (weights // 64 // 256)
    books = 16 * 4 + 256 * 4 + 4
    assert resident_bytes(layer) == pytest.approx(weights // 2 + scales + books, abs=64)
