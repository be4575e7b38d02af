"""The one path from messages to `input_ids` and `labels`: training, preview and checks all use it.

It knows a tokenizer and its template; it does not know files, formats or trainers.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tunebook.data.conversations import Conversation, Message
from tunebook.data.rendering import Renderer, Span
from tunebook.data.tools import Tool
from tunebook.data.turns import wrong
from tunebook.errors import ModelInvalid

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MASKED = -100
_SHORT = 2000  # tokens
_KEPT = 64  # lists of tools: many rows may share one, or each have its own
TrainOn = Literal["responses", "last_response", "all"]


@dataclass
class Encoded:
    """One row as the model sees it.

    `learnt` are the tokens learnt, as ranges [first, last) in order. `offsets[i]` is the token's
    place in `text`, made when asked for: `places` is a list of them or a tokenizer's Encoding.
    `spans` are in text order; `length` counts the tokens before the cut, and `would_learn` are the
    ranges learnt if nothing were cut.
    """

    input_ids: list[int]
    learnt: list[tuple[int, int]]
    text: str
    spans: list[Span]
    truncated: bool
    places: Any = field(repr=False, default_factory=list)
    length: int = 0
    uncut: list[tuple[int, int]] | None = field(repr=False, default=None)
    rest: list[int] = field(repr=False, default_factory=list)

    @property
    def would_learn(self) -> list[tuple[int, int]]:
        """`learnt` before the cut."""
        return self.learnt if self.uncut is None else self.uncut

    @property
    def uncut_ids(self) -> list[int]:
        """`input_ids` before the cut."""
        return self.input_ids + self.rest

    @property
    def labels(self) -> list[int]:
        """`input_ids[i]` where the token is learnt, and -100 where not."""
        labels = [MASKED] * len(self.input_ids)
        for first, last in self.learnt:
            labels[first:last] = self.input_ids[first:last]
        return labels

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """Each token's place in `text`."""
        every = self.places if isinstance(self.places, list) else self.places.offsets
        return every[: len(self.input_ids)]

    @property
    def n_trained(self) -> int:
        """How many tokens are learnt."""
        return sum(last - first for first, last in self.learnt)


def encode_conversation(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[Message],
    *,
    train_on: TrainOn = "responses",
    max_length: int | None = None,
    tools: list[Tool] | None = None,
) -> Encoded:
    """One conversation as ids and labels, with the span of every turn.

    A token is learnt if its first character lies in a learnt span. So a token that begins in the
    header and runs into the answer is not learnt (after that header the model can never say it),
    and one that begins in the answer and runs past its end is.

    Args:
        messages: `{"role", "content"}`; a single message of the role "text" is plain text. One
            with `"train": False` is never learnt, whatever `train_on` says.
        train_on: "responses" (every assistant turn), "last_response", or "all".
        max_length: in tokens; more are cut off on the right.
        tools: JSON schemas of what the model may call, for the template to write.

    Raises:
        TemplateInvalid: no template, or the template refuses the conversation.
    """
    encoder = Encoder(tokenizer, train_on=train_on, max_length=max_length, every_turn=True)
    return encoder(Conversation(messages, tools) if tools else messages)


def encode_text(
    tokenizer: PreTrainedTokenizerBase, text: str, *, max_length: int | None = None
) -> Encoded:
    """Plain text between the tokenizer's start token, if it has one, and its end; all learnt."""
    encoder = Encoder(tokenizer, train_on="all", max_length=max_length)
    return encoder([{"role": "text", "content": text}])


