"""Turns generated ids into pieces of text, or into tokens with their probabilities, as they come.

Knows a tokenizer's `decode`; knows no model and no thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from tunebook.engine.decoding import Chooser, Token


class Deltas(BaseStreamer):
    """Turns ids into text as they come; a character that is not complete yet waits."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, out: Callable[[Any], None]) -> None:
        self.tokenizer = tokenizer
        self.out = out
        self.ids: list[int] | None = None  # None until the prompt has passed
        self.start = 0  # text from here is decoded again, so that spaces come out right
        self.done = 0  # ids before here were sent

    def put(self, value: torch.Tensor) -> None:
        if self.ids is None:
            self.ids = []
            return
        for token in value.flatten().tolist():
            self.take(token)

    def end(self) -> None:
        if self.ids and (rest := self._new_text(final=True)):
            self.out(rest)

    def take(self, token: int) -> None:
        """Send what one more token adds to the text."""
        assert self.ids is not None
        self.ids.append(token)
        if text := self._new_text():
            self.out(text)

    def _new_text(self, *, final: bool = False) -> str:
        assert self.ids is not None
        before = self._decode(self.ids[self.start : self.done])
        text = self._decode(self.ids[self.start :])
        if (not final and text.endswith("\ufffd")) or len(text) <= len(before):
            return ""
        self.start, self.done = self.done, len(self.ids)
        return text[len(before) :]

    def _decode(self, ids: list[int]) -> str:
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        assert isinstance(text, str)
        return text


class Tokens(Deltas):
    """Sends each token with what it was chosen from; the texts together are those of `Deltas`."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        chooser: Chooser,
        out: Callable[[Token], None],
    ) -> None:
        super().__init__(tokenizer, out)
        self.chooser = chooser
        self.special = set(tokenizer.all_special_ids)

    def take(self, token: int) -> None:
        """Send one more token."""
        assert self.ids is not None
        choice = self.chooser.choice(token)
        context = self.ids[self.start :]
        pieces = [self._piece(context, other) for other in (token, *choice.ids)]
        self.ids.append(token)
        self.out(
            Token(
                id=token,
                text=self._new_text(),
                piece=pieces[0],
                probability=choice.probability,
                chance=choice.chance,
                alternatives=tuple(zip(pieces[1:], choice.probabilities, strict=True)),
            )
        )

    def end(self) -> None:
        """Send an unfinished character at the very end, as `Deltas` does."""
        if self.ids and (rest := self._new_text(final=True)):
            self.out(Token(self.ids[-1], rest, rest, 1.0, 1.0, ()))

    def _piece(self, context: list[int], token: int) -> str:
        """The token as it reads after `context`, spaces included."""
        if token in self.special:
            return str(self.tokenizer.decode([token], skip_special_tokens=False))
        return self._decode([*context, token])[len(self._decode(context)) :]
