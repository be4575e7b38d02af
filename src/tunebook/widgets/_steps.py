"""How far the guide's steps are: done, next, going on, waiting for another, or in trouble.

Pure reading of what the panels and their studio say; changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

HINTS = {
    "model": "Choose a model that fits this machine.",
    "data": "Look at what the model will learn from.",
    "method": "See what training will cost; the defaults work.",
    "train": "Press Start. The defaults work, and you can stop at any time.",
    "try": "Ask the model something, and compare it with what it was before.",
    "takeaway": "Save what was learned.",
}
TROUBLE = {
    "model": "This model cannot be used as it is: the step says why.",
    "data": "The rows have a problem: the step says which and offers a way out.",
    "method": "This does not fit into memory: the step says what would.",
    "train": "Training failed: the step says why.",
}
ALL_DONE = "All six steps are done. Change something and train again: the test cases compare."


class Standing(NamedTuple):
    """One step: `done`, `open`, `busy`, `waiting` or `problem`, and why if it is not clear."""

    state: str
    note: str = ""


READY = Standing("done", "ready")
"""Set, by the user or by default: nothing has to be done here before training."""


def standings(studio: Any, panels: Mapping[str, Any]) -> dict[str, Standing]:
    """The standing of each step by what the panel is for."""
    after = _after_training(studio.run)
    return {
        "model": _model(studio),
        "data": _data(studio, panels["data"]),
        "method": _method(studio),
        "train": _train(studio.run),
        "try": after or Standing("done" if panels["try"].turns else "open"),
        "takeaway": after or Standing("done" if panels["takeaway"].files else "open"),
    }


def next_step(found: Mapping[str, Standing]) -> tuple[str, str]:
    """What the next step is for, and a sentence that says what to do; ("", sentence) at the end."""
    for purpose, standing in found.items():
        if standing.state == "problem":
            return purpose, TROUBLE[purpose]
        if standing.state == "busy":
            return (
                purpose,
                "Training goes on. Watch the loss fall; the next step waits for its end.",
            )
        if standing.state == "open":
            return purpose, HINTS[purpose]
    return "", ALL_DONE


def _model(studio: Any) -> Standing:
    if studio.plan_error:
        return Standing("problem")
    return Standing("open") if studio.plan is None else READY


def _data(studio: Any, panel: Any) -> Standing:
    if panel.error or any(found["severity"] == "error" for found in panel.findings):
        return Standing("problem")
    known = studio.data_size is not None or studio.run is not None
    return READY if known else Standing("open")


def _method(studio: Any) -> Standing:
    if studio.plan is None:
        return Standing("waiting", "needs a model")
    return READY if studio.plan.forecast.fits else Standing("problem")


def _train(run: Any) -> Standing:
    if run is None:
        return Standing("open")
    if run.alive:
        return Standing("busy")
    state = run.state
    return Standing("problem" if state == "failed" else "open" if state == "new" else "done")


def _after_training(run: Any) -> Standing | None:
    if run is None:
        return Standing("waiting", "after training")
    return Standing("waiting", "when training has ended") if run.alive else None
