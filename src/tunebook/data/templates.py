"""Chat templates by name, and how a tokenizer gets one: our own Jinja files and their stop tokens.

This module sets templates; it renders nothing, and never rewrites a tokenizer's files.
"""

from __future__ import annotations

import copy
import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.data.examples import quoted
from tunebook.data.names import CHAT_TEMPLATES, TEMPLATES, ChatTemplate
from tunebook.data.sandbox import program
from tunebook.errors import TemplateInvalid

__all__ = [
    "CHAT_TEMPLATES",
    "TEMPLATES",
    "ChatTemplate",
    "chosen_text",
    "compiled",
    "find_template",
    "get_chat_template",
    "no_template",
    "with_recipe_template",
    "without_generation_marks",
]

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tunebook.recipe import Recipe

_GENERATION = re.compile(r"\{%(-?)\s*(?:end)?generation\s*(-?)%\}")


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_BY_KEY = {_key(name): entry for name, entry in CHAT_TEMPLATES.items()}


def find_template(name: str) -> ChatTemplate:
    """The template of a name or alias; case, dots and dashes do not matter.

    Raises:
        TemplateInvalid: listing names that are near.
    """
    entry = _BY_KEY.get(_key(name))
    if entry is None:
        near = difflib.get_close_matches(_key(name), _BY_KEY, n=3, cutoff=0.5)
        names = list(dict.fromkeys(_BY_KEY[key].name for key in near)) or ["chatml"]
        raise TemplateInvalid(
            f"There is no chat template named {name!r}.",
            f"known are {', '.join(entry.name for entry in TEMPLATES)}.",
            f"did you mean {', '.join(f'`{item}`' for item in names)}? Jinja text works too.",
        )
    return entry


def get_chat_template(
    tokenizer: PreTrainedTokenizerBase,
    chat_template: str | tuple[str, str] = "chatml",
    mapping: dict[str, str] | None = None,
    map_eos_token: bool = True,
    system_message: str | None = None,
) -> PreTrainedTokenizerBase:
    """A copy of the tokenizer that speaks the template; the tokenizer given stays as it is.

    Args:
        chat_template: a name of `CHAT_TEMPLATES`, a `.jinja` file, Jinja text, or `(text, stop)`.
        mapping: keys of other conversations, such as
            `{"role": "from", "content": "value", "user": "human", "assistant": "gpt"}`; messages
            with `role` and `content` are understood as well.
        map_eos_token: make the template's stop token the end-of-sequence token, if the vocabulary
            has it as one token.
        system_message: put in front of conversations that have no system message.

    Raises:
        TemplateInvalid: unknown name, or text that is not Jinja.
    """
    text, stop = _resolve(tokenizer, chat_template)
    prelude = _mapping_prelude(mapping) + _system_prelude(system_message)
    result = _twin(tokenizer)
    result.chat_template = compiled(prelude + text)
    if map_eos_token and stop is not None and _is_token(result, stop):
        result.eos_token = stop
    return result


def with_recipe_template(tokenizer: Any, recipe: Recipe) -> Any:
    """The tokenizer or processor with `recipe.model.chat_template` set; itself if nothing changes."""
    name = recipe.model.chat_template
    if not name:
        return tokenizer
    if hasattr(tokenizer, "image_processor"):
        words = with_recipe_template(tokenizer.tokenizer, recipe)
        processor = copy.copy(tokenizer)
        processor.tokenizer, processor.chat_template = words, words.chat_template
        return processor
    text, stop = _resolve(tokenizer, name)
    wanted_eos = stop is None or tokenizer.eos_token == stop or not _is_token(tokenizer, stop)
    if tokenizer.chat_template == text and wanted_eos:
        return tokenizer
    return get_chat_template(tokenizer, name)


def _twin(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A tokenizer with settings of its own over the same vocabulary.

    A deep copy would write and read the whole vocabulary: seconds for a large one.
    """
    twin = copy.copy(tokenizer)
    for name, value in vars(tokenizer).items():
        if isinstance(value, dict | list | set):
            setattr(twin, name, copy.copy(value))
    return twin


def _is_token(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    """Whether the vocabulary has `text` as one token."""
    index = tokenizer.convert_tokens_to_ids(text)
    return text == tokenizer.unk_token or index not in (None, tokenizer.unk_token_id)


def compiled(text: str) -> str:
    """The same text, proved to be Jinja.

    Raises:
        TemplateInvalid: naming the line that is not.
    """
    program(text)
    return text


def without_generation_marks(text: str) -> str:
    """The template for programs that do not know `{% generation %}`; it renders the same."""
    return _GENERATION.sub(r"{#\1 \2#}", text)


def _resolve(
    tokenizer: PreTrainedTokenizerBase, chat_template: str | tuple[str, str]
) -> tuple[str, str | None]:
    """Jinja text and stop token."""
    if isinstance(chat_template, tuple):
        return chat_template
    if "{%" in chat_template or "{{" in chat_template:
        return chat_template, None
    if chat_template.endswith(".jinja") and Path(chat_template).is_file():
        return Path(chat_template).read_text(encoding="utf-8"), None
    entry = find_template(chat_template)
    if entry.text is not None:
        return entry.text, entry.stop
    if not isinstance(tokenizer.chat_template, str):
        raise no_template()
    return tokenizer.chat_template, None


def chosen_text(tokenizer: PreTrainedTokenizerBase, chosen: str) -> str:
    """The Jinja text that a name, a file or Jinja text means.

    Raises:
        TemplateInvalid: no template has that name, or the tokenizer has none of its own.
    """
    return _resolve(tokenizer, chosen)[0]


def no_template() -> TemplateInvalid:
    """The error for a tokenizer that has no template."""
    return TemplateInvalid(
        "The model has no chat template.",
        "its tokenizer does not say how a conversation becomes text.",
        'set `model.chat_template`, for example to "chatml".',
    )


def _mapping_prelude(mapping: dict[str, str] | None) -> str:
    """Jinja that turns `from`/`value` messages into `role`/`content` ones before all else."""
    if not mapping:
        return ""
    role, content = quoted(mapping.get("role", "role")), quoted(mapping.get("content", "content"))
    names = {mapping.get(name, name): name for name in ("system", "user", "assistant")}
    table = "{" + ", ".join(f"{quoted(old)}: {quoted(new)}" for old, new in names.items()) + "}"
    return (
        "{%- set mapped = namespace(messages=[], roles=" + table + ") -%}"
        "{%- for message in messages -%}"
        f"{{%- set said = message[{role}] if {role} in message else message['role'] -%}}"
        f"{{%- set text = message[{content}] if {content} in message else message['content'] -%}}"
        "{%- set mapped.messages = mapped.messages + "
        "[{'role': mapped.roles.get(said, said), 'content': text}] -%}"
        "{%- endfor -%}{%- set messages = mapped.messages -%}"
    )


def _system_prelude(system_message: str | None) -> str:
    if system_message is None:
        return ""
    return (
        "{%- if messages[0]['role'] != 'system' -%}{%- set messages = "
        f"[{{'role': 'system', 'content': {quoted(system_message)}}}] + messages -%}}"
        "{%- endif -%}"
    )
