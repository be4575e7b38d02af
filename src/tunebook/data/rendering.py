"""Render a conversation with a tokenizer's template and prove where each turn lies in the text.

This module knows text and character offsets only; tokens and labels are made elsewhere.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook.data.conversations import Message
from tunebook.data.frames import (
    SENTINEL,
    Frame,
    common,
    header_end,
    last_tag,
    learn_frame,
    whole_tags,
)
from tunebook.data.sandbox import plain, program
from tunebook.data.shapes import Shape, plain_contents, probe_of, shape_of
from tunebook.data.templates import no_template
from tunebook.data.watching import looked_for
from tunebook.errors import TemplateInvalid

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NO_PARAMETERS = {"type": "object", "properties": {}}
_MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")


class Span(NamedTuple):
    """Where turn `turn`'s words lie in the rendered text, as character offsets [start, end).

    An assistant's span also holds what the model must say to end its turn. Headers belong to none.
    """

    start: int
    end: int
    role: str
    turn: int
    trained: bool = False


class Renderer:
    """One tokenizer's template, with what was learnt about it while rendering.

    Args:
        tokenizer: with a chat template.
        tools: what every conversation offers the model, as JSON schemas: a template may write
            another opening, another first question or other ends of turns for them.

    Raises:
        TemplateInvalid: the tokenizer has no template.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]] | None = None
    ) -> None:
        if not tokenizer.chat_template:
            raise no_template()
        self.template: str = tokenizer.get_chat_template(tools=tools)
        self.marked = bool(_MARKED.search(self.template))
        self._program = program(self.template)
        self._variables: dict[str, Any] = {
            **tokenizer.special_tokens_map,
            "tools": plain(tools) or None,
        }
        self._learnt: Frame | None = None
        self._shows_tools: bool | None = None
        # What templates put between a prompt and an answer, such as an empty thought.
        self._leads: list[str] = [""]
        # By roles, as soon as they are met again; None where nothing can be proved.
        self._shapes: dict[tuple[str, ...], Shape | None] = {}
        self._once: set[tuple[str, ...]] = set()

    @property
    def frame(self) -> Frame:
        """What the template writes around answers.

        Raises:
            TemplateInvalid: it refuses or rewrites the plainest of conversations.
        """
        if self._learnt is None:
            self._learnt = learn_frame(self.render)
        return self._learnt

    def set_variables(self, variables: dict[str, Any]) -> None:
        """Give the template more than the conversation, such as `enable_thinking`."""
        self._variables |= plain(variables)

    @property
    def end_of_turn(self) -> str:
        """What the template writes behind a conversation's last answer for the model to learn.

        Empty for templates such as GLM's, with which a model never learns to stop by itself.

        Raises:
            TemplateInvalid: as for `frame`.
        """
        return self.frame.final.strip()

    @property
    def shows_tools(self) -> bool:
        """Whether the template writes the names of tools before a conversation."""
        if self._shows_tools is None:
            tool = {"name": SENTINEL, "description": "", "parameters": _NO_PARAMETERS}
            given = {**self._variables, "tools": [{"type": "function", "function": tool}]}
            question = [{"role": "user", "content": "q"}]
            try:
                self._shows_tools = SENTINEL in self._program.render(question, given)[0]
            except TemplateInvalid:
                self._shows_tools = False
        return self._shows_tools

    def render(self, messages: list[Message], *, generation_prompt: bool = False) -> str:
        """The conversation as text.

        Raises:
            TemplateInvalid: the template refuses it, with its reason.
        """
        return self._render(messages, generation_prompt=generation_prompt)[0]

    def render_answers(self, messages: list[Message], turns: list[int]) -> tuple[str, list[Span]]:
        """The text, and the spans of the assistant turns whose indices are given.

        Raises:
            TemplateInvalid: the template refuses the conversation, or a place cannot be proved.
        """
        contents = plain_contents(messages, self._program.marks)
        shape = self._shape(tuple(m["role"] for m in messages)) if contents is not None else None
        places = shape.places(contents, turns) if shape is not None and contents else None
        if shape is not None and contents and places is not None and shape.copies(contents):
            return shape.text(contents), _spans(places, turns)
        text, marks = self._render(messages, track=self.marked)
        _require_calls(text, messages, turns)
        if self.marked:
            by_turn = _by_turn(messages, marks)
            if by_turn is not None:
                return text, _spans([by_turn[turn] for turn in turns], turns)
        if shape is not None and contents and places is not None and shape.text(contents) == text:
            return text, _spans(places, turns)
        return text, [self._answer(text, messages, turn) for turn in turns]

    def place(self, text: str, messages: list[Message], turn: int) -> Span | None:
        """Where one turn's content lies in `text`, by rendering again with another content there.

        None if the template leaves the turn out or does not keep its words together.
        """
        around = self._around(messages, turn)
        if around is None:
            return None
        before, after = around
        end = len(text) - len(after)
        if text.startswith(before) and text.endswith(after) and end >= len(before):
            return Span(len(before), end, messages[turn]["role"], turn)
        return None

    def _shape(self, roles: tuple[str, ...]) -> Shape | None:
        """What is constant for these roles, proved when they are met for the second time."""
        if roles not in self._once:
            self._once.add(roles)
        elif roles not in self._shapes:
            self._shapes[roles] = self._proved(roles)
        return self._shapes.get(roles)

    def _proved(self, roles: tuple[str, ...]) -> Shape | None:
        """A shape, by rendering a probe of it and the prompt of each of its answers."""
        probe, other = probe_of(roles), probe_of(roles, times=2)
        if probe is None or other is None:
            return None
        answers = [turn for turn, role in enumerate(roles) if role == "assistant"]
        try:
            text, marks = self._render(probe, track=self.marked)
            again = shape_of(self.render(other), other, {})
        except TemplateInvalid:
            return None
        spans = _by_turn(probe, marks) if self.marked else None
        if spans is None:
            spans = {}
            for turn in answers:
                with contextlib.suppress(TemplateInvalid):
                    span = self._answer(text, probe, turn)
                    spans[turn] = (span.start, span.end)
        shape = shape_of(text, probe, spans)
        if shape is None or again is None or again.gaps != shape.gaps:
            return shape
        searched = looked_for(self.template, probe, self._variables, answers)
        return replace(shape, searched=searched)

    def _render(
        self, messages: list[Message], *, generation_prompt: bool = False, track: bool = False
    ) -> tuple[str, list[tuple[int, int]]]:
        return self._program.render(
            messages, self._variables, generation_prompt=generation_prompt, track=track
        )

    def _tried(self, messages: list[Message], *, generation_prompt: bool = False) -> str | None:
        """The text; None if there is nothing to render or the template refuses."""
        if not messages:
            return None
        try:
            return self.render(messages, generation_prompt=generation_prompt)
        except TemplateInvalid:
            return None

    def _around(self, messages: list[Message], turn: int) -> tuple[str, str] | None:
        """The text before and after one turn's content, by putting a mark in its place."""
        probe = [*messages[:turn], {**messages[turn], "content": SENTINEL}, *messages[turn + 1 :]]
        text = self._tried(probe)
        parts = text.split(SENTINEL) if text is not None else []
        return (parts[0], parts[1]) if len(parts) == 2 else None

    def _answer(self, text: str, messages: list[Message], turn: int) -> Span:
        """The span of one assistant turn, from the end of its prompt to the end of the turn."""
        prompt = self._tried(messages[:turn], generation_prompt=True)
        content = messages[turn]["content"]
        is_last = turn == len(messages) - 1
        if prompt is not None and text.startswith(prompt) and not messages[turn].get("tool_calls"):
            # The common case, without rendering again: the words stand between known marks.
            for lead in self._leads:
                for words in _as_trimmed(content):
                    whole = lead + words + self.frame.ending(is_last=is_last)
                    end = len(prompt) + len(whole)
                    if text.startswith(whole, len(prompt)) and self._stops(text, end, is_last):
                        return Span(len(prompt), end, "assistant", turn)
        start = self._start(text, messages, turn, prompt)
        end = self._end(text, messages, turn, start)
        if end < start:
            raise _unproved(turn, "what the template writes for it changes with what follows")
        found = _lead(text[start:end], content, self.frame.ending(is_last=is_last))
        if found is not None and found not in self._leads:
            self._leads.append(found)
        return Span(start, end, "assistant", turn)

    def _stops(self, text: str, place: int, is_last: bool) -> bool:
        """Whether the template's known text behind an answer stands at `place`."""
        rest = self.frame.rest(is_last=is_last)
        return text[place:] == rest if is_last else bool(rest) and text.startswith(rest, place)

    def _start(self, text: str, messages: list[Message], turn: int, prompt: str | None) -> int:
        """Behind what the model is given before it answers."""
        if prompt is not None and text.startswith(prompt):
            return len(prompt)
        around = self._around(messages, turn)
        earlier = self.place(text, messages, turn - 1) if turn else None
        before = earlier.end if earlier is not None else 0
        if around is not None and text.startswith(around[0]):
            return header_end(around[0], self.frame.headers, before)
        asked = self.frame.asked
        if asked and earlier and earlier.role == "user" and text.startswith(asked, before):
            return before + len(asked)
        # The words may be rewritten: then the prompt shows the start, as far as it is kept whole.
        same = whole_tags(text[: common(text, prompt or "")])
        if prompt is not None and len(same) >= before:
            headers = self.frame.headers
            if not messages[turn]["content"].strip() or any(map(same.endswith, headers)):
                return len(same)
        raise _unproved(turn, "what stands before the answer changes with the answer")

    def _end(self, text: str, messages: list[Message], turn: int, start: int) -> int:
        """Behind what the model says to end its turn."""
        frame = self.frame
        if turn == len(messages) - 1:
            if text.endswith(frame.tail) and len(text) - len(frame.tail) >= start:
                return len(text) - len(frame.tail) + len(frame.final)
            return max(start, len(text.rstrip()))
        following = self._around(messages, turn + 1)
        if following is not None and text.startswith(following[0][:start]):
            upto = len(following[0])
            if frame.between and following[0].endswith(frame.between, start):
                return upto - len(frame.between) + len(frame.middle)
            if text.startswith(following[0]):
                ended = self._end_by_tag(text[start:upto], messages[: turn + 1])
                if ended is not None:
                    return start + ended
        return self._end_by_cut(text, messages, turn, start)

    def _end_by_tag(self, said: str, messages: list[Message]) -> int | None:
        """Where the last turn of `messages` ends in a text that also holds the next header."""
        cut = self._tried(messages)
        tag = last_tag(cut.removesuffix(self.frame.rest(is_last=True))) if cut is not None else ""
        place = said.rfind(tag) if tag else -1
        if place == -1:
            return None
        end = place + len(tag)
        more = self.frame.middle
        # A template that ends no last turn (Apriel) ends this one all the same.
        return end + len(more) if more and said.startswith(more, end) else end

    def _end_by_cut(self, text: str, messages: list[Message], turn: int, start: int) -> int:
        """The end by rendering no further than this turn: what stays the same belongs to it."""
        cut = self._tried(messages[: turn + 1])
        same = whole_tags(text[: common(text, cut or "")])
        if cut is None or len(same) < start or len(cut.rstrip()) > len(same) + len(self.frame.tail):
            raise _unproved(turn, "what the template writes for it changes with what follows")
        return max(start, len(same.rstrip()))


