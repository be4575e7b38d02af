"""Turns generated ids into pieces of text as they come.

Knows a tokenizer's `decode`; knows no model and no thread.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer


class Deltas(BaseStreamer):
    """Turns ids into text as they come; a character that is not complete yet waits."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, out: Callable[[str], None]) -> None:
        self.tokenizer = tokenizer
        self.out = out
        self.ids: list[int] | None = None  # None until the prompt has passed
        self.start = 0  # text from here is decoded again, so that spaces come out right
        self.done = 0  # ids before here were sent

    def put(self, value: torch.Tensor) -> None:
        if self.ids is None:
            self.ids = []
            return
        self.ids.extend(value.flatten().tolist())
        self._send(final=False)

    def end(self) -> None:
        if self.ids:
            self._send(final=True)

    def _send(self, *, final: bool) -> None:
        assert self.ids is not None
        before = self._decode(self.ids[self.start : self.done])
        text = self._decode(self.ids[self.start :])
        if not final and text.endswith("\ufffd"):
            return
        if len(text) > len(before):
            self.out(text[len(before) :])
            self.start, self.done = self.done, len(self.ids)

    def _decode(self, ids: list[int]) -> str:
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        assert isinstance(text, str)
        return text
