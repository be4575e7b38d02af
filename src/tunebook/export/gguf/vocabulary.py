"""Everything about a tokenizer that goes into a GGUF, derived from its tokenizer.json alone.

Nothing is read from a `tokenizer.model` file, and nothing is guessed: what llama.cpp cannot do as
the tokenizer does is an error or stands in `Vocabulary.notes`. Knows no model and no tensors.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gguf import GGUFWriter, Keys, TokenType

from tunebook.errors import TokenizerUnsupported, VocabularyTooLarge
from tunebook.export.gguf.chat_template import portable_templates
from tunebook.export.gguf.pieces import Pieces, pieces_of
from tunebook.export.gguf.pretokenizers import flat_parts
from tunebook.export.gguf.special_tokens import (
    around_text,
    changes_with,
    fill_in_the_middle,
    is_control,
    opening,
    swallows_blanks_as_phi3,
    turn_end,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LEAST_SCORE = -1e9
_FIM_KEYS = {
    part: f"tokenizer.ggml.fim_{part}_token_id"
    for part in ("pre", "suf", "mid", "pad", "rep", "sep")
}


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF says of its tokenizer, by the names of its keys.

    Attributes:
        model: `gpt2` (byte-level BPE), `llama` (SentencePiece-like, by scores) or `gemma4`
            (SentencePiece-like, by merges).
        pre: how text is cut before merges; `default` for `llama`.
        tokens: one for each row of the embedding, `[PADi]` where the tokenizer has none.
        types: `gguf.TokenType` of each.
        scores: of each, for `llama`; highest is joined first.
        merges: "left right", the first to be applied first; empty for `llama`.
        eot: the token that ends an answer by the chat template; may be `eos` itself.
        chat_templates: by name; `default` is the one that is used.
        swallows_blanks: blanks behind special tokens vanish as in Phi-3; see `model_name`.
        notes: sentences on what llama.cpp does otherwise than the tokenizer.
    """

    model: str
    pre: str
    tokens: list[str] = field(repr=False)
    types: list[int] = field(repr=False)
    scores: list[float] = field(repr=False)
    merges: list[str] = field(repr=False)
    bos: int | None
    eos: int | None
    eot: int | None
    eom: int | None
    unk: int | None
    pad: int | None
    fim: dict[str, int]
    add_bos: bool
    add_eos: bool
    add_space_prefix: bool
    chat_templates: dict[str, str] = field(repr=False)
    swallows_blanks: bool
    notes: tuple[str, ...]

    @property
    def chat_template(self) -> str | None:
        """The template that is used; None if there is none."""
        return self.chat_templates.get("default")

    def model_name(self, name: str) -> str:
        """`general.name` for a model: `name`, changed only where llama.cpp reads rules out of it.

        Blanks behind special tokens vanish if the name contains "phi-3" or "phi3", in any case,
        and a vocabulary without `</s>` does not even load then.
        """
        lower = name.lower()
        found = [word for word in ("phi-3", "phi3") if word in lower]
        if self.swallows_blanks and not found:
            return f"{name} (Phi-3)"
        if self.swallows_blanks or not found:
            return name
        at = lower.index(found[0])
        return self.model_name(f"{name[:at]}{name[at : at + 3]} 3{name[at + len(found[0]) :]}")


