"""The try panel: ask the tuned model and the base model the same thing, side by side.

Knows a run's `stream_tokens` and its test cases, and nothing of tensors.
"""

from __future__ import annotations

import secrets
import threading
import time
from typing import Any

import traitlets as t

from tunebook.errors import RecipeInvalid, RunBusy, RunMissing
from tunebook.recipe import Recipe
from tunebook.sampling import Sampling
from tunebook.widgets import _static
from tunebook.widgets._asking import CaseTraits
from tunebook.widgets._code import chat_lines
from tunebook.widgets._fields import parse_typed
from tunebook.widgets._panel import Panel
from tunebook.widgets._state import Studio

SHORTEST = 0.1  # seconds between two updates of the page while an answer is written
_PER_SECOND = (
    4000  # tokens so far cost this much of a second more: a long answer is sent less often
)
_EMPTY: dict[str, Any] = {"text": "", "state": "waiting", "tokens": []}
SIDES = ("tuned", "base")


class TryPanel(CaseTraits, Panel):
    """Talk to a run's model, with its adapter on and off.

    Args:
        run: the run to talk to; None takes the studio's, once there is one.

    Example:
        >>> panel = tunebook.TryPanel(run=run)  # doctest: +SKIP
        >>> panel.sampling = Sampling(temperature=0.7, seed=1)  # doctest: +SKIP
        >>> panel.ask("What is the capital of Italy?")["tuned"]["text"]  # doctest: +SKIP
    """

    module = "chat"
    purpose = "try"
    parts = ("sampling",)

    ready = t.Bool(False).tag(sync=True)
    answering = t.Bool(False).tag(sync=True)
    compare = t.Bool(True, help="Ask the base model too.").tag(sync=True)
    probabilities = t.Bool(False, help="Show how likely each token was.").tag(sync=True)
    system = t.Unicode(help="The system message, or nothing.").tag(sync=True)
    draft = t.Unicode(help="What has been typed and not sent.").tag(sync=True)
    turns: t.List[Any] = t.List(
        help="Finished turns: user, seed, tuned and base, each answer with text, state and tokens: "
        "text, probability, chance, [[alternative, probability], ...]."
    ).tag(sync=True)
    writing = t.Dict(help="The turn that is being answered, or empty.").tag(sync=True)

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
        self._sampling = Sampling()
        super().__init__(recipe, studio=studio, **traits)
        self.studio.observe(self._run_changed, "run")
        if run is not None:
            self.studio.run = run
        self._run_changed()

    @property
    def sampling(self) -> Sampling:
        """How answers are drawn; assign another to change it."""
        return self._sampling

    @sampling.setter
    def sampling(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._recipe_changed()

    def ask(self, question: str) -> dict[str, Any]:
        """Ask, wait for the answer, and return the turn; the page shows it as it is written.

        Raises:
            RunMissing: nothing has been trained yet.
            RunBusy: training, or another answer, goes on.
        """
        self.require_free()
        self._answer(question)
        turn: dict[str, Any] = self.turns[-1]
        return turn

    def do_send(self, text: str) -> None:
        """The Send button."""
        if text.strip():
            self._answer_soon(text.strip(), self.turns)

    def do_again(self) -> None:
        """Answer the last question anew."""
        if self.turns:
            self._answer_soon(self.turns[-1]["user"], self.turns[:-1])

    def do_edit(self, text: str) -> None:
        """Ask something else in place of the last question."""
        if self.turns and text.strip():
            self._answer_soon(text.strip(), self.turns[:-1])

    def do_stop(self) -> None:
        """The Stop button: keep what has been said so far."""
        self._stop.set()

    def do_clear(self) -> None:
        """Begin a new conversation."""
        self._stop.set()
        self.show(turns=[], writing={})

    def do_set(self, path: str, value: Any) -> None:
        """A sampling field was edited: taken if it is valid, else a message beside the field."""
        name = path.removeprefix("sampling.")
        try:
            typed = parse_typed(path, value)
            self._sampling = Sampling.of(**{**self._sampling.arguments(), name: typed})
        except RecipeInvalid as error:
            self.show(invalid={**self.invalid, path: {"typed": value, "message": error.why}})
            return
        self.show(invalid={key: item for key, item in self.invalid.items() if key != path})
        self._recipe_changed()

    def values_now(self) -> dict[str, Any]:
        """The recipe's values and the sampling's."""
        own = {f"sampling.{name}": value for name, value in self._sampling.arguments().items()}
        return {**super().values_now(), **own}

    def code_now(self) -> dict[str, str]:
        """The last question, as Python and as a shell ask it."""
        asked = self.turns[-1]["user"] if self.turns else "What have you learned?"
        return chat_lines(self.recipe, self.studio.run, asked, self._sampling, self.system)

    def text_lines(self) -> list[str]:
        """The conversation, and how the test cases went."""
        lines = [self.summary]
        for turn in self.turns:
            lines += [f"> {turn['user']}"]
            lines += [f"{side + ':':6} {turn[side]['text']}" for side in SIDES if side in turn]
        return [*lines, *self.case_lines()]

    def html_body(self) -> str:
        """The conversation as a table, and the test cases as another."""
        rows = [
            (turn["user"], *(turn.get(side, _EMPTY)["text"] for side in reversed(SIDES)))
            for turn in self.turns
        ]
        talk = _static.table(rows, ["Question", "Base", "Tuned"], headed=True)
        return _static.paragraph(self.summary, muted=True) + talk + self.case_html()

    def require_free(self) -> Any:
        """The run, ready to answer.

        Raises:
            RunMissing, RunBusy: see `ask`.
        """
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
                "wait for the end (`run.wait()`), or stop the run and ask then.",
            )
        if self.answering:
            raise RunBusy(
                "The model is still answering.", "it says one thing at a time.", "wait or stop it."
            )
        return run

    def _answer_soon(self, question: str, earlier: list[dict[str, Any]]) -> None:
        self.require_free()
        self._stop.clear()
        self.show(answering=True, turns=earlier, draft="")
        self.work(lambda: self._answer(question), during="answer", busy="")

    def _answer(self, question: str) -> None:
        self._stop.clear()
        seed = self._sampling.seed
        drawn = secrets.randbits(31) if seed is None else seed
        turn: dict[str, Any] = {"user": question, "seed": drawn}
        for side in SIDES if self.compare else SIDES[:1]:
            turn[side] = dict(_EMPTY)
        self.show(writing=dict(turn), answering=True)
        earlier = list(self.turns)
        try:
            for side in SIDES:
                if side in turn:
                    self._stream(side, earlier, turn)
        finally:
            for side in SIDES:
                if side in turn and turn[side]["state"] != "done":
                    turn[side] = {**turn[side], "state": "stopped"}
            cleared = self.turns != earlier
            turns = self.turns if cleared else [*earlier, turn]
            self.show(turns=turns, writing={}, answering=False)
            self.refresh_code()

    def _stream(self, side: str, earlier: list[dict[str, Any]], turn: dict[str, Any]) -> None:
        text, tokens, shown = "", [], 0.0
        if self._stop.is_set():
            return
        arguments = {**self._sampling.arguments(), "seed": turn["seed"], "stop": self._stop}
        messages = self.messages(side, earlier, turn["user"])
        for token in self.studio.run.stream_tokens(messages, adapter=side == "tuned", **arguments):
            text += token.text
            tokens.append(_token(token))
            if time.monotonic() - shown > SHORTEST + len(tokens) / _PER_SECOND:
                shown = time.monotonic()
                turn[side] = {"text": text, "state": "writing", "tokens": list(tokens)}
                self.show(writing=dict(turn))
        state = "stopped" if self._stop.is_set() else "done"
        turn[side] = {"text": text, "state": state, "tokens": tokens}
        self.show(writing=dict(turn))

    def messages(
        self, side: str, earlier: list[dict[str, Any]], question: str
    ) -> list[dict[str, str]]:
        """The conversation as that side of the panel has seen it, and the question."""
        told = [{"role": "system", "content": self.system}] if self.system.strip() else []
        for turn in earlier:
            if side in turn and turn[side]["text"]:
                told.append({"role": "user", "content": turn["user"]})
                told.append({"role": "assistant", "content": turn[side]["text"]})
        return [*told, {"role": "user", "content": question}]

    @t.observe("system")
    def _system_changed(self, _change: object) -> None:
        self.refresh_code()

    def _run_changed(self, _change: object = None) -> None:
        run = self.studio.run
        summary = "Nothing trained yet" if run is None else f"Talk to {run.name}"
        self.show(ready=run is not None, summary=summary)
        self.refresh_code()
        self.show_cases()


def _token(token: Any) -> list[Any]:
    """A token as the page takes it: what is read, how likely, how likely drawn, alternatives."""
    others = [[text, round(probability, 4)] for text, probability in token.alternatives]
    return [token.piece, round(token.probability, 4), round(token.chance, 4), others]
