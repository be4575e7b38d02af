"""The try panel: ask the tuned model and the base model the same thing, side by side.

Knows a run's `stream` and nothing of tokens or tensors.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import traitlets as t

from tunebook.errors import RunBusy, RunMissing
from tunebook.recipe import Recipe
from tunebook.widgets._panel import Panel
from tunebook.widgets._state import Studio

SHORTEST = 0.1  # seconds between two updates of the page
_EMPTY = {"text": "", "state": "waiting"}


class TryPanel(Panel):
    """Talk to a run's model, with its adapter on and off.

    Args:
        run: the run to talk to; None takes the studio's, once there is one.
    """

    module = "chat"
    purpose = "try"

    ready = t.Bool(False).tag(sync=True)
    answering = t.Bool(False).tag(sync=True)
    compare = t.Bool(True, help="Ask the base model too.").tag(sync=True)
    max_new_tokens = t.Int(128).tag(sync=True)
    temperature = t.Float(0.0).tag(sync=True)
    turns: t.List[Any] = t.List(help="user, tuned and base, each answer with text and state.").tag(
        sync=True
    )

    def __init__(
        self,
        recipe: Recipe | None = None,
        *,
        run: Any = None,
        studio: Studio | None = None,
        **traits: Any,
    ):
        traits.setdefault("heading", "Try")
        traits.setdefault(
            "lead", "The same question to the base and the tuned model, side by side."
        )
        self._stop = threading.Event()
        super().__init__(recipe, studio=studio, **traits)
        self.studio.observe(self._run_changed, "run")
        if run is not None:
            self.studio.run = run
        self._run_changed()

    def ask(self, question: str) -> dict[str, Any]:
        """Ask, wait for the answer, and return the turn; the page shows it as it is written.

        Raises:
            RunMissing: nothing has been trained yet.
            RunBusy: training, or another answer, goes on.
        """
        self._require_free()
        self._answer(question)
        turn: dict[str, Any] = self.turns[-1]
        return turn

    def do_send(self, text: str, **sampling: Any) -> None:
        """The Send button."""
        if not text.strip():
            return
        self._take(sampling)
        self._require_free()
        self.show(answering=True)
        self.work(lambda: self._answer(text.strip()), during="answer", busy="")

    def do_stop(self) -> None:
        """The Stop button: keep what has been said so far."""
        self._stop.set()

    def do_clear(self) -> None:
        """Begin a new conversation."""
        self._stop.set()
        self.show(turns=[])

    def do_sampling(self, **sampling: Any) -> None:
        """A sampling field was changed."""
        self._take(sampling)

    def text_lines(self) -> list[str]:
        """The conversation."""
        lines = [self.summary]
        for turn in self.turns:
            lines += [f"> {turn['user']}", f"tuned: {turn['tuned']['text']}"]
            if turn.get("base"):
                lines.append(f"base:  {turn['base']['text']}")
        return lines

    def _answer(self, question: str) -> None:
        self._stop.clear()
        turn: dict[str, Any] = {"user": question, "tuned": dict(_EMPTY)}
        if self.compare:
            turn["base"] = dict(_EMPTY)
        earlier = list(self.turns)
        self.show(turns=[*earlier, turn], answering=True)
        try:
            for side in ("tuned", "base"):
                if side in turn:
                    self._stream(side, earlier, turn)
        finally:
            for side in ("tuned", "base"):
                if side in turn and turn[side]["state"] != "done":
                    turn[side] = {**turn[side], "state": "stopped"}
            self._show_turn(earlier, turn)
            self.show(answering=False)

    def _stream(self, side: str, earlier: list[dict[str, Any]], turn: dict[str, Any]) -> None:
        text, shown = "", 0.0
        if self._stop.is_set():
            return
        pieces = self.studio.run.stream(
            _history(earlier, side, turn["user"]),
            adapter=side == "tuned",
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            stop=self._stop,
        )
        for piece in pieces:
            text += piece
            if time.monotonic() - shown > SHORTEST:
                shown = time.monotonic()
                turn[side] = {"text": text, "state": "writing"}
                self._show_turn(earlier, turn)
        turn[side] = {"text": text, "state": "stopped" if self._stop.is_set() else "done"}
        self._show_turn(earlier, turn)

    def _show_turn(self, earlier: list[dict[str, Any]], turn: dict[str, Any]) -> None:
        if not earlier or self.turns[: len(earlier)] == earlier:
            self.show(turns=[*earlier, dict(turn)])

    def _take(self, sampling: dict[str, Any]) -> None:
        if "max_new_tokens" in sampling:
            self.show(max_new_tokens=min(4096, max(1, int(sampling["max_new_tokens"]))))
        if "temperature" in sampling:
            self.show(temperature=min(2.0, max(0.0, float(sampling["temperature"]))))
        if "compare" in sampling:
            self.show(compare=bool(sampling["compare"]))

    def _require_free(self) -> None:
        run = self.studio.run
        if run is None:
            raise RunMissing(
                "There is no model to talk to yet.",
                "nothing has been trained in this notebook.",
                "train one in the Train step first, or pass `run=tunebook.open_run(folder)`.",
            )
        if run.alive:
            raise RunBusy(
                "The model cannot answer now.",
                f"the run {run.name} is still training it.",
                "wait for the end, or stop the run and ask then.",
            )
        if self.answering:
            raise RunBusy(
                "The model is still answering.", "it says one thing at a time.", "wait or stop it."
            )

    def _run_changed(self, _change: object = None) -> None:
        run = self.studio.run
        summary = "Nothing trained yet" if run is None else f"Talk to {run.name}"
        self.show(ready=run is not None, summary=summary)
        self.refresh_code()


def _history(earlier: list[dict[str, Any]], side: str, question: str) -> list[dict[str, str]]:
    """The conversation as that side of the panel has seen it."""
    messages = []
    for turn in earlier:
        if side in turn and turn[side]["text"]:
            messages.append({"role": "user", "content": turn["user"]})
            messages.append({"role": "assistant", "content": turn[side]["text"]})
    return [*messages, {"role": "user", "content": question}]
