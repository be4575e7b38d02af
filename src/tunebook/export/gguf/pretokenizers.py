"""Which of llama.cpp's pre-tokenizers cuts text as a tokenizer.json does: told by its regexes.

The converter of llama.cpp hashes the ids of one text instead, and fails on every tokenizer with
another start token or one token more. Here the hash only chooses among names that split alike, and
speaks for structures that the table does not know. Knows no files and no vocabulary.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import tomllib
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.errors import PretokenizerUnknown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TABLE = Path(__file__).with_name("pretokenizers.toml")
_PUNCTUATION = "punctuation"
_CONTRACTIONS = (
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])",
)
# One text holds all that pre-tokenizers differ in: blanks, digits, emoji, scripts, contractions.
_PROBE = (
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal) 😶\u200d🌫️ (multiple emojis "
    "concatenated) ✅ 🦙🦙 3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 កាន់តែពិសេសអាច"
    "😁 ?我想在apple工作1314151天～ ------======= нещо на Български ''''''```````\"\"\"\"......!!!!!!"
    "?????? I've been 'told he's there, 'RE you sure? 'M not sure I'll make it, 'D you like some "
    "tea? We'Ve a'lL"
)


@dataclass(frozen=True)
class Splitter:
    """One way of cutting, with the names that llama.cpp has for it; the first is the one to write.

    `splits` are regexes that cut one after another, in the spelling of `canonical`; `differs` names
    where llama.cpp falls short of them.
    """

    names: tuple[str, ...]
    splits: tuple[str, ...]
    ignore_merges: bool
    differs: str = ""


@dataclass(frozen=True)
class Difference:
    """What llama.cpp cuts otherwise than the regexes it stands for."""

    note: str
    concerns: Callable[[str], bool]


def _has_marks(text: str) -> bool:
    return any(unicodedata.category(character).startswith("M") for character in text)


_DIFFERENCES = {
    # Its engine knows no \p{M} and no \p{Lu} in these patterns: [^a-z] stands for them.
    "marks": Difference(
        "llama.cpp cuts words with combining marks (Hindi, Thai, …) into more tokens than training "
        "did.",
        _has_marks,
    ),
    "capitals": Difference(
        "llama.cpp cuts words with capitals inside, and numbers that touch letters, otherwise than "
        "training did.",
        lambda text: bool(re.search(r"[^\W\d_][A-Z]|[^\W\d_]\d|\d[^\W\d_]", text)),
    ),
}


@cache
def splitters() -> tuple[Splitter, ...]:
    """The table."""
    rows = _table()["splitters"]
    return tuple(
        Splitter(
            tuple(row["names"]),
            tuple(canonical(split) for split in row["splits"]),
            row["ignore_merges"],
            row.get("differs", ""),
        )
        for row in rows
    )


def known_names() -> list[str]:
    """Every name of the table, in order."""
    return [name for splitter in splitters() for name in splitter.names]


def choose_pretokenizer(tokenizer: PreTrainedTokenizerBase, tokenizer_json: dict[str, Any]) -> str:
    """The name for `tokenizer.ggml.pre` of a byte-level BPE.

    Args:
        tokenizer_json: the tokenizer's own tokenizer.json, parsed.

    Raises:
        PretokenizerUnknown: llama.cpp has no such splitting; says which is nearest.
    """
    splits = splits_of(tokenizer_json.get("pre_tokenizer"))
    ignore_merges = bool(tokenizer_json["model"].get("ignore_merges"))
    fitting = [splitter for splitter in splitters() if splitter.splits == splits]
    fitting.sort(key=lambda splitter: splitter.ignore_merges != ignore_merges)
    named = _name_by_hash(tokenizer)
    if fitting:
        # Names of one row differ in what they do when nothing else is said; we say everything.
        return named if named in fitting[0].names else fitting[0].names[0]
    if named is not None:
        return named
    raise _unknown(splits)


def ignores_merges(name: str) -> bool:
    """Whether llama.cpp takes a word that is a token whole, without merging."""
    return any(name in splitter.names and splitter.ignore_merges for splitter in splitters())


def known_difference(pre_tokenizer: dict[str, Any] | None) -> Difference | None:
    """Where llama.cpp's own splitting is known not to be what a tokenizer.json's regexes say."""
    splits = splits_of(pre_tokenizer)
    differs = next((row.differs for row in splitters() if row.splits == splits), "")
    return _DIFFERENCES.get(differs)


def splits_of(pre_tokenizer: dict[str, Any] | None) -> tuple[str, ...] | None:
    """The canonical regexes by which a tokenizer.json cuts text; None if it is no byte-level one."""
    splits: list[str] = []
    byte_level = False
    for part in flat_parts(pre_tokenizer):
        kind = part["type"]
        if kind == "ByteLevel":
            byte_level = True
            if part.get("use_regex", True):
                splits.append(splitters()[0].splits[0])
        elif kind == "Split" and "Regex" in part["pattern"] and _cuts_everything(part):
            splits.append(canonical(part["pattern"]["Regex"]))
        elif kind == "Digits":
            splits.append(r"\p{N}" if part["individual_digits"] else r"\p{N}+")
        elif kind == "Punctuation" and part.get("behavior") == "Contiguous":
            splits.append(_PUNCTUATION)
        else:
            return None
    return tuple(splits) if byte_level else None


def canonical(regex: str) -> str:
    """A regex in one of the spellings that mean the same for these patterns."""
    for character, escape in (("\r", r"\r"), ("\n", r"\n"), ("\t", r"\t")):
        regex = regex.replace(character, escape)
    regex = re.sub(r"([}?*+])\+", r"\1", regex)  # possessive: nothing behind could take it back
    for spelling in _CONTRACTIONS:
        regex = regex.replace(spelling, "'(?i:[sdmt]|ll|ve|re)")
    return regex.replace("{1}", "").replace(r"\s*[\r\n]+", r"\s*[\r\n]")


def stage_of(tokenizer: PreTrainedTokenizerBase, name: str) -> dict[str, Any] | None:
    """One stage of a tokenizer as tokenizer.json has it, without writing the whole vocabulary.

    Args:
        name: `normalizer` or `pre_tokenizer`.
    """
    stage = getattr(tokenizer.backend_tokenizer, name)
    state: dict[str, Any] | None = json.loads(stage.__getstate__()) if stage is not None else None
    return state


def flat_parts(stage: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A tokenizer.json's normalizer or pre-tokenizer as a flat list."""
    if stage is None:
        return []
    if stage["type"] == "Sequence":
        inner = stage.get("normalizers") or stage.get("pretokenizers") or []
        return [part for item in inner for part in flat_parts(item)]
    return [stage]


