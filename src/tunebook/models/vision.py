"""What kind of vision-language model this is: told from its config, its towers found, its processor loaded.

Nothing here needs torch until a model or a processor is asked for; knows no pictures and no data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunebook.errors import ModelInvalid

if TYPE_CHECKING:
    from torch import nn
    from transformers import ProcessorMixin

    from tunebook.recipe import ModelPart

_VISION = ("visual", "vision_tower", "vision_model")
_LANGUAGE = ("language_model", "text_model")
_PROJECTOR = ("visual.merger", "multi_modal_projector", "connector")


@dataclass(frozen=True)
class Towers:
    """Where the parts of a vision-language model are: dotted names within the base model."""

    vision: str
    language: str
    projector: str | None
    """What turns patches into tokens; of Qwen's models a part of the vision tower."""

    def of(self, path: str) -> str | None:
        """`vision`, `language` or `projector`: the part that a module belongs to; None of no part."""
        if path.startswith(f"{self.vision}.deepstack_merger_list."):  # more of them, in Qwen3-VL
            return "projector"
        for part in ("projector", "vision", "language"):
            prefix = getattr(self, part)
            if prefix is not None and (path == prefix or path.startswith(f"{prefix}.")):
                return part
        return None


def is_vision(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is that of a model that takes pictures."""
    return isinstance(config.get("vision_config"), Mapping)


def towers(model: nn.Module) -> Towers:
    """The towers of a loaded vision-language model, with or without an adapter.

    Raises:
        ModelInvalid: the model has no such parts.
    """
    wrapped: Any = model
    base = wrapped.get_base_model() if hasattr(wrapped, "get_base_model") else model
    inner = getattr(base, "model", base)
    prefix = "" if inner is base else "model."
    names = {name for name, _ in inner.named_modules()}
    vision, language, projector = (
        next((prefix + name for name in known if name in names), None)
        for known in (_VISION, _LANGUAGE, _PROJECTOR)
    )
    if vision is None or language is None:
        raise ModelInvalid(
            f"The model {type(base).__name__} has no two towers.",
            f"none of its parts is called {', '.join(_VISION if vision is None else _LANGUAGE)}.",
            "take a vision-language model such as Qwen2.5-VL, Gemma 3, Llama 3.2 Vision or SmolVLM.",
        )
    return Towers(vision, language, projector)


def has_towers(model: nn.Module) -> bool:
    """Whether a loaded model takes pictures."""
    return getattr(getattr(model, "config", None), "vision_config", None) is not None


def load_processor(part: ModelPart, *, token: str | None = None) -> ProcessorMixin:
    """What turns pictures and text into a model's inputs, with a padding token set.

    Pictures are read by Pillow; videos are not read.

    Args:
        part: which model, or the folder of an adapter that was saved with its processor.
        token: for private hub models; used here and kept nowhere.

    Raises:
        TokenizerMissing, ModelMissing: see `load_tokenizer`.
        ModelInvalid: the model has no processor, or one that cannot be loaded.
    """
    from tunebook.models.processors import read_processor

    return read_processor(part, token=token)
