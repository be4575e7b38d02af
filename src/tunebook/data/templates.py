"""Chat templates by name, and how a tokenizer gets one: our own Jinja files and their stop tokens.

This module sets templates; it renders nothing, and never rewrites a tokenizer's files.
"""

from __future__ import annotations

import copy
import difflib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tunebook.data.examples import quoted
from tunebook.data.sandbox import program
from tunebook.errors import TemplateInvalid

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tunebook.recipe import Recipe

_FOLDER = Path(__file__).parent / "templates"
_GENERATION = re.compile(r"\{%(-?)\s*(?:end)?generation\s*(-?)%\}")
OWN = "tunebook"


@dataclass(frozen=True)
class ChatTemplate:
    """One named template: `file` in our folder, `stop` the token that ends a turn.

    A `stop` of None means the tokenizer's own end-of-sequence token; a `file` of None means the
    tokenizer's own template. `prelude` is Jinja that goes in front of the file.
    """

    name: str
    title: str
    file: str | None
    stop: str | None = None
    aliases: tuple[str, ...] = ()
    prelude: str = ""

    @property
    def text(self) -> str | None:
        """The Jinja text with `{% generation %}` marks around what the assistant says."""
        return None if self.file is None else self.prelude + _read(self.file)


@cache
def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8").rstrip("\n")


_TODAY = "{%- set date_string = date_string or strftime_now('%d %b %Y') -%}"
_THINKS = "{%- set enable_thinking = enable_thinking | default(true) -%}"
_IM, _EOT, _GEMMA = "<|im_end|>", "<|eot_id|>", "<end_of_turn>"

TEMPLATES: tuple[ChatTemplate, ...] = (
    ChatTemplate(OWN, "The model's own", None, None, ("own", "default")),
    ChatTemplate("chatml", "ChatML", "chatml.jinja", _IM, ("chat-ml", "hermes")),
    ChatTemplate("yi-chat", "Yi Chat", "chatml.jinja", _IM, ("yi",)),
    ChatTemplate("llama-3", "Llama 3", "llama-3.jinja", _EOT, ("llama3",)),
    ChatTemplate(
        "llama-3.1",
        "Llama 3.1 and 3.3",
        "llama-3.1.jinja",
        _EOT,
        ("llama-31", "llama-3.3", "llama-33"),
    ),
    ChatTemplate(
        "llama-3.2",
        "Llama 3.2 (writes today's date)",
        "llama-3.1.jinja",
        _EOT,
        ("llama-32",),
        _TODAY,
    ),
    ChatTemplate("llama", "Llama 2", "llama-2.jinja", None, ("llama-2",)),
    ChatTemplate(
        "qwen-2.5",
        "Qwen 2.5",
        "qwen-2.5.jinja",
        _IM,
        ("qwen-25", "qwen25", "qwen2.5"),
    ),
    ChatTemplate(
        "qwen-2.5-coder",
        "Qwen 2.5 Coder",
        "qwen-2.5.jinja",
        _IM,
        ("qwen-25-coder", "qwen25-coder", "qwen2.5-coder"),
    ),
    ChatTemplate("qwen-3", "Qwen 3", "qwen-3.jinja", _IM, ("qwen3",)),
    ChatTemplate(
        "qwen3-instruct",
        "Qwen 3 Instruct 2507",
        "qwen-3-instruct.jinja",
        _IM,
        ("qwen-3-instruct",),
    ),
    ChatTemplate(
        "qwen3-thinking",
        "Qwen 3 Thinking 2507",
        "qwen-3-thinking.jinja",
        _IM,
        ("qwen-3-thinking",),
    ),
    ChatTemplate("gemma", "Gemma 1 and 2", "gemma.jinja", _GEMMA, ("gemma2", "gemma-2")),
    ChatTemplate("gemma-3", "Gemma 3", "gemma-3.jinja", _GEMMA, ("gemma3",)),
    ChatTemplate("gemma-3n", "Gemma 3n", "gemma-3.jinja", _GEMMA, ("gemma3n",)),
    ChatTemplate("gemma-4", "Gemma 4", "gemma-4.jinja", "<turn|>", ("gemma4",)),
    ChatTemplate(
        "gemma-4-thinking",
        "Gemma 4, asked to think",
        "gemma-4.jinja",
        "<turn|>",
        ("gemma4-thinking",),
        _THINKS,
    ),
    ChatTemplate(
        "gemma_chatml",
        "ChatML for Gemma",
        "bos-chatml.jinja",
        _IM,
        ("gemma2_chatml",),
    ),
    ChatTemplate("gpt-oss", "gpt-oss (harmony)", "gpt-oss.jinja", "<|return|>", ("gptoss",)),
    ChatTemplate("mistral", "Mistral 7B Instruct", "mistral.jinja", None, ("mistral-7b",)),
    ChatTemplate("phi-3.5", "Phi 3 and 3.5", "phi-3.5.jinja", "<|end|>", ("phi-3", "phi-35")),
    ChatTemplate("phi-4", "Phi 4", "phi-4.jinja", _IM),
    ChatTemplate("lfm-2", "LFM2", "lfm-2.jinja", _IM, ("lfm2",)),
    ChatTemplate("lfm-2.5", "LFM2.5", "lfm-2.5.jinja", _IM, ("lfm2.5",)),
    ChatTemplate(
        "starling",
        "Starling and OpenChat 3.5",
        "starling.jinja",
        "<|end_of_turn|>",
        ("openchat",),
    ),
    ChatTemplate("alpaca", "Alpaca", "alpaca.jinja"),
    ChatTemplate("zephyr", "Zephyr", "zephyr.jinja"),
    ChatTemplate("vicuna", "Vicuna 1.1 and 1.5", "vicuna.jinja"),
    ChatTemplate("vicuna_old", "Vicuna 0", "vicuna-old.jinja", None, ("vicuna old",)),
    ChatTemplate("unsloth", "Plain marks >>> User and >>> Assistant", "unsloth.jinja"),
)
# Every name and alias, so that tutorials' spellings are there.
CHAT_TEMPLATES: dict[str, ChatTemplate] = {
    name: entry for entry in TEMPLATES for name in (entry.name, *entry.aliases)
}


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


def with_recipe_template(
    tokenizer: PreTrainedTokenizerBase, recipe: Recipe
) -> PreTrainedTokenizerBase:
    """The tokenizer with `recipe.model.chat_template` set; itself if nothing needs to change."""
    name = recipe.model.chat_template
    if not name:
        return tokenizer
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
