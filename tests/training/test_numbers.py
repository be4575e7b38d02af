"""Numbers that are read later are those of the moment at which they were given."""

from __future__ import annotations

import pytest
import torch

from tunebook.training.numbers import Numbers

no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, no_gpu])]


@pytest.mark.parametrize("device", DEVICES)
def test_numbers_are_those_of_their_moment_by_name_and_in_order(device):
    loss = torch.tensor([0.1], device=device)
    count = torch.tensor(2**53 - 1, device=device)
    numbers = Numbers({"loss": loss, "rate": 2e-4, "tokens": count, "norm": torch.tensor(3.5)})
    loss.zero_()
    count.zero_()
    read = numbers.read()
    expected = {"loss": float(torch.tensor(0.1)), "rate": 2e-4, "tokens": 2**53 - 1, "norm": 3.5}
    assert list(read.items()) == list(expected.items())
    assert numbers.read() == read


def test_numbers_without_a_tensor_are_read_as_they_are():
    assert Numbers({"a": 1, "b": 2.5}).read() == {"a": 1.0, "b": 2.5}


@pytest.mark.gpu
@no_gpu
def test_reading_waits_for_its_own_moment_alone():
    x = torch.randn(8192, 8192, device="cuda")
    numbers = Numbers({"one": torch.ones((), device="cuda")})
    for _ in range(40):  # about a second on any card
        x = x @ x * 1e-4
    later = torch.cuda.Event()
    later.record()
    assert numbers.read() == {"one": 1.0}
    assert not later.query()
