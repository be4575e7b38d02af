"""The pieces that text is made of: which of llama.cpp's tokenizers they need, and how they join.

Knows tokenizer.json; knows no special tokens, no template and no GGUF.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunebook.errors import TokenizerUnsupported
from tunebook.export.gguf.blanks import BLANK, blanks_of
from tunebook.export.gguf.pretokenizers import (
    choose_pretokenizer,
    flat_parts,
    ignores_merges,
    known_difference,
)
from tunebook.export.gguf.scores import UNREACHED, scores_from_merges

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_GEMMA4 = "<turn|>"  # llama.cpp has a kind of its own for the vocabulary with this token


@dataclass(frozen=True)
class Pieces:
    """How a vocabulary joins characters.

    Attributes:
        model, pre, merges, add_space_prefix: see `Vocabulary`.
        scores: by id, for `llama` only.
        bytes: ids of `<0x00>` … `<0xFF>`.
        unreached: ids of pieces that no merge makes.
        unk: the id that stands for what is not in the vocabulary.
    """

    model: str
    pre: str
    merges: list[str] = field(repr=False)
    scores: dict[int, float] = field(repr=False)
    add_space_prefix: bool = False
    bytes: frozenset[int] = frozenset()
    unreached: frozenset[int] = frozenset()
    unk: int | None = None
    notes: tuple[str, ...] = ()

    def is_blank(self, token: str) -> bool:
        """Whether a token is a run of blanks, written as such vocabularies do."""
        return self.model != "gpt2" and set(token) == {BLANK}


def pieces_of(
    tokenizer: PreTrainedTokenizerBase, tokenizer_json: dict[str, Any], *, pre: str | None = None
) -> Pieces:
    """The pieces of a tokenizer.

    Raises:
        TokenizerUnsupported: it is no BPE, or cuts and joins in a way that llama.cpp has not.
        PretokenizerUnknown: a byte-level BPE that cuts text otherwise than llama.cpp can.
    """
    model = tokenizer_json["model"]
    if model["type"] != "BPE":
        raise _unsupported(f"its model is {model['type']}, and only BPE is written.")
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise _unsupported(f"its pieces carry a {name.replace('_', ' ')}, {model[name]!r}.")
    if any(part["type"] == "ByteLevel" for part in flat_parts(tokenizer_json["pre_tokenizer"])):
        return _byte_level(tokenizer, tokenizer_json, pre)
    return _sentencepiece(tokenizer, tokenizer_json, pre)


def _byte_level(
    tokenizer: PreTrainedTokenizerBase, tokenizer_json: dict[str, Any], pre: str | None
) -> Pieces:
    model = tokenizer_json["model"]
    pre = pre or choose_pretokenizer(tokenizer, tokenizer_json)
    notes = _notes_on_normalizer(tokenizer_json)
    if bool(model.get("ignore_merges")) != ignores_merges(pre):
        takes = "merges them" if model.get("ignore_merges") else "takes them whole"
        notes.append(f"Where a word is a token but no merges lead to it, llama.cpp {takes}.")
    if any(part.get("add_prefix_space") for part in flat_parts(tokenizer_json["pre_tokenizer"])):
        notes.append("The tokenizer puts a blank before a text; llama.cpp does not.")
    if difference := known_difference(tokenizer_json["pre_tokenizer"]):
        notes.append(difference.note)
    merges = [f"{left} {right}" for left, right in _merges(model)]
    return Pieces("gpt2", pre, merges, {}, notes=tuple(notes))


def _sentencepiece(
    tokenizer: PreTrainedTokenizerBase, tokenizer_json: dict[str, Any], pre: str | None
) -> Pieces:
    model = tokenizer_json["model"]
    vocabulary: dict[str, int] = model["vocab"]
    bytes_ = [vocabulary.get(f"<0x{byte:02X}>") for byte in range(256)]
    if not model.get("byte_fallback") or None in bytes_:
        raise _unsupported(
            "it has neither bytes for pieces nor `<0x00>` … `<0xFF>` to fall back to."
        )
    blanks = blanks_of(tokenizer)
    if blanks is None:
        raise _unsupported(f"it has neither bytes for pieces nor {BLANK} for blanks.")
    cuts = flat_parts(tokenizer_json["pre_tokenizer"])
    if any(part["type"] == "Metaspace" and part["split"] for part in cuts) and _joins_words(model):
        raise _unsupported("it cuts text at every blank, and has pieces with blanks inside.")
    merges = list(_merges(model))
    added = tokenizer.get_added_vocab()
    pieces = {piece: index for piece, index in vocabulary.items() if piece not in added}
    pieces |= {piece: index for piece, index in added.items() if set(piece) == {BLANK}}
    of_bytes = frozenset(index for index in bytes_ if index is not None)
    scores = scores_from_merges(pieces, merges) | dict.fromkeys(of_bytes, 0.0)
    by_merges = _GEMMA4 in added
    return Pieces(
        model="gemma4" if by_merges else "llama",
        pre=pre or ("gemma4" if by_merges else "default"),
        merges=[f"{left} {right}" for left, right in merges] if by_merges else [],
        scores={} if by_merges else scores,
        add_space_prefix=blanks.in_front,
        bytes=of_bytes,
        unreached=frozenset(index for index, score in scores.items() if score == UNREACHED),
        unk=vocabulary.get(model.get("unk_token") or ""),
        notes=(*blanks.notes, *_notes_on_normalizer(tokenizer_json)),
    )


def _joins_words(model: dict[str, Any]) -> bool:
    return any(BLANK in (left + right)[1:] for left, right in _merges(model))


def _merges(model: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for merge in model["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        yield left, right


def _notes_on_normalizer(tokenizer_json: dict[str, Any]) -> list[str]:
    parts = flat_parts(tokenizer_json["normalizer"])
    other = [part["type"] for part in parts if part["type"] not in ("Replace", "Prepend")]
    if not other:
        return []
    composes = " (letters and their accents in one character)" if other == ["NFC"] else ""
    return [f"The tokenizer normalises text by {', '.join(other)}{composes}; llama.cpp does not."]


def _unsupported(why: str) -> TokenizerUnsupported:
    return TokenizerUnsupported(
        "llama.cpp has no tokenizer of this kind.",
        why,
        "save the merged model instead; transformers and vLLM run it.",
    )
