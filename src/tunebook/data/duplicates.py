"""Rows that are the same or nearly the same: exact by a digest, near by MinHash.

MinHash comes from the optional package rensa; everything else here needs nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from tunebook.data.conversations import Message
from tunebook.errors import ExtraMissing

SIMILAR = 0.85
_WORDS = re.compile(r"\w+")
_FEWEST = 12  # shingles; shorter rows are alike by their form alone
_WIDTH = 3  # words in a shingle
_PERMUTATIONS = 128
_BANDS = 16


def row_digest(row: dict[str, Any]) -> bytes:
    """16 bytes that equal rows share, whatever the order of their keys."""
    text = json.dumps(row, sort_keys=True, default=str, ensure_ascii=False)
    return _digest(text)


def chat_digest(messages: list[Message]) -> bytes:
    """16 bytes that equal conversations share, whatever columns they came from."""
    said = [[m["role"], m["content"].strip(), m.get("tool_calls")] for m in messages]
    held = [getattr(messages, name, None) or None for name in ("tools", "images")]
    return _digest(json.dumps([said, *held], default=str))


class NearDuplicates:
    """Tells of each conversation whether an earlier one is nearly the same.

    Args:
        similar: share of three-word sequences that two rows have in common (Jaccard), estimated.

    Raises:
        ExtraMissing: rensa is not installed.
    """

    def __init__(self, similar: float = SIMILAR) -> None:
        try:
            import rensa
        except ImportError:
            raise ExtraMissing(
                "Near-duplicates cannot be looked for.",
                "the package `rensa` is not installed.",
                'run `pip install "tunebook[checks]"`.',
            ) from None
        self.similar = similar
        self._new = rensa.RMinHash
        self._index = rensa.RMinHashLSH(threshold=similar, num_perm=_PERMUTATIONS, num_bands=_BANDS)
        self._hashes: dict[int, Any] = {}

    def seen(self, number: int, messages: list[Message]) -> int | None:
        """The number of an earlier row that is nearly this one, or None; remembers this one."""
        own = self._hash(messages)
        found = self._alike(own)
        if own is not None and found is None:
            self._index.insert(number, own)
            self._hashes[number] = own
        return found

    def like(self, messages: list[Message]) -> int | None:
        """The number of a row seen before that is nearly this one, or None."""
        return self._alike(self._hash(messages))

    def _hash(self, messages: list[Message]) -> Any:
        if getattr(messages, "images", None):
            return None  # the same words about two pictures are not the same
        words = _WORDS.findall(" ".join(m["content"] for m in messages).lower())
        shingles = {" ".join(words[i : i + _WIDTH]) for i in range(len(words) - _WIDTH + 1)}
        if len(shingles) < _FEWEST:
            return None
        own = self._new(num_perm=_PERMUTATIONS, seed=1)
        own.update(list(shingles))
        return own

    def _alike(self, own: Any) -> int | None:
        if own is None:
            return None
        for other in sorted(self._index.query(own)):
            if self._hashes[other].jaccard(own) >= self.similar:
                return int(other)
        return None


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
