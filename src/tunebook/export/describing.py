"""What a header or a configuration says, in the words and figures that a person looks for.

Knows the keys of GGUF, PEFT and transformers; reads no file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tunebook.export.headers import Array, Header, Tensor
from tunebook.words import count_text

_LONGEST = 2_000  # characters of a value that are shown


@dataclass(frozen=True)
class Entry:
    """A line of metadata as text."""

    key: str
    type: str
    text: str


def gguf_facts(header: Header) -> list[tuple[str, str]]:
    """Of a GGUF header."""
    values = header.values
    family = values.get("general.architecture", "")
    prefix = "clip.vision" if family == "clip" else family
    tokens = values.get("tokenizer.ggml.tokens")
    found = {
        "Architecture": family,
        "Projector": values.get("clip.projector_type"),
        "Quantization": _file_type(values.get("general.file_type")),
        "Parameters": count_text(sum(tensor.elements for tensor in header.tensors)),
        "Layers": values.get(f"{prefix}.block_count"),
        "Width": values.get(f"{prefix}.embedding_length"),
        "Context": values.get(f"{family}.context_length"),
        "Vocabulary": tokens.count if isinstance(tokens, Array) else None,
        "Licence": values.get("general.license"),
    }
    return _facts(found)


def adapter_facts(config: dict[str, Any], tensors: list[Tensor]) -> list[tuple[str, str]]:
    """Of an `adapter_config.json` as PEFT writes it, and the adapter's tensors."""
    kind = str(config.get("peft_type") or "").replace("LORA", "LoRA")
    return _facts(
        {
            "Kind": f"{kind}, DoRA" if config.get("use_dora") else kind,
            "Base model": config.get("base_model_name_or_path"),
            "Rank": config.get("r"),
            "Alpha": config.get("lora_alpha"),
            "Targets": _listed(config.get("target_modules"), in_order=False),
            "Parameters": count_text(sum(tensor.elements for tensor in tensors)),
        }
    )


def model_facts(config: dict[str, Any], tensors: list[Tensor]) -> list[tuple[str, str]]:
    """Of a model's `config.json` and its tensors; of the text part where there are several."""
    text = config.get("text_config")
    inner = {**config, **text} if isinstance(text, dict) else config
    return _facts(
        {
            "Architecture": _listed(config.get("architectures")),
            "Parameters": count_text(sum(tensor.elements for tensor in tensors)),
            "Layers": inner.get("num_hidden_layers"),
            "Width": inner.get("hidden_size"),
            "Context": inner.get("max_position_embeddings"),
            "Vocabulary": inner.get("vocab_size"),
        }
    )


def _facts(found: dict[str, Any]) -> list[tuple[str, str]]:
    """What is known of it, as text."""
    known = {label: value for label, value in found.items() if value not in (None, "")}
    return [(label, _cut(_text(value))) for label, value in known.items()]


def _listed(value: Any, *, in_order: bool = True) -> Any:
    """A list of names as one text; anything else as it is."""
    if not isinstance(value, list):
        return value
    names = [str(name) for name in value]
    return ", ".join(names if in_order else sorted(names))


def entries(values: Iterable[tuple[str, str, Any]]) -> tuple[Entry, ...]:
    """Lines of metadata from key, type and value."""
    return tuple(Entry(_cut(key), kind, _cut(_text(value))) for key, kind, value in values)


def kind_of(value: Any) -> str:
    """The name that JSON has for the type of a value."""
    names = {str: "string", bool: "bool", int: "integer", float: "number", list: "array"}
    return names.get(type(value), "object" if isinstance(value, dict) else "null")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Array):
        more = ", …" if value.count > len(value.sample) else ""
        words = ", ".join(_cut(_text(item), 60) for item in value.sample)
        return f"{value.count:,} × {value.type}: {words}{more}" if value.count else "empty"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return json.dumps(value, ensure_ascii=False)
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else f"{value:.6g}"


def _cut(text: str, longest: int = _LONGEST) -> str:
    return text if len(text) <= longest else f"{text[:longest]} … ({len(text):,} characters)"


def _file_type(number: Any) -> str:
    """The mix of quantization types by llama.cpp's own name, such as Q4_K_M."""
    from gguf.constants import LlamaFileType

    try:
        return LlamaFileType(number).name.removeprefix("MOSTLY_").removeprefix("ALL_")
    except ValueError:
        return ""
