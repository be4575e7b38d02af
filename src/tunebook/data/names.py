"""Every chat template that has a name: its file, the token that ends a turn, its other spellings.

A table and nothing else; choosing, setting and rendering templates is done elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent / "templates"
OWN = "tunebook"


@dataclass(frozen=True)
class ChatTemplate:
    """One named template: `file` in our folder, `stop` the token that ends a turn.

    A `stop` of None means the tokenizer's own end-of-sequence token; a `file` of None means the
    tokenizer's own template. `prelude` is Jinja that goes in front of the file; `about` is a line
    for the docs.
    """

    name: str
    title: str
    file: str | None
    stop: str | None = None
    aliases: tuple[str, ...] = ()
    prelude: str = ""
    about: str = ""

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
    ChatTemplate(
        OWN,
        "The model's own",
        None,
        None,
        ("own", "default"),
        about="The template that comes with the model's tokenizer: what it was trained with.",
    ),
    ChatTemplate(
        "chatml",
        "ChatML",
        "chatml.jinja",
        _IM,
        ("chat-ml", "hermes"),
        about="`<|im_start|>role`, the text, `<|im_end|>`: the usual choice for a base model.",
    ),
    ChatTemplate(
        "yi-chat",
        "Yi Chat",
        "chatml.jinja",
        _IM,
        ("yi",),
        about="ChatML.",
    ),
    ChatTemplate(
        "llama-3",
        "Llama 3",
        "llama-3.jinja",
        _EOT,
        ("llama3",),
        about="Header marks around each role, texts without blanks at their ends.",
    ),
    ChatTemplate(
        "llama-3.1",
        "Llama 3.1 and 3.3",
        "llama-3.1.jinja",
        _EOT,
        ("llama-31", "llama-3.3", "llama-33"),
        about="As Llama 3, with a system turn that names dates; knows tools, one call a turn.",
    ),
    ChatTemplate(
        "llama-3.2",
        "Llama 3.2 (writes today's date)",
        "llama-3.1.jinja",
        _EOT,
        ("llama-32",),
        prelude=_TODAY,
        about="As Llama 3.1, with the date of the day on which it is rendered.",
    ),
    ChatTemplate(
        "llama",
        "Llama 2",
        "llama-2.jinja",
        None,
        ("llama-2",),
        about="`[INST]` around questions, `<<SYS>>` around the system text.",
    ),
    ChatTemplate(
        "qwen-2.5",
        "Qwen 2.5",
        "qwen-2.5.jinja",
        _IM,
        ("qwen-25", "qwen25", "qwen2.5"),
        about="ChatML with a system text of its own; knows tools.",
    ),
    ChatTemplate(
        "qwen-2.5-coder",
        "Qwen 2.5 Coder",
        "qwen-2.5.jinja",
        _IM,
        ("qwen-25-coder", "qwen25-coder", "qwen2.5-coder"),
        about="The same as Qwen 2.5.",
    ),
    ChatTemplate(
        "qwen-3",
        "Qwen 3",
        "qwen-3.jinja",
        _IM,
        ("qwen3",),
        about="ChatML; thoughts of answers before the last question are left out; knows tools.",
    ),
    ChatTemplate(
        "qwen3-instruct",
        "Qwen 3 Instruct 2507",
        "qwen-3-instruct.jinja",
        _IM,
        ("qwen-3-instruct",),
        about="As Qwen 3 without thoughts; knows tools.",
    ),
    ChatTemplate(
        "qwen3-thinking",
        "Qwen 3 Thinking 2507",
        "qwen-3-thinking.jinja",
        _IM,
        ("qwen-3-thinking",),
        about="As Qwen 3; a prompt opens the thought; knows tools.",
    ),
    ChatTemplate(
        "gemma",
        "Gemma 1 and 2",
        "gemma.jinja",
        _GEMMA,
        ("gemma2", "gemma-2"),
        about="`<start_of_turn>`; a system message opens the first question (the models' own refuses one).",
    ),
    ChatTemplate(
        "gemma-3",
        "Gemma 3",
        "gemma-3.jinja",
        _GEMMA,
        ("gemma3",),
        about="As Gemma 2, where a system message is known.",
    ),
    ChatTemplate(
        "gemma-3n",
        "Gemma 3n",
        "gemma-3.jinja",
        _GEMMA,
        ("gemma3n",),
        about="The same as Gemma 3, for text.",
    ),
    ChatTemplate(
        "gemma-4",
        "Gemma 4",
        "gemma-4.jinja",
        "<turn|>",
        ("gemma4",),
        about="`<|turn>` and `<turn|>`, a system turn; a prompt skips the thought; knows tools.",
    ),
    ChatTemplate(
        "gemma-4-thinking",
        "Gemma 4, asked to think",
        "gemma-4.jinja",
        "<turn|>",
        ("gemma4-thinking",),
        prelude=_THINKS,
        about="As Gemma 4; the system turn asks to think.",
    ),
    ChatTemplate(
        "gemma_chatml",
        "ChatML for Gemma",
        "bos-chatml.jinja",
        _IM,
        ("gemma2_chatml",),
        about="ChatML behind the start token.",
    ),
    ChatTemplate(
        "gpt-oss",
        "gpt-oss (harmony)",
        "gpt-oss.jinja",
        "<|return|>",
        ("gptoss",),
        about="Channels for thoughts, calls and answers; names today's date; knows tools.",
    ),
    ChatTemplate(
        "mistral",
        "Mistral 7B Instruct",
        "mistral.jinja",
        None,
        ("mistral-7b",),
        about="`[INST]` around questions; a system message opens the first one.",
    ),
    ChatTemplate(
        "phi-3.5",
        "Phi 3 and 3.5",
        "phi-3.5.jinja",
        "<|end|>",
        ("phi-3", "phi-35"),
        about="`<|user|>` and `<|end|>`.",
    ),
    ChatTemplate(
        "phi-4",
        "Phi 4",
        "phi-4.jinja",
        _IM,
        (),
        about="`<|im_start|>role<|im_sep|>`.",
    ),
    ChatTemplate(
        "lfm-2",
        "LFM2",
        "lfm-2.jinja",
        _IM,
        ("lfm2",),
        about="ChatML behind the start token; knows lists of tools.",
    ),
    ChatTemplate(
        "lfm-2.5",
        "LFM2.5",
        "lfm-2.5.jinja",
        _IM,
        ("lfm2.5",),
        about="As LFM2; only the last answer keeps its thoughts.",
    ),
    ChatTemplate(
        "starling",
        "Starling and OpenChat 3.5",
        "starling.jinja",
        "<|end_of_turn|>",
        ("openchat",),
        about="`GPT4 Correct User:` and `<|end_of_turn|>`.",
    ),
    ChatTemplate(
        "alpaca",
        "Alpaca",
        "alpaca.jinja",
        None,
        (),
        about="`### Instruction:` and `### Response:` in plain words.",
    ),
    ChatTemplate(
        "zephyr",
        "Zephyr",
        "zephyr.jinja",
        None,
        (),
        about="`<|user|>` and the end token.",
    ),
    ChatTemplate(
        "vicuna",
        "Vicuna 1.1 and 1.5",
        "vicuna.jinja",
        None,
        (),
        about="`USER:` and `ASSISTANT:` in plain words.",
    ),
    ChatTemplate(
        "vicuna_old",
        "Vicuna 0",
        "vicuna-old.jinja",
        None,
        ("vicuna old",),
        about="`### Human:` and `### Assistant:` in plain words.",
    ),
    ChatTemplate(
        "unsloth",
        "Plain marks >>> User and >>> Assistant",
        "unsloth.jinja",
        None,
        (),
        about="`>>> User:` and `>>> Assistant:` in plain words.",
    ),
)
# Every name and alias, so that tutorials' spellings are there.
CHAT_TEMPLATES: dict[str, ChatTemplate] = {
    name: entry for entry in TEMPLATES for name in (entry.name, *entry.aliases)
}
