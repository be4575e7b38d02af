"""The Modelfile with which `ollama create` takes a GGUF file: template, stop tokens, sampling.

Knows tokenizers and generation settings; reads no weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.data.rendering import Renderer
from tunebook.errors import TemplateInvalid
from tunebook.export.go_template import build

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

# names of transformers and what Ollama calls them
_SAMPLING = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
}


@dataclass(frozen=True)
class Modelfile:
    """A Modelfile.

    Attributes:
        text: all of it.
        template: the Go template in it; None if there is none that could be built.
        notes: in what it differs from the model's own chat template; they stand in the text too.
    """

    text: str
    template: str | None
    notes: list[str]

    def __str__(self) -> str:
        return self.text


def modelfile(
    gguf: str | Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    num_ctx: int | None = None,
    generation: GenerationConfig | None = None,
    system: str = "",
) -> Modelfile:
    """The Modelfile for a GGUF file.

    Args:
        gguf: its file name; the Modelfile lies beside it. Of a model that sees, that of its
            projector file too.
        tokenizer: with the chat template that the model was trained with.
        num_ctx: tokens of context that Ollama keeps; None leaves Ollama's own default.
        generation: sampling settings and end tokens of the model.
        system: a system message for chats that bring none.
    """
    template, notes = _template(tokenizer)
    lines = [f"# {note}" for note in notes]
    lines += [f"FROM ./{name}" for name in ([gguf] if isinstance(gguf, str) else gguf)]
    if template is not None:
        lines.append(f'TEMPLATE """{template}"""')
    if system:
        lines.append(f"SYSTEM {_quoted(system)}")
    lines += [f"PARAMETER stop {_quoted(token)}" for token in stop_tokens(tokenizer, generation)]
    if num_ctx:
        lines.append(f"PARAMETER num_ctx {num_ctx}")
    for name, theirs in _SAMPLING.items():
        value = getattr(generation, name, None)
        if value is not None and getattr(generation, "do_sample", False):
            lines.append(f"PARAMETER {theirs} {value}")
    return Modelfile("\n".join(lines) + "\n", template, notes)


def write_modelfile(
    folder: Path, gguf: str | Sequence[str], tokenizer: PreTrainedTokenizerBase, **options: Any
) -> Modelfile:
    """Write `Modelfile` into a folder, beside the GGUF file in it; see `modelfile`."""
    made = modelfile(gguf, tokenizer, **options)
    (folder / "Modelfile").write_text(made.text, encoding="utf-8")
    return made


def stop_tokens(
    tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig | None = None
) -> list[str]:
    """The texts at which an answer ends: of the template, the tokenizer and the generation settings."""
    texts = []
    with suppress(TemplateInvalid):  # then the end tokens alone must do
        texts.append(Renderer(tokenizer).end_of_turn)
    texts.append(str(tokenizer.eos_token or ""))
    ids = getattr(generation, "eos_token_id", None)
    for token in ids if isinstance(ids, list) else [ids]:
        if token is not None:
            text = tokenizer.convert_ids_to_tokens(token)
            texts.append(text if isinstance(text, str) else "")
    return [text for text in dict.fromkeys(texts) if text.strip() and "\n" not in text]


def _template(tokenizer: PreTrainedTokenizerBase) -> tuple[str | None, list[str]]:
    try:
        renderer = Renderer(tokenizer)
        built = build(renderer.render, shows_tools=renderer.shows_tools)
    except TemplateInvalid as error:
        return None, [f"No template: {' '.join(error.why.split())}"]
    turns = built.turns
    if adds_start(tokenizer):
        turns = turns.without_start(str(tokenizer.bos_token))
    return turns.go(today=built.today), built.notes


def adds_start(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer, and llama.cpp with it, puts the start token before every text."""
    start = tokenizer.bos_token_id
    return start is not None and list(tokenizer("a")["input_ids"])[:1] == [start]


def _quoted(text: str) -> str:
    return f'"{text}"' if '"' not in text and "\n" not in text else f'"""{text}"""'
