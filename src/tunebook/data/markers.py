"""Mask rows that are tokenised already, by the marks that stand before questions and answers.

For trainers that other code has built; our own path knows its spans without searching. A row with
a mark inside a text is cut there, which `masking` never does.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunebook.data.masking import MASKED
from tunebook.data.rendering import Renderer
from tunebook.errors import NothingToLearn, RecipeInvalid, TemplateInvalid

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SAID = ["\ue0a7\ue0b1", "\ue0a7\ue0b2", "\ue0a7\ue0b3", "\ue0a7\ue0b4"]
# What may stand around a mark: its tokens can differ with the neighbours.
_BEFORE = ["", "a", "\n", "a\n", "a\n\n", "a ", "."]
_AFTER = ["", "a", "A", " a", "\n", "\n\n", "1"]
_CUT_CHARACTER = 4


@dataclass(frozen=True)
class Markers:
    """The texts that stand before each question and before each answer."""

    instruction: str
    response: str


def find_markers(tokenizer: PreTrainedTokenizerBase) -> Markers:
    """The marks of a tokenizer's chat template, from a conversation rendered with it.

    Raises:
        TemplateInvalid: there is no template, or it puts no mark before a turn.
    """
    roles = ["user", "assistant", "user", "assistant"]
    probe = [{"role": role, "content": said} for role, said in zip(roles, _SAID, strict=True)]
    text, spans = Renderer(tokenizer).render_answers(probe, [1, 3])
    places = [text.find(said) for said in _SAID]
    ends = [place + len(said) for place, said in zip(places, _SAID, strict=True)]
    if -1 in places:
        raise TemplateInvalid(
            "The chat template leaves out turns.",
            "a conversation of four turns does not come back whole.",
            "give `instruction_part` and `response_part`.",
        )
    ending = text[ends[1] : spans[0].end]
    instruction = text[spans[0].end : places[2]].lstrip().rstrip(" ")
    response = text[ends[2] : spans[1].start].removeprefix(ending).lstrip().rstrip(" ")
    if not instruction or not response:
        side = "question" if not instruction else "answer"
        raise TemplateInvalid(
            f"The chat template has no mark before a{'n' if side == 'answer' else ''} {side}.",
            "only blanks stand there.",
            "give `instruction_part` and `response_part`.",
        )
    return Markers(instruction, response)


class MarkerMasker:
    """Turns batches with `input_ids` into batches with `labels`; -100 outside the answers.

    An answer reaches from behind its mark to the next mark of either kind or the end of the row.

    Args:
        force_match: marks must be there with their line ends; else these may be missing.
        last_response_only: learn only the last answer of each row.
        mask_out_tokens: tokens, as ids or texts, that are never learnt.

    Raises:
        RecipeInvalid: a token to mask out is none of the vocabulary.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        markers: Markers,
        *,
        force_match: bool = True,
        last_response_only: bool = False,
        mask_out_tokens: Sequence[int | str] = (),
    ) -> None:
        self.markers = markers
        self._tokenizer = tokenizer
        self._instruction_text = _pattern(markers.instruction, force_match)
        self._response_text = _pattern(markers.response, force_match)
        self.last_response_only = last_response_only
        self._never = {_token(tokenizer, token) for token in mask_out_tokens}
        self._instruction = _Pattern(tokenizer, markers.instruction, force_match)
        self._response = _Pattern(tokenizer, markers.response, force_match)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        packed = batch.get("seq_lengths") or [None] * len(batch["input_ids"])
        rows = [list(ids) for ids in batch["input_ids"]]
        parts = [_split(ids, lengths) for ids, lengths in zip(rows, packed, strict=True)]
        labels = iter(self._labels([part for row in parts for part in row]))
        return {"labels": [[label for _ in row for label in next(labels)] for row in parts]}

    def _labels(self, rows: list[list[int]]) -> list[list[int]]:
        """Labels of rows, each of one conversation."""
        decode = self._tokenizer.decode
        texts = [
            str(decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
            for ids in rows
        ]
        again = self._tokenizer(
            texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        return [
            self._label(ids, text, new, offsets)
            for ids, text, new, offsets in zip(
                rows, texts, again["input_ids"], again["offset_mapping"], strict=True
            )
        ]

    def _label(
        self, ids: list[int], text: str, again: list[int], offsets: list[tuple[int, int]]
    ) -> list[int]:
        same = next(
            (i for i, (a, b) in enumerate(zip(ids, again, strict=False)) if a != b),
            min(len(ids), len(again)),
        )
        if len(ids) - same <= _CUT_CHARACTER:
            # A cut row can end in half a character, whose tokens lie behind everything else.
            starts = [start for start, _ in offsets[:same]] + [len(text)] * (len(ids) - same)
            marks = [(*m.span(), True) for m in re.finditer(self._response_text, text)]
            marks += [(*m.span(), False) for m in re.finditer(self._instruction_text, text)]
            return self._between(ids, marks, lambda place: bisect_left(starts, place))
        marks = [(*place, True) for place in self._response.find(ids)]
        marks += [(*place, False) for place in self._instruction.find(ids)]
        return self._between(ids, marks, lambda place: place)

    def _between(
        self, ids: list[int], marks: list[tuple[int, int, bool]], token: Callable[[int], int]
    ) -> list[int]:
        """Labels from marks (start, end, before an answer?); `token` turns places into tokens."""
        marks = sorted(marks)
        labels = [MASKED] * len(ids)
        answers = []
        for index, (_, begin, is_response) in enumerate(marks):
            if is_response:
                end = token(marks[index + 1][0]) if index + 1 < len(marks) else len(ids)
                answers.append((token(begin), end))
        for begin, end in answers[-1:] if self.last_response_only else answers:
            labels[begin:end] = [MASKED if i in self._never else i for i in ids[begin:end]]
        return labels


def _token(tokenizer: PreTrainedTokenizerBase, token: int | str) -> int:
    index: Any = token if isinstance(token, int) else tokenizer.convert_tokens_to_ids(token)
    if index is None or (index == tokenizer.unk_token_id and token != tokenizer.unk_token):
        raise RecipeInvalid(
            "A token to mask out is not in the vocabulary.",
            f"{token!r} is no single token of this tokenizer.",
            "give ids, or texts that are one token, such as the end token.",
        )
    return int(index)


def _split(ids: list[int], lengths: Sequence[int] | None) -> list[list[int]]:
    """The rows that were packed into one."""
    parts, start = [], 0
    for length in lengths or [len(ids)]:
        parts.append(ids[start : start + length])
        start += length
    return [*parts, ids[start:]] if start < len(ids) else parts


def _pattern(mark: str, force_match: bool) -> re.Pattern[str]:
    if force_match:
        return re.compile(re.escape(mark))
    words = mark.rstrip()
    return re.compile(
        re.escape(words) + "".join(f"(?:{re.escape(c)})?" for c in mark[len(words) :])
    )


class _Pattern:
    """The token sequences that a mark can become; for ids that their own text does not give."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, mark: str, force_match: bool) -> None:
        found: set[tuple[tuple[int, ...], int]] = set()
        for text in {mark} if force_match else {mark, mark.rstrip()}:
            for before in _BEFORE:
                for after in _AFTER:
                    found |= _inside(tokenizer, before, text, after)
        self._by_first: dict[int, list[tuple[tuple[int, ...], int]]] = {}
        for ids, extra in sorted(found, key=lambda item: (-len(item[0]) - item[1], item)):
            self._by_first.setdefault(ids[0], []).append((ids, extra))

    def find(self, ids: list[int]) -> Iterator[tuple[int, int]]:
        """(first token of the mark, first token behind it) of every place."""
        index = 0
        while index < len(ids):
            for pattern, extra in self._by_first.get(ids[index], ()):
                end = index + len(pattern)
                if tuple(ids[index:end]) == pattern:
                    yield index, min(end + extra, len(ids))
                    index = end - 1
                    break
            index += 1


def _inside(
    tokenizer: PreTrainedTokenizerBase, before: str, mark: str, after: str
) -> set[tuple[tuple[int, ...], int]]:
    """The tokens that lie wholly in the mark, and 1 if one more runs out of it to the right.

    Nothing if a token runs into the mark from the left: other neighbours give that mark.
    """
    out = tokenizer(
        before + mark + after, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    start, end = len(before), len(before) + len(mark)
    ids, extra = [], 0
    for token, (first, last) in zip(out["input_ids"], out["offset_mapping"], strict=True):
        if first < start < last:
            return set()
        if start <= first < end:
            if last > end:
                extra = 1
            else:
                ids.append(token)
    # With a token running out of it, a mark of plain words could be cut short to anything.
    return {(tuple(ids), extra)} if ids and (extra == 0 or len(ids) > 1) else set()


def nothing_marked(
    masker: MarkerMasker, tokenizer: PreTrainedTokenizerBase, ids: list[int]
) -> NothingToLearn:
    """The error for rows in which no answer was found; `ids` are those of row 0."""
    mark, start = masker.markers.response, tokenizer.decode(ids[:60])
    return NothingToLearn(
        "Nothing would be learnt: no row holds an answer behind the mark given.",
        f"row 0 holds no {mark!r} with an answer behind it; it begins {start!r}.",
        "give the `response_part` that stands before the answers in the rendered text, or leave "
        "both parts out to take those of the tokenizer's chat template.",
    )
