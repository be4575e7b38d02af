"""Kernels are compiled side by side by one thread's launches, and run by those of all others."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import Any

import pytest
import torch

import tunebook_kernels.ahead as ahead
from tunebook_kernels import compile_ahead, rms_norm_forward


class Function:
    """Stands for triton's: `function[grid](...)` calls `run`."""

    def __init__(self, fails: bool = False) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.fails = fails

    def __getitem__(self, grid: Any) -> Any:
        return lambda *args, **options: self.run(*args, grid=grid, warmup=False, **options)

    def run(self, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        self.calls.append((args, grid, warmup, options, threading.get_ident()))
        if self.fails:
            raise RuntimeError("it does not compile")
        return self


@pytest.fixture
def functions(monkeypatch: pytest.MonkeyPatch) -> list[Function]:
    made = [Function(), Function(), Function(fails=True)]
    monkeypatch.setattr(ahead, "FUNCTIONS", made)
    monkeypatch.setattr(ahead, "INTERPRETED", False)
    monkeypatch.setattr(ahead, "triton", object())
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    return made


def test_launches_of_this_thread_are_compiled_elsewhere_and_those_of_others_run(functions):
    one, two, wrong = functions
    with compile_ahead(torch.device("cuda")):
        assert one[3,](1, rows=2) is None
        assert two[4,](5) is None
        wrong[1,]()
        other = threading.Thread(target=lambda: one[7,](9))
        other.start()
        other.join()
    mine = threading.get_ident()
    compiled = [call for call in one.calls if call[2]]
    assert [call[:4] for call in compiled] == [((1,), (3,), True, {"rows": 2})]
    assert [call[:3] for call in one.calls if not call[2]] == [((9,), (7,), False)]
    assert [call[2] for call in two.calls] == [True]
    assert mine not in {call[4] for call in compiled + two.calls}
    one[3,](2)
    assert one.calls[-1] == ((2,), (3,), False, {}, mine)


def test_all_is_as_before_after_an_error(functions):
    def launch_and_fail() -> None:
        with compile_ahead(torch.device("cuda")):
            functions[0][1,]()
            raise KeyError

    with pytest.raises(KeyError):
        launch_and_fail()
    assert all("run" not in vars(function) for function in functions)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_kernel_that_was_compiled_ahead_computes_the_same():
    x = torch.randn(8, 1504, device="cuda")  # a width of no other test
    weight = torch.ones(1504, device="cuda")
    out = torch.full_like(x, torch.nan)
    with compile_ahead(x.device):
        rms_norm_forward(x, weight, 1e-6, out=out)
    assert out.isnan().all()
    rms_norm_forward(x, weight, 1e-6, out=out)
    expected = x.double() * (x.double().square().mean(-1, keepdim=True) + 1e-6).rsqrt()
    assert torch.allclose(out.double(), expected, atol=1e-5)
