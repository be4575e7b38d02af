"""Render a conversation with a tokenizer's template and prove where each turn lies in the text.

This module knows text and character offsets only; tokens and labels are made elsewhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunebook.data.conversations import Message
from tunebook.data.templates import no_template
from tunebook.errors import TemplateInvalid

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")
# Private-use characters: no template changes their case, trims or splits them.
_SENTINEL = "\ue0a7\ue0b3\ue0c9"


@dataclass(frozen=True)
class Span:
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

    Raises:
        TemplateInvalid: the tokenizer has no template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.chat_template:
            raise no_template()
        self.template: str = tokenizer.get_chat_template()
        self.marked = bool(_MARKED.search(self.template))
        self._variables: dict[str, Any] = dict(tokenizer.special_tokens_map)
        self._end_of_turn = _special_token_pattern(tokenizer)
        # (before, after): what the template puts around an answer. Tried before it is worked out.
        self._frames: list[tuple[str, str]] = []

    def render(self, messages: list[Message], *, generation_prompt: bool = False) -> str:
        """The conversation as text.

        Raises:
            TemplateInvalid: the template refuses it, with its reason.
        """
        return self._render(messages, generation_prompt)[0]

    def render_answers(self, messages: list[Message], turns: list[int]) -> tuple[str, list[Span]]:
        """The text, and the spans of the assistant turns whose indices are given.

        Raises:
            TemplateInvalid: the template refuses the conversation, or a place cannot be proved.
        """
        if self.marked:
            text, places = self._render(messages, False, track=True)
            spans = _match_marks(text, places, messages)
            if spans is not None:
                return text, [span for span in spans if span.turn in turns]
        else:
            text = self.render(messages)
        return text, [self._answer(text, messages, turn) for turn in turns]

    def place(self, text: str, messages: list[Message], turn: int) -> Span | None:
        """Where one turn's content lies in `text`, by rendering again with another content there.

        None if the template leaves the turn out or does not keep its words together.
        """
        try:
            before, after = self._around(messages, turn)
        except TemplateInvalid:
            return None
        end = len(text) - len(after)
        if text.startswith(before) and text.endswith(after) and end >= len(before):
            return Span(len(before), end, messages[turn]["role"], turn)
        return None

    def _render(
        self, messages: list[Message], generation_prompt: bool, *, track: bool = False
    ) -> tuple[str, list[tuple[int, int]]]:
        from transformers.utils.chat_template_utils import render_jinja_template

        rendered: Any
        try:
            rendered = render_jinja_template(
                conversations=[messages],
                chat_template=self.template,
                add_generation_prompt=generation_prompt,
                return_assistant_tokens_mask=track,
                **self._variables,
            )
        except Exception as error:  # a template is a program: it may raise anything
            raise TemplateInvalid(
                "The chat template refuses a conversation.",
                f"{error or type(error).__name__} (roles: {_roles(messages)}).",
                "mend the conversation, or set `model.chat_template` to one that allows it.",
            ) from error
        texts, places = rendered
        return texts[0], places[0] if places else []

    def _prompt(self, messages: list[Message]) -> str | None:
        """What the model would see before its answer; None if the template refuses to say."""
        if not messages:
            return None
        try:
            return self.render(messages, generation_prompt=True)
        except TemplateInvalid:
            return None

    def _answer(self, text: str, messages: list[Message], turn: int) -> Span:
        """The span of one assistant turn, from the end of its prompt to its end-of-turn token."""
        prompt = self._prompt(messages[:turn])
        content = messages[turn]["content"]
        if prompt is not None and text.startswith(prompt):
            for before, after in self._frames:
                for words in _as_trimmed(content):
                    if text.startswith(before + words + after, len(prompt)):
                        end = len(prompt) + len(before) + len(words) + len(after)
                        return Span(len(prompt), end, "assistant", turn)
        return self._work_out(text, messages, turn, prompt)

    def _work_out(self, text: str, messages: list[Message], turn: int, prompt: str | None) -> Span:
        before, after = self._around(messages, turn)
        end = len(text) - len(after)
        if prompt is not None and text.startswith(prompt) and before.startswith(prompt):
            start = len(prompt)
        elif text.startswith(before):
            start = len(before)
        else:
            raise _unproved(turn, "what stands before the answer changes with the answer")
        if not text.endswith(after) or end < start:
            raise _unproved(turn, "what stands after the answer changes with the answer")
        ending = self._ending(messages, turn, after)
        if ending and prompt is not None and start == len(prompt):
            frame = (before[len(prompt) :], ending)
            if frame not in self._frames:
                self._frames.append(frame)
        return Span(start, end + len(ending), "assistant", turn)

    def _around(self, messages: list[Message], turn: int) -> tuple[str, str]:
        """The text before and after one turn's content, by putting a mark in its place."""
        probe = [dict(message) for message in messages]
        probe[turn]["content"] = _SENTINEL
        parts = self.render(probe).split(_SENTINEL)
        if len(parts) != 2:
            why = "leaves the turn out" if len(parts) == 1 else "writes the turn several times"
            raise _unproved(turn, f"the template {why}")
        return parts[0], parts[1]

    def _ending(self, messages: list[Message], turn: int, after: str) -> str:
        """The part of `after` that ends the turn itself: no word of the next turn's header."""
        try:
            tail = self._around(messages[: turn + 1], turn)[1]
        except TemplateInvalid:
            tail = after
        token = self._end_of_turn.match(tail)
        if token and after.startswith(token.group()):
            return token.group()
        same = next((i for i, (a, b) in enumerate(zip(tail, after, strict=False)) if a != b), None)
        return tail[: min(len(tail), len(after)) if same is None else same]


def _roles(messages: list[Message]) -> str:
    return ", ".join(message["role"] for message in messages)


def _match_marks(
    text: str, places: list[tuple[int, int]], messages: list[Message]
) -> list[Span] | None:
    """The marked places as spans, or None if they are not one for each assistant turn."""
    turns = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    if len(places) != len(turns):
        return None
    spans = []
    for (start, end), turn in zip(places, turns, strict=True):
        if messages[turn]["content"].strip() not in text[start:end]:
            return None
        spans.append(Span(start, end, "assistant", turn))
    return spans


def _as_trimmed(content: str) -> list[str]:
    """The content as templates write it: as it is, or with blanks cut off."""
    return list(dict.fromkeys([content, content.strip(), content.lstrip(), content.rstrip()]))


def _special_token_pattern(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    tokens = sorted({*added, *tokenizer.all_special_tokens}, key=len, reverse=True)
    return re.compile(r"\s*(?:" + "|".join(map(re.escape, tokens)) + ")" if tokens else r"(?!)")


def _unproved(turn: int, why: str) -> TemplateInvalid:
    return TemplateInvalid(
        f"It cannot be told which words of turn {turn} are the answer.",
        f"{why}.",
        "set `model.chat_template` to a named template, or `data.train_on` to `all`.",
    )