def _cuts_everything(part: dict[str, Any]) -> bool:
    """Whether what matches and what lies between become pieces, none dropped or joined."""
    return (part["behavior"], part["invert"]) in {
        ("Isolated", False),
        ("Isolated", True),
        ("Removed", True),
    }


def _name_by_hash(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The name that llama.cpp's converter would find."""
    ids = tokenizer.encode(_PROBE)
    digest = hashlib.sha256(str(ids).encode()).hexdigest()
    return next((name for name, known in _table()["hashes"].items() if digest in known), None)


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(_TABLE.read_text(encoding="utf-8"))


def _unknown(splits: tuple[str, ...] | None) -> PretokenizerUnknown:
    if splits is None:
        why = "its pre-tokenizer has parts that llama.cpp does not know for byte-level BPE."
        near = "gpt-2"
    else:
        said = " then ".join(splits)
        ranked = sorted(
            splitters(),
            key=lambda row: -difflib.SequenceMatcher(None, said, " then ".join(row.splits)).ratio(),
        )
        near = ranked[0].names[0]
        shown = said if len(said) < 300 else said[:300] + "…"
        why = f"it cuts text by `{shown}`, and no pre-tokenizer of llama.cpp does."
    return PretokenizerUnknown(
        "llama.cpp cannot cut text as this tokenizer does.",
        why,
        f"save the merged model instead, or name the nearest by hand, `pre={near!r}`, and look at "
        f"what the check of token ids says; names are {', '.join(known_names())}.",
    )
