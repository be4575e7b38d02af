"""Processors of vision-language models with Pillow alone, where transformers wants torchvision.

The classes are those of transformers under their own names, so that what they save loads with
transformers anywhere. They read pictures and text; the settings of a video part are kept and saved
again, but no video is read. Knows no model and no data.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoImageProcessor
from transformers.models.auto import processing_auto
from transformers.processing_utils import ProcessorMixin
from transformers.utils.hub import PushToHubMixin, cached_file

from tunebook.errors import ImagesUnsupported, ModelInvalid
from tunebook.models.loading import load_tokenizer, resolve_words
from tunebook.models.quiet import quiet
from tunebook.recipe import ModelPart


class VideoSettings(PushToHubMixin):
    """Stands where a video processor would: keeps its settings for saving, and reads no video."""

    _auto_class = None
    model_input_names: tuple[str, ...] = ()

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = dict(settings)

    def to_dict(self) -> dict[str, Any]:
        """The settings as they were read."""
        return dict(self.settings)

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Refuse.

        Raises:
            ImagesUnsupported: always.
        """
        raise ImagesUnsupported(
            "A conversation holds a video.",
            "Tunebook fine-tunes on text and pictures; it reads no video.",
            "leave that row out, or give some frames of the video as pictures.",
        )


class _WithoutVideos(ProcessorMixin):
    """Lets `VideoSettings` pass for a video processor."""

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        if argument_name == "video_processor" and isinstance(argument, VideoSettings):
            return VideoSettings
        inherited: Any = super()
        return inherited.check_argument_for_proper_class(argument_name, argument)


class Qwen2VLProcessor(_WithoutVideos, transformers.Qwen2VLProcessor):
    """Of Qwen2-VL, without videos."""


class Qwen2_5_VLProcessor(_WithoutVideos, transformers.Qwen2_5_VLProcessor):
    """Of Qwen2.5-VL, without videos."""


class Qwen3VLProcessor(_WithoutVideos, transformers.Qwen3VLProcessor):
    """Of Qwen3-VL, without videos."""


