from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import training_speed
from packaging.version import Version
from speed.clock import STEPS
from speed.models import checkpoint_folder, write_checkpoint
from speed.peers import PEERS
from speed.table import best_rival, markdown

GIB = 2**30


def record(peer: str, synchronised: float, ahead: float, gib: int, **more: Any) -> dict[str, Any]:
    """A result as `training_speed.py run` writes it."""
    return {
        "peer": peer,
        "size": "8b",
        "shape": "2x2048",
        "tokens": 4096,
        "opened_s": {"import": 9.0, "load": 3.0, "trainer": 1.0},
        "quartiles_s": [synchronised, synchronised],
        "synchronised_s": synchronised,
        "ahead_s": ahead,
        "first_step_s": 4.0,
        "profile": {},
        "allocated": gib * GIB,
        "reserved": 9 * GIB,
        "losses": [12.5, 12.25],
        **more,
    }


def test_each_ratio_is_to_the_rival_that_is_best_by_the_same_timing():
    slow, quick = record("trl", 0.4, 0.4, 8), record("unsloth", 0.5, 0.3, 4)
    ours = record("tunebook", 0.2, 0.1, 5, forecast=6 * GIB, cap=4 * GIB)
    assert best_rival([slow, quick, ours]) is quick
    text = markdown([slow, quick, ours])
    assert "2.00x trl (synchronised); 3.00x unsloth (run ahead)" in text
    assert "peak 1.25x that of unsloth; cap 4.00 GiB: exceeded" in text
    assert "forecast 6.00 GiB, +20.0% of the peak" in text
    assert "| 20,480 | 40,960 |" in text


def test_a_peer_without_a_result_is_named_and_compared_with_nothing():
    failed = {"peer": "liger", "size": "8b", "shape": "2x2048", "error": "not installed: liger"}
    text = markdown([failed, record("tunebook", 0.2, 0.1, 5, forecast=5 * GIB)])
    assert "| liger | none: not installed: liger |" in text
    assert "- tunebook: forecast 5.00 GiB, +0.0% of the peak" in text


@pytest.mark.skipif(
    Version(version("trl")) < Version("1.16"), reason="TRL's output head needs a GPU before 1.16"
)
def test_peers_start_from_the_same_weights_and_learn_the_same(tmp_path: Path):
    write_checkpoint(tmp_path, "tiny")
    losses = {}
    for name in ("trl", "tunebook"):
        peer = PEERS[name].open(checkpoint_folder(tmp_path, "tiny"), 32)
        result = training_speed.measure(peer, "tiny", 2, 32, tmp_path / name)
        assert len(result["losses"]) == STEPS
        losses[name] = result["losses"][:10]  # later on TRL's adapter in bfloat16 falls behind
    assert losses["tunebook"] == pytest.approx(losses["trl"], abs=2e-3)