def vocabulary_of(
    tokenizer: PreTrainedTokenizerBase, size: int, *, pre: str | None = None
) -> Vocabulary:
    """The vocabulary of a tokenizer for a model whose embedding has `size` rows.

    Args:
        pre: a name for `tokenizer.ggml.pre` that is taken unseen.

    Raises:
        TokenizerUnsupported: no BPE, or one that llama.cpp has no kind for.
        PretokenizerUnknown: llama.cpp cannot cut text as it does.
        VocabularyTooLarge: a token has no row in the embedding.
        TemplateInvalid: llama.cpp's Jinja cannot run the chat template.
    """
    tokenizer_json = _tokenizer_json(tokenizer)
    ids: dict[str, int] = tokenizer.get_vocab()
    _require_room(ids, size)
    pieces = pieces_of(tokenizer, tokenizer_json, pre=pre)
    added = {token["id"]: token for token in tokenizer_json["added_tokens"]}
    tokens = _tokens(ids, size)
    roles = _Roles(tokenizer, ids)
    scores = [pieces.scores.get(index, _LEAST_SCORE) for index in range(size)]
    return Vocabulary(
        model=pieces.model,
        pre=pieces.pre,
        tokens=tokens,
        types=_types(tokens, ids, added, pieces, roles),
        scores=scores if pieces.scores else [],
        merges=pieces.merges,
        bos=roles.bos,
        eos=roles.eos,
        eot=roles.eot,
        eom=ids.get("<|eom_id|>"),
        unk=roles.unk,
        pad=roles.pad,
        fim=fill_in_the_middle(ids),
        add_bos=roles.add_bos,
        add_eos=roles.add_eos,
        add_space_prefix=pieces.add_space_prefix,
        chat_templates=portable_templates(tokenizer),
        swallows_blanks=swallows_blanks_as_phi3(list(added.values())),
        notes=(*pieces.notes, *roles.notes, *_notes_on_added(added.values(), tokenizer_json)),
    )


def write_vocabulary(
    writer: GGUFWriter, tokenizer: PreTrainedTokenizerBase, size: int, *, pre: str | None = None
) -> Vocabulary:
    """Put all about the tokenizer into a GGUF; returns what was put, for its notes and its name.

    Args:
        size: rows of the embedding.
        pre: see `vocabulary_of`.

    Raises:
        TunebookError: as `vocabulary_of`.
    """
    vocabulary = vocabulary_of(tokenizer, size, pre=pre)
    add_vocabulary(writer, vocabulary)
    return vocabulary


def add_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    """Put a vocabulary into a GGUF."""
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    for key, index in _id_keys(vocabulary).items():
        if index is not None:
            writer.add_uint32(key, index)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(vocabulary.add_eos)
    writer.add_add_space_prefix(vocabulary.add_space_prefix)
    if vocabulary.chat_templates:
        named = vocabulary.chat_templates.items()
        writer.add_chat_template([{"name": name, "template": text} for name, text in named])


def _id_keys(vocabulary: Vocabulary) -> dict[str, int | None]:
    keys = Keys.Tokenizer
    return {
        keys.BOS_ID: vocabulary.bos,
        keys.EOS_ID: vocabulary.eos,
        keys.EOT_ID: vocabulary.eot,
        keys.EOM_ID: vocabulary.eom,
        keys.UNK_ID: vocabulary.unk,
        keys.PAD_ID: vocabulary.pad,
        **{_FIM_KEYS[part]: index for part, index in vocabulary.fim.items()},
    }


