"""What the tokens that are no text are for: where an answer ends, what is put around a text.

Knows tokenizers and their chat templates; knows nothing of GGUF's keys.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunebook.data.rendering import Renderer
from tunebook.data.sandbox import program
from tunebook.errors import TemplateInvalid

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The spellings that llama.cpp itself looks for, by the part of its key.
_FILL_IN_THE_MIDDLE = {
    "pre": ("<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>"),
    "suf": ("<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>"),
    "mid": ("<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>"),
    "pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>"),
    "rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "sep": ("<|file_sep|>",),
}
_LOOKS_CONTROL = re.compile(r"<\|[\w -]+\|>|<｜[\w▁ -]+｜>")
# Whatever the file says, llama.cpp ends an answer at these, and never shows them.
_ENDS = {
    *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>"),
    *("<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]"),
    *("<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "[e~["),
    "<｜end▁of▁sentence｜>",
}
# These it always shows, as gpt-oss's own parser needs them.
SHOWN = {"<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"}
_FORCED = _ENDS.union(*_FILL_IN_THE_MIDDLE.values())


@dataclass(frozen=True)
class Around:
    """What a tokenizer puts around a text that is no conversation."""

    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class TurnEnd:
    """How the chat template lets an answer end: the text, and the token if it is one."""

    text: str
    token: int | None


def around_text(tokenizer: PreTrainedTokenizerBase) -> Around:
    """The ids that the tokenizer's post-processor puts before and after a text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    found = (i for i in range(len(full)) if full[i : i + len(bare)] == bare)
    start = next(found, 0)
    return Around(tuple(full[:start]), tuple(full[start + len(bare) :]))


def turn_end(tokenizer: PreTrainedTokenizerBase) -> TurnEnd | None:
    """What the model learnt to say when its answer is over; None if no template tells."""
    if not tokenizer.chat_template:
        return None
    try:
        text = Renderer(tokenizer).end_of_turn
    except TemplateInvalid:
        return None
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    added = set(tokenizer.get_added_vocab().values())
    return TurnEnd(text, ids[0] if ids and ids[0] in added else None)


def opening(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """A short conversation by the chat template; None if there is none, or it refuses."""
    if not tokenizer.chat_template:
        return None
    try:
        return Renderer(tokenizer).render([{"role": "user", "content": "a"}])
    except TemplateInvalid:
        return None


def changes_with(tokenizer: PreTrainedTokenizerBase, **variables: Any) -> bool:
    """Whether a variable that llama-server gives every template makes it ask otherwise."""
    if not any(name in str(tokenizer.chat_template) for name in variables):
        return False
    question = [{"role": "user", "content": "a"}]
    names = dict(tokenizer.special_tokens_map)
    try:
        template = program(tokenizer.get_chat_template())
        plain, changed = (
            template.render(question, names | more, generation_prompt=True)[0]
            for more in ({}, variables)
        )
    except TemplateInvalid:
        return False
    return plain != changed


def fill_in_the_middle(vocabulary: dict[str, int]) -> dict[str, int]:
    """Ids by `pre`, `suf`, `mid`, `pad`, `rep`, `sep`, of those that the vocabulary has."""
    found = {}
    for part, spellings in _FILL_IN_THE_MIDDLE.items():
        ids = [vocabulary[spelling] for spelling in spellings if spelling in vocabulary]
        if ids:
            found[part] = ids[0]
    return found


def is_control(content: str, *, special: bool) -> bool:
    """Whether an added token steers and is never shown.

    Some tokenizers leave `special` off tokens such as `<|fim_prefix|>`. llama.cpp takes those that
    it knows for control tokens anyway, and its converter does so with all that look like them.

    Args:
        special: what tokenizer.json says of it.
    """
    looks = content in _FORCED or _LOOKS_CONTROL.fullmatch(content)
    return special or bool(looks)


def swallows_blanks_as_phi3(added: list[dict[str, Any]]) -> bool:
    """Whether blanks behind special tokens vanish just as llama.cpp lets them for Phi-3.

    GGUF has no place for `rstrip`. llama.cpp sets it by a rule of its own, for models whose name
    contains "phi-3" or "phi3": on every added token but `<unk>`, `<s>` and `<|endoftext|>`.
    """
    wanted = {t["content"] for t in added} - {"<unk>", "<s>", "<|endoftext|>"}
    has = {t["content"] for t in added if t["rstrip"]}
    return "</s>" in has and has == wanted