def _spans(places: list[tuple[int, int]], turns: list[int]) -> list[Span]:
    return [
        Span(start, end, "assistant", turn)
        for (start, end), turn in zip(places, turns, strict=True)
    ]


def _by_turn(
    messages: list[Message], marks: list[tuple[int, int]]
) -> dict[int, tuple[int, int]] | None:
    """The places of a template's marks by turn; None if not each answer has one."""
    answers = [turn for turn, message in enumerate(messages) if message["role"] == "assistant"]
    return dict(zip(answers, marks, strict=True)) if len(marks) == len(answers) else None


def _as_trimmed(content: str) -> list[str]:
    """The content as templates write it: as it is, or with blanks cut off."""
    return list(dict.fromkeys([content, content.strip(), content.lstrip(), content.rstrip()]))


def _lead(said: str, content: str, ending: str) -> str | None:
    """What a span holds before the words; None if they are not there as they are."""
    for words in _as_trimmed(content):
        if words and said.endswith(words + ending):
            return said[: len(said) - len(words) - len(ending)]
    return None


def _require_calls(text: str, messages: list[Message], turns: list[int]) -> None:
    """See to it that the turns' tool calls are in the text: many templates drop them silently."""
    for turn in turns:
        for call in messages[turn].get("tool_calls") or []:
            name = call.get("function", call).get("name") if isinstance(call, dict) else None
            if isinstance(name, str) and name not in text:
                raise TemplateInvalid(
                    "The chat template leaves out a tool call.",
                    f"turn {turn} calls `{name}`, which is not in the rendered text.",
                    "choose a template that knows tools, or take the calls out of the data.",
                )


def _unproved(turn: int, why: str) -> TemplateInvalid:
    return TemplateInvalid(
        f"It cannot be told which words of turn {turn} are the answer.",
        f"{why}.",
        "set `model.chat_template` to a named template, or `data.train_on` to `all`.",
    )
