"""Where SentencePiece-like tokenizers put a blank before a text, and where llama.cpp can.

llama.cpp puts one before the text and behind every special token, or nowhere. Knows the outer parts
of a tokenizer; knows no pieces and no files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tunebook.errors import TokenizerUnsupported
from tunebook.export.gguf.pretokenizers import flat_parts, stage_of
from tunebook.export.gguf.special_tokens import opening

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BLANK = "▁"
Scheme = Literal["always", "first", "never"]


@dataclass(frozen=True)
class Blanks:
    """The blank in front of a text.

    Attributes:
        scheme: where the tokenizer puts it: before each part of a text between special tokens,
            before the text alone, or nowhere.
        doubles: whether it puts one before a blank too, as llama.cpp does.
        in_front: whether llama.cpp is to put one (`tokenizer.ggml.add_space_prefix`).
    """

    scheme: Scheme
    doubles: bool
    in_front: bool

    @property
    def notes(self) -> list[str]:
        """Sentences on what llama.cpp does otherwise."""
        notes = []
        if self.scheme == "first":
            does = "behind special tokens too" if self.in_front else "nowhere, as in conversations"
            notes.append(
                "The tokenizer puts a blank before the first word of a text, but not behind special "
                f"tokens; llama.cpp puts it {does}."
            )
        if self.in_front and not self.doubles:
            notes.append(
                "Where a text begins with a blank, the tokenizer adds no second one; llama.cpp does."
            )
        return notes

    def comparable(self, text: str, tokenizer: PreTrainedTokenizerBase) -> str | None:
        """The text as llama.cpp must give it the same ids; None if it cannot."""
        added = [re.escape(token) for token in tokenizer.get_added_vocab()]
        parts = re.split("|".join(added), text) if added else [text]
        if self.scheme == "first" and not self.in_front:
            return f"{_start(tokenizer)}{text}"
        if self.scheme == "first" and len(parts) > 1:
            return None
        begins = any(part.startswith((" ", BLANK)) for part in parts)
        return None if self.in_front and not self.doubles and begins else text


def blanks_of(tokenizer: PreTrainedTokenizerBase) -> Blanks | None:
    """The rule of a tokenizer; None if it does not write blanks as `▁`.

    A tokenizer with a chat template that opens with a special token is made right for conversations
    where llama.cpp cannot be right for them and for bare texts.

    Raises:
        TokenizerUnsupported: it cuts text in yet another way.
    """
    normalizers = flat_parts(stage_of(tokenizer, "normalizer"))
    cuts = flat_parts(stage_of(tokenizer, "pre_tokenizer"))
    replaces = any(
        part["type"] == "Replace"
        and part["pattern"] == {"String": " "}
        and part["content"] == BLANK
        for part in normalizers
    )
    metaspace = [part for part in cuts if part["type"] == "Metaspace"]
    if not replaces and not metaspace:
        return None
    for part in cuts:
        # behind the replacement no blank is left to split at
        harmless = part["type"] == "Split" and part["pattern"] == {"String": " "} and replaces
        if not harmless and (part["type"] != "Metaspace" or part["replacement"] != BLANK):
            raise TokenizerUnsupported(
                "llama.cpp has no tokenizer of this kind.",
                f"it writes blanks as {BLANK} and cuts text with {part['type']}.",
                "save the merged model instead; transformers and vLLM run it.",
            )
    if any(part == {"type": "Prepend", "prepend": BLANK} for part in normalizers):
        return Blanks("always", doubles=True, in_front=True)
    scheme: Scheme = metaspace[0]["prepend_scheme"] if metaspace else "never"
    in_front = scheme == "always" or (scheme == "first" and not _opens_with_token(tokenizer))
    return Blanks(scheme, doubles=False, in_front=in_front)


def _opens_with_token(tokenizer: PreTrainedTokenizerBase) -> bool:
    opens = opening(tokenizer)
    return opens is not None and opens.startswith(tuple(tokenizer.get_added_vocab()))


def _start(tokenizer: PreTrainedTokenizerBase) -> str:
    """A token that text can stand behind: the start token, or the first added one."""
    added = tokenizer.get_added_vocab()
    return str(tokenizer.bos_token or min(added, key=added.__getitem__))