class _Roles:
    """Which id is what, with the notes that go with it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ids: dict[str, int]) -> None:
        self.notes: list[str] = []
        self.pad = _id(tokenizer.pad_token_id)
        self.unk = _id(tokenizer.unk_token_id)
        end = turn_end(tokenizer)
        self.eot = None if end is None else end.token
        if end is not None and not end.text:
            self.notes.append(
                "The chat template ends an answer with nothing that a model could learn to stop at."
            )
        elif end is not None and end.token is None:
            self.notes.append(
                f"An answer ends in `{end.text}`, which is no token: llama.cpp stops there only if "
                "it is given as a stop string."
            )
        ends = [tokenizer.eos_token_id, self.eot, ids.get("<|endoftext|>"), self.pad]
        self.eos = next((_id(index) for index in ends if index is not None), None)
        if self.eos is None:
            self.notes.append(
                "The tokenizer has no end token, and llama.cpp takes one of its text tokens for it."
            )
        # Without a start token llama.cpp takes number 11, or 1, for one: any text token.
        start = [tokenizer.bos_token_id, self.pad, self.eos]
        self.bos = next((_id(index) for index in start if index is not None), None)
        around = around_text(tokenizer)
        self.add_bos = around.before == (tokenizer.bos_token_id,)
        self.add_eos = around.after == (tokenizer.eos_token_id,)
        if (around.before and not self.add_bos) or (around.after and not self.add_eos):
            self.notes.append(
                f"The tokenizer puts {around.before} before and {around.after} behind a text; "
                "GGUF knows only the start and the end token there."
            )
        opens = opening(tokenizer)
        if self.add_bos and opens is not None and not opens.startswith(str(tokenizer.bos_token)):
            self.add_bos = False
            self.notes.append(
                "The chat template writes no start token, so llama.cpp puts none before a text."
            )
        if changes_with(tokenizer, enable_thinking=True):
            self.notes.append(
                "llama-server asks the chat template for thoughts, which training did not: start it "
                "with `--reasoning off`."
            )
        if changes_with(tokenizer, date_string="1 Jan 2000"):
            self.notes.append(
                "llama-server writes the day's date where the chat template wrote its own."
            )

    @property
    def named(self) -> set[int]:
        """The ids that have a role beside being unknown."""
        return {index for index in (self.bos, self.eos, self.eot, self.pad) if index is not None}


def _id(value: Any) -> int | None:
    return int(value) if isinstance(value, int) else None


def _tokenizer_json(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise TokenizerUnsupported(
            "This tokenizer cannot be written into a GGUF.",
            f"{type(tokenizer).__name__} is written in Python and has no tokenizer.json.",
            "load it with `AutoTokenizer.from_pretrained(..., use_fast=True)`, or save the merged "
            "model instead.",
        )
    parsed: dict[str, Any] = json.loads(backend.to_str())
    return parsed


def _require_room(ids: dict[str, int], size: int) -> None:
    token, largest = max(ids.items(), key=lambda item: item[1])
    if largest >= size:
        raise VocabularyTooLarge(
            "The tokenizer has more tokens than the model.",
            f"token {largest} is {token!r}, and the embedding has {size} rows.",
            "call `model.resize_token_embeddings(len(tokenizer))` and train, or use the "
            "tokenizer that came with the model.",
        )


def _tokens(ids: dict[str, int], size: int) -> list[str]:
    by_id = {index: token for token, index in ids.items()}
    tokens = []
    for index in range(size):
        token = by_id.get(index)
        if token is None:
            token = f"[PAD{index}]"
            while token in ids:  # two tokens of one text end llama.cpp
                token += "_"
        tokens.append(token)
    return tokens


def _types(
    tokens: list[str],
    ids: dict[str, int],
    added: dict[int, dict[str, Any]],
    pieces: Pieces,
    roles: _Roles,
) -> list[int]:
    def type_of(index: int, token: str) -> TokenType:
        if token not in ids:
            return TokenType.UNUSED
        if index == pieces.unk and index not in roles.named:
            return TokenType.UNKNOWN
        if index in pieces.bytes:
            return TokenType.BYTE
        if index not in added:
            unused = index in pieces.unreached and "unused" in token
            return TokenType.UNUSED if unused else TokenType.NORMAL
        if is_control(token, special=added[index]["special"]):
            return TokenType.CONTROL
        # Runs of blanks are made by merges; as user-defined tokens they would be shown as ▁.
        return TokenType.NORMAL if pieces.is_blank(token) else TokenType.USER_DEFINED

    return [int(type_of(index, token)) for index, token in enumerate(tokens)]


def _notes_on_added(added: Any, tokenizer_json: dict[str, Any]) -> list[str]:
    notes = []
    added = list(added)
    strips = [t["content"] for t in added if t["lstrip"] or t["rstrip"]]
    if strips and not swallows_blanks_as_phi3(added):
        notes.append(
            f"Blanks beside {', '.join(map(repr, strips[:5]))} vanish in training; llama.cpp keeps "
            "them."
        )
    words = [t["content"] for t in added if t["single_word"]]
    if words:
        notes.append(
            f"{', '.join(map(repr, words[:5]))} are found only as whole words; llama.cpp finds "
            "them inside of words too."
        )
    prepends = any(part["type"] == "Prepend" for part in flat_parts(tokenizer_json["normalizer"]))
    normalized = [t["content"] for t in added if t["normalized"]]
    if normalized and prepends:
        notes.append(
            f"{', '.join(map(repr, normalized[:5]))} are found only behind a blank; llama.cpp finds "
            "them everywhere. Add such tokens with `AddedToken(..., normalized=False)`."
        )
    return notes