class SmolVLMProcessor(_WithoutVideos, transformers.SmolVLMProcessor):
    """Of SmolVLM, without videos, and so without the package that spells the numbers of their frames."""

    def __init__(
        self,
        image_processor: Any,
        tokenizer: Any,
        video_processor: Any,
        image_seq_len: int = 169,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.fake_image_token = getattr(tokenizer, "fake_image_token", "<fake_token_around_image>")
        self.image_token = getattr(tokenizer, "image_token", "<image>")
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.end_of_utterance_token = getattr(
            tokenizer, "end_of_utterance_token", "<end_of_utterance>"
        )
        self.global_image_token = getattr(tokenizer, "global_image_token", "<global-img>")
        self.image_seq_len = image_seq_len
        self.video_token = getattr(tokenizer, "video_token", "<video>")
        common: Any = ProcessorMixin
        common.__init__(
            self, image_processor, tokenizer, video_processor, chat_template=chat_template, **kwargs
        )

    def apply_chat_template(self, *args: Any, **kwargs: Any) -> Any:
        """As every processor does it; SmolVLM's own adds the arguments of videos."""
        return ProcessorMixin.apply_chat_template(self, *args, **kwargs)


class PixtralProcessor(ProcessorMixin):
    """Of Pixtral and Mistral 3: rows of picture tokens, each ended by a break, the last by an end."""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        patch_size: int = 16,
        spatial_merge_size: int = 1,
        chat_template: str | None = None,
        image_token: str = "[IMG]",
        image_break_token: str = "[IMG_BREAK]",
        image_end_token: str = "[IMG_END]",
        **_: Any,
    ) -> None:
        inherited: Any = super()
        inherited.__init__(image_processor, tokenizer, chat_template=chat_template)
        self.patch_size, self.spatial_merge_size = patch_size, spatial_merge_size
        self.image_token, self.image_break_token = image_token, image_break_token
        self.image_end_token = image_end_token
        self.image_token_id = tokenizer.convert_tokens_to_ids(image_token)
        self.image_break_token_id = tokenizer.convert_tokens_to_ids(image_break_token)
        self.image_end_token_id = tokenizer.convert_tokens_to_ids(image_end_token)

    @property
    def image_token_ids(self) -> list[int | None]:  # type: ignore[misc]
        """Of everything that stands for a picture in a text."""
        return [self.image_token_id, self.image_break_token_id, self.image_end_token_id]

    @property
    def model_input_names(self) -> list[str]:
        """Of the tokenizer and the pictures."""
        pictures = self.image_processor.model_input_names
        return list(dict.fromkeys([*self.tokenizer.model_input_names, *pictures, "image_sizes"]))

    def _process_images(self, images: Any, **kwargs: Any) -> Any:
        kwargs["patch_size"] = self._cell
        return super()._process_images(images, **kwargs)

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **_: Any) -> str:
        """The text of one picture from its size after resizing."""
        height, width = image_inputs["image_sizes"][image_idx]
        row = self.image_token * (int(width) // self._cell)
        rows = [row] * (int(height) // self._cell)
        return self.image_break_token.join(rows) + self.image_end_token

    @property
    def _cell(self) -> int:
        """Pixels along one side of what one token stands for."""
        return self.patch_size * self.spatial_merge_size


_OURS = {
    kind.__name__: kind
    for kind in (
        Qwen2VLProcessor,
        Qwen2_5_VLProcessor,
        Qwen3VLProcessor,
        SmolVLMProcessor,
        PixtralProcessor,
    )
}


# transformers up to 5.17 hides them where torchvision is missing, which they do not use
_SAID_TO_NEED_MORE = {
    "Idefics3ImageProcessorPil": "idefics3",
    "SmolVLMImageProcessorPil": "smolvlm",
}


def read_processor(part: ModelPart, *, token: str | None = None) -> ProcessorMixin:
    """See `tunebook.models.vision.load_processor`."""
    tokenizer = load_tokenizer(part, token=token)
    location = resolve_words(part.name).location
    where: dict[str, Any] = {"revision": part.revision, "token": token}
    name = _class_name(location, where)
    kind = _OURS.get(name) or getattr(transformers, name, None)
    try:
        with quiet():
            if kind is None:
                chooses: Any = processing_auto.AutoProcessor
                made = chooses.from_pretrained(
                    location, trust_remote_code=part.trust_remote_code, **where
                )
            else:
                made = _made(kind, location, tokenizer, part.trust_remote_code, where)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ModelInvalid(
            f"The processor of {part.name} could not be loaded.",
            f"{type(error).__name__}: {error}",
            "check that preprocessor_config.json lies beside the model's config.json.",
        ) from error
    if not hasattr(made, "image_processor"):
        raise ModelInvalid(
            f"The model {part.name} has no processor of pictures.",
            "its folder holds no preprocessor_config.json and no processor_config.json.",
            "save the processor into the model's folder with `processor.save_pretrained(folder)`.",
        )
    processor: ProcessorMixin = made
    return processor


def _made(
    kind: Any, location: str, tokenizer: Any, trust_remote_code: bool, where: dict[str, Any]
) -> ProcessorMixin:
    """A processor of its parts, each read by what reads it without torchvision."""
    settings, _ = kind.get_processor_dict(location, **where)
    parts: list[Any] = []
    for part in kind.get_attributes():
        if part == "tokenizer":
            parts.append(tokenizer)
        elif part == "image_processor":
            own = settings.get(part) or _json(location, "preprocessor_config.json", where)
            reader = _picture_reader(str(own.get("image_processor_type") or ""))
            parts.append(
                reader.from_pretrained(location, trust_remote_code=trust_remote_code, **where)
            )
        else:
            own = _json(
                location, f"{part.removesuffix('_processor')}_preprocessor_config.json", where
            )
            parts.append(VideoSettings(settings.get(part) or own or {}))
    made: ProcessorMixin = kind.from_args_and_dict(parts, settings)
    return made


def _picture_reader(name: str) -> Any:
    """The class that reads pictures with Pillow; transformers' own choice where it has none."""
    pillow = f"{name.removesuffix('Fast').removesuffix('Pil')}Pil"
    if pillow in _SAID_TO_NEED_MORE:
        family = _SAID_TO_NEED_MORE[pillow]
        module = importlib.import_module(
            f"transformers.models.{family}.image_processing_pil_{family}"
        )
        return getattr(module, pillow)
    return getattr(transformers, pillow, AutoImageProcessor)


def _class_name(location: str, where: dict[str, Any]) -> str:
    for file in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        if name := _json(location, file, where).get("processor_class"):
            return str(name)
    kind = _json(location, "config.json", where).get("model_type", "")
    names: Any = processing_auto
    return str(names.PROCESSOR_MAPPING_NAMES.get(kind) or "")


def _json(location: str, file: str, where: dict[str, Any]) -> dict[str, Any]:
    """A small file beside the model; empty if there is none."""
    path = cached_file(location, file, _raise_exceptions_for_missing_entries=False, **where)
    if path is None:
        return {}
    values: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return values