class Encoder:
    """Encodes many rows for one tokenizer; what it learns of the template serves the next row.

    Args:
        every_turn: work out the spans of user and system turns too (for showing; costs time).
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        train_on: TrainOn = "responses",
        max_length: int | None = None,
        every_turn: bool = False,
    ) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ModelInvalid(
                "The tokenizer gives no character positions.",
                f"{type(tokenizer).__name__} is slow: its tokens cannot be matched to turns.",
                "use the model's fast tokenizer (a folder with tokenizer.json).",
            )
        self.tokenizer = tokenizer
        self.train_on = train_on
        self.max_length = max_length
        self.every_turn = every_turn
        self.hidden_tools = 0  # rows whose tools the template does not write
        self._renderers: dict[str, Renderer] = {}

    def __call__(self, messages: list[Message]) -> Encoded:
        return self.batch([messages])[0]

    def batch(self, conversations: list[list[Message]]) -> list[Encoded]:
        """Encode many rows; the tokenizer is called once."""
        prepared = [self.render(messages) for messages in conversations]
        return self.tokenize(prepared)

    def render(self, messages: list[Message]) -> tuple[str, list[Span], bool]:
        """Text, spans and whether it is plain text, of one row."""
        if len(messages) == 1 and messages[0]["role"] == "text":
            content = messages[0]["content"]
            return content, [Span(0, len(content), "text", 0, True)], True
        tools = getattr(messages, "tools", None)
        renderer = self.renderer(tools)
        self.hidden_tools += bool(tools) and not renderer.shows_tools
        return (*self._render_chat(renderer, messages), False)

    def renderer(self, tools: list[Tool] | None = None) -> Renderer:
        """What renders conversations with these tools; the latest few are kept.

        Raises:
            TemplateInvalid: the tokenizer has no template.
            RowInvalid: the tools hold themselves, or what is no JSON.
        """
        try:
            key = json.dumps(tools) if tools else ""
        except (RecursionError, TypeError, ValueError) as error:
            raise wrong("The row", "`tools`", f"is no JSON: {error}") from None
        found = self._renderers.pop(key, None) or self.make_renderer(tools)
        if len(self._renderers) >= _KEPT:
            del self._renderers[next(iter(self._renderers))]
        self._renderers[key] = found
        return found

    def make_renderer(self, tools: list[Tool] | None) -> Renderer:
        """A new one, for conversations with these tools."""
        return Renderer(self.tokenizer, tools)

    def tokenize(self, prepared: list[tuple[str, list[Span], bool]]) -> list[Encoded]:
        """Rendered rows as ids and labels."""
        chats = [text for text, _, plain in prepared if not plain]
        texts = [text for text, _, plain in prepared if plain]
        chat_rows = iter(self.ids(chats, special=False))
        text_rows = iter(self.ids(texts, special=True))
        return [
            self._finish_text(text, *next(text_rows))
            if plain
            else self.finish(text, spans, *next(chat_rows))
            for text, spans, plain in prepared
        ]

    def ids(self, texts: list[str], *, special: bool = False) -> list[tuple[list[int], Any]]:
        """Ids and the tokenizer's Encoding, which knows the offsets, of each text."""
        if not texts:
            return []
        # A template writes its own start token, so the tokenizer must not add a second one.
        try:
            out = self.tokenizer(
                texts,
                add_special_tokens=special,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,
            )
        except TypeError:
            for text in texts:
                _require_text(text)
            raise
        return list(zip(out["input_ids"], out.encodings, strict=True))

    def _render_chat(self, renderer: Renderer, messages: list[Message]) -> tuple[str, list[Span]]:
        answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        barred = [i for i, message in enumerate(messages) if message.get("train") is False]
        flagged = any("train" in message for message in messages)
        seen = [{k: m[k] for k in m if k != "train"} for m in messages] if flagged else messages
        learnt = answers[-1:] if self.train_on == "last_response" else answers
        # A last answer that is not to be learnt is not replaced by an earlier one.
        learnt = [turn for turn in learnt if turn not in barred] if barred else learnt
        if self.train_on == "all" and not self.every_turn and not barred:
            return renderer.render_answers(seen, [])
        wanted = answers if self.every_turn or self.train_on == "all" else learnt
        text, found = renderer.render_answers(seen, wanted)
        others = range(len(messages)) if self.every_turn else barred
        if not others:
            return text, [span._replace(trained=True) for span in found]
        spans = {span.turn: span for span in found}
        for turn in others:
            place = None if turn in spans else renderer.place(text, seen, turn)
            if place is not None:
                spans[turn] = place
        trained = set(range(len(messages)) if self.train_on == "all" else learnt) - set(barred)
        ordered = sorted(spans.values(), key=lambda span: (span.start, span.turn))
        return text, [span._replace(trained=span.turn in trained) for span in ordered]

    def finish(self, text: str, spans: list[Span], ids: list[int], encoding: Any) -> Encoded:
        """Ids with the ranges that are learnt, cut to the length allowed."""
        everything, count = self.train_on == "all", len(ids)
        found = []
        last = 0
        for span in spans:
            if span.trained != everything:
                first = max(last, first_token(encoding, span.start, count))
                last = max(first, first_token(encoding, span.end, count))
                found.append((first, last))
        if everything:  # what was found is left out
            edges = [0, *(edge for place in found for edge in place), count]
            found = list(zip(edges[::2], edges[1::2], strict=True))
        learnt = [(first, last) for first, last in found if first < last]
        return self._cut(Encoded(ids, learnt, text, spans, False, encoding, count))

    def _finish_text(self, text: str, ids: list[int], encoding: Any) -> Encoded:
        """Write the start and end tokens, which the tokenizer gives no place, into the text."""
        tokenizer, offsets = self.tokenizer, encoding.offsets
        shift = 0
        if ids and ids[0] == tokenizer.bos_token_id and offsets[0] == (0, 0):
            shift = len(str(tokenizer.bos_token))
            offsets = [(0, shift), *((a + shift, b + shift) for a, b in offsets[1:])]
            text = str(tokenizer.bos_token) + text
        if tokenizer.eos_token_id is not None:
            end = len(text) + len(str(tokenizer.eos_token))
            if not ids or ids[-1] != tokenizer.eos_token_id:
                ids, offsets = [*ids, tokenizer.eos_token_id], [*offsets, (len(text), end)]
                text += str(tokenizer.eos_token)
            elif offsets[-1] == (0, 0) or offsets[-1] == (shift, shift):
                offsets = [*offsets[:-1], (len(text), end)]
                text += str(tokenizer.eos_token)
        span = Span(0, len(text), "text", 0, True)
        learnt = [(0, len(ids))]
        return self._cut(Encoded(list(ids), learnt, text, [span], False, offsets, len(ids)))

    def _cut(self, encoded: Encoded) -> Encoded:
        limit = self.max_length
        if limit is None or encoded.length <= limit:
            return encoded
        return Encoded(
            encoded.input_ids[:limit],
            [(first, min(last, limit)) for first, last in encoded.learnt if first < limit],
            encoded.text,
            encoded.spans,
            True,
            encoded.places,
            encoded.length,
            encoded.learnt,
            encoded.input_ids[limit:],
        )


def first_token(encoding: Any, place: int, count: int) -> int:
    """The first of `count` tokens that begins at a character's place or behind it."""

    def start(token: int) -> int:
        return encoding.token_to_chars(token)[0]  # type: ignore[no-any-return]

    # The tokenizer looks at one token after the other: quick for short texts only.
    token: int | None = encoding.char_to_token(place) if count < _SHORT else None
    if token is None:
        return bisect_left(range(count), place, key=start)
    while token and start(token - 1) >= place:  # several tokens may share one character
        token -= 1
    return token if start(token) >= place else token + 1


def _require_text(text: str) -> None:
    """See to it that a text can be written as UTF-8: half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        why = f"holds {text[error.start]!r} at character {error.start:,}, which is no character"
        raise wrong("The row", "its text", why) from None
