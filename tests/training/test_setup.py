"""What was swapped, and undone again, is told in the run's own events."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

import tunebook.engine.norm as norm
from tunebook.engine.modules import Report
from tunebook.events import StepEvent, WarningEvent
from tunebook.training import train
from tunebook.training.setup import set_up
from tunebook.training.worker import swap_warnings


def test_a_kind_that_did_not_pass_is_an_event_of_the_run(quick, tmp_path, monkeypatch):
    def wrong(x: torch.Tensor, weight: torch.Tensor, eps: float, *, offset: float = 0.0) -> Any:
        return x * weight

    monkeypatch.setattr(norm, "rms_norm", wrong)
    monkeypatch.setattr("tunebook.training.worker.set_up", partial(set_up, device="any"))
    run = train(quick(training__max_steps=1), wait=True, root=tmp_path)
    told = [e.message for e in run.log.of(WarningEvent) if e.code == "swap_undone"]
    assert len(told) == 1, told
    assert "rms_norm" in told[0]
    assert "NOT the same function" in told[0]
    assert run.state == "completed"


def test_a_run_on_eight_bit_weights_is_fused_and_learns(quick, tmp_path, monkeypatch):
    seen: list[Report] = []

    def noted(*arguments: Any, **options: Any) -> Any:
        made = set_up(*arguments, **options, device="any")
        seen.append(made[1])
        return made

    monkeypatch.setattr("tunebook.training.worker.set_up", noted)
    run = train(quick(quantization__bits=8, training__max_steps=3), wait=True, root=tmp_path)
    assert run.state == "completed"
    assert not [e for e in run.log.of(WarningEvent) if e.code == "swap_undone"]
    assert {kind for _, kind in seen[0].swapped} >= {"decoder_layer", "output_head"}
    losses = [event.loss for event in run.log.of(StepEvent)]
    assert losses[-1] < losses[0]


def test_what_was_only_left_is_no_warning():
    swaps = Report(left=[("layers.0", "decoder_layer", "its activation is ReLU")])
    assert swap_warnings(swaps) == []
