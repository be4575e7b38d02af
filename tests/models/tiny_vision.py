"""Vision-language models so small that a test makes them on the spot: config, weights and processor files.

Every family has its own architecture, with the sizes of its picture rule (patches, tiles, merging)
scaled down; weights are random, the tokenizer knows bytes and the family's special tokens.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedTokenizerFast

FAMILIES = (
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "gemma3",
    "mllama",
    "pixtral",
    "mistral3",
    "llava_next",
    "smolvlm",
    "idefics3",
)

HIDDEN = 64
"""Of the language tower."""
VISION = 32
"""Of the vision tower."""
LAYERS = 2
"""Of each tower; of Llama's language tower twice as many."""

_TEXT: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": 96,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "initializer_range": 0.1,
}
_TOWER: dict[str, Any] = {
    "hidden_size": VISION,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "initializer_range": 0.1,
}
_QWEN_TOWER: dict[str, Any] = {
    "depth": LAYERS,
    "hidden_size": VISION,
    "num_heads": 2,
    "initializer_range": 0.1,
}

_CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_QWEN = (*_CHATML, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_GEMMA = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
_GEMMA_IMAGE = ("<start_of_image>", "<end_of_image>", "<image_soft_token>")
_LLAMA = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_LLAMA_REST = (
    "<|finetune_right_pad_id|>",
    "<|python_tag|>",
    "<|image|>",
)  # the picture's comes last
_MISTRAL = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "<pad>")
_PIXTRAL = (*_MISTRAL, "[IMG]", "[IMG_BREAK]", "[IMG_END]")
_LLAVA = (*_MISTRAL, "<image>")
_IDEFICS = (
    *_CHATML,
    "<image>",
    "<fake_token_around_image>",
    "<global-img>",
    "<end_of_utterance>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
)
SPECIAL_TOKENS: dict[str, tuple[str, ...]] = {
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
    "qwen3_vl": _QWEN,
    "gemma3": (*_GEMMA, *_GEMMA_IMAGE),
    "mllama": (*_LLAMA, *_LLAMA_REST),
    "pixtral": _PIXTRAL,
    "mistral3": _PIXTRAL,
    "llava_next": _LLAVA,
    "smolvlm": _IDEFICS,
    "idefics3": _IDEFICS,
}
_ROLES: dict[str, tuple[str | None, str, str]] = {  # start, end and padding of the text
    "qwen": (None, "<|im_end|>", "<|endoftext|>"),
    "gemma": ("<bos>", "<eos>", "<pad>"),
    "mllama": ("<|begin_of_text|>", "<|eot_id|>", "<|finetune_right_pad_id|>"),
    "mistral": ("<s>", "</s>", "<pad>"),
    "idefics": ("<|im_start|>", "<end_of_utterance>", "<|endoftext|>"),
}

_QWEN_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content -%}
{%- if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>
{%- elif part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}
"""
_GEMMA_TEMPLATE = """\
{{ bos_token }}{%- for message in messages -%}
<start_of_turn>{{ 'model' if message.role == 'assistant' else message.role }}
{% if message.content is string %}{{ message.content | trim }}{% else %}{% for part in message.content -%}
{%- if part.type == 'image' %}<start_of_image>
{%- elif part.type == 'text' %}{{ part.text | trim }}{% endif %}{% endfor %}{% endif %}<end_of_turn>
{% endfor -%}
{%- if add_generation_prompt %}<start_of_turn>model
{% endif -%}
"""
_LLAMA_TEMPLATE = """\
{{ bos_token }}{%- for message in messages -%}
<|start_header_id|>{{ message.role }}<|end_header_id|>

{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content -%}
{%- if part.type == 'image' %}<|image|>
{%- elif part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|eot_id|>
{%- endfor -%}
{%- if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif -%}
"""
_MISTRAL_TEMPLATE = """\
{{ bos_token }}{%- for message in messages -%}
{%- if message.role == 'user' %}[INST]{% endif -%}
{%- if message.content is string %}{{ message.content }}{% else %}{% for part in message.content -%}
{%- if part.type == 'image' %}IMAGE
{%- elif part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{% endif -%}
{{ '[/INST]' if message.role == 'user' else eos_token }}
{%- endfor -%}
"""
_IDEFICS_TEMPLATE = """\
<|im_start|>{% for message in messages %}{{ message.role | capitalize }}
{%- if message.content is string %}: {{ message.content }}{% else -%}
{{ ':' if message.content[0].type == 'image' else ': ' }}
{%- for part in message.content -%}
{%- if part.type == 'image' %}<image>
{%- elif part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<end_of_utterance>
{% endfor -%}
{%- if add_generation_prompt %}Assistant:{% endif -%}
"""

_CLIP_PIXELS = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_HALF_PIXELS = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


def tiny_vision(
    family: str,
    folder: Path,
    *,
    tokenizer: Path | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    **more: Any,
) -> Path:
    """Write a model folder as the hub has it for this family; returns it.

    Args:
        family: one of `FAMILIES`.
        folder: is made.
        tokenizer: folder of a real tokenizer, to which the family's special tokens are added; None
            makes one of bytes.
        seed: of the weights.
        dtype: of the weights.
        more: replaces values of the model's config, see `tiny_config`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = tiny_tokenizer(family, tokenizer)
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(tiny_config(family, words, **more), dtype=dtype)
    for name, parameter in model.named_parameters():
        # made as zeros, which would hide the pictures: Llama's gates, Gemma's projection
        if ("gate" in name and parameter.numel() == 1) or name.endswith("input_projection_weight"):
            torch.nn.init.normal_(parameter, 0.5 if parameter.numel() == 1 else 0.0, 0.1)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(_template(family), encoding="utf-8")
    for name, values in _processor_files(family).items():
        (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return folder


def tiny_batch(
    processor: Any, *, text: str = "A cat.", rows: int = 1, seed: int = 0
) -> dict[str, Any]:
    """What a model of `tiny_vision` learns from: a noisy picture each, asked about; the answer's labels.

    Args:
        processor: the model's own.
        text: the answer of every row.
        rows: conversations, each with a picture of its own and of another size.
        seed: of the pictures.
    """
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(seed)
    sizes = [(90 + 20 * row, 60) for row in range(rows)]
    pictures = [
        Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for width, height in sizes
    ]
    asked = {
        "role": "user",
        "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}],
    }
    told = {"role": "assistant", "content": [{"type": "text", "text": text}]}
    whole = processor.apply_chat_template([asked, told], tokenize=False)
    processor.tokenizer.padding_side = "right"
    batch = processor(
        text=[whole] * rows,
        images=[[picture] for picture in pictures],
        return_tensors="pt",
        padding=True,
    )
    end = processor.tokenizer(text + processor.tokenizer.eos_token, add_special_tokens=False)
    labels = torch.full_like(batch["input_ids"], -100)
    for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        # the answer and its end token, and what a template may put behind it
        start = length - len(end["input_ids"]) - (1 if whole.endswith("\n") else 0)
        labels[row, start:length] = batch["input_ids"][row, start:length]
    return {**batch, "labels": labels}


def tiny_tokenizer(family: str, folder: Path | None = None) -> PreTrainedTokenizerFast:
    """One token a byte and the family's special tokens behind them, or a real one with these added."""
    if folder is None:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        bytes_only = Tokenizer(models.BPE({char: i for i, char in enumerate(alphabet)}, []))
        bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bytes_only.decoder = decoders.ByteLevel()
        words = PreTrainedTokenizerFast(tokenizer_object=bytes_only)
    else:
        from transformers import AutoTokenizer

        words = AutoTokenizer.from_pretrained(str(folder))
    tokens = [AddedToken(name, special=True, normalized=False) for name in SPECIAL_TOKENS[family]]
    words.add_tokens(tokens, special_tokens=True)
    words.bos_token, words.eos_token, words.pad_token = _roles(family)
    if family == "gemma3":
        words._set_model_specific_special_tokens(
            {
                "boi_token": "<start_of_image>",
                "eoi_token": "<end_of_image>",
                "image_token": "<image_soft_token>",
            }
        )
    return words


def tiny_config(family: str, tokenizer: PreTrainedTokenizerFast, **more: Any) -> Any:
    """The config of a small model of the family for this tokenizer.

    Args:
        more: values that replace others; `text_config` and `vision_config` are merged into.
    """
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL_TOKENS[family]}
    kind, values = _config(family, ids)
    text = values["text_config"]
    text["vocab_size"] = ids["<|image|>"] if family == "mllama" else len(tokenizer)
    text["pad_token_id"] = tokenizer.pad_token_id
    text["bos_token_id"] = tokenizer.bos_token_id
    text["eos_token_id"] = tokenizer.eos_token_id
    for part in ("text_config", "vision_config"):
        values[part] = {**values[part], **more.pop(part, {})}
    return AutoConfig.for_model(kind, **{**values, **more})


def _roles(family: str) -> tuple[str | None, str, str]:
    for name, roles in _ROLES.items():
        if family.startswith(name):
            return roles
    return _ROLES["idefics" if family == "smolvlm" else "mistral"]


def _template(family: str) -> str:
    if family.startswith("qwen"):
        return _QWEN_TEMPLATE
    if family in ("smolvlm", "idefics3"):
        return _IDEFICS_TEMPLATE
    if family in ("gemma3", "mllama"):
        return _GEMMA_TEMPLATE if family == "gemma3" else _LLAMA_TEMPLATE
    return _MISTRAL_TEMPLATE.replace("IMAGE", "<image>\n" if family == "llava_next" else "[IMG]")


def _config(family: str, ids: dict[str, int]) -> tuple[str, dict[str, Any]]:
    """`model_type` and the values of the config."""
    if family.startswith("qwen"):
        return family, _qwen_config(family, ids)
    if family == "gemma3":
        return family, {
            "text_config": {
                **_TEXT,
                "sliding_window": 16,
                "layer_types": ["sliding_attention", "full_attention"],
                "query_pre_attn_scalar": 16,
            },
            "vision_config": {
                **_TOWER,
                "model_type": "siglip_vision_model",
                "image_size": 56,
                "patch_size": 14,
                "vision_use_head": False,
            },
            "mm_tokens_per_image": 4,
            "boi_token_index": ids["<start_of_image>"],
            "eoi_token_index": ids["<end_of_image>"],
            "image_token_index": ids["<image_soft_token>"],
        }
    if family == "mllama":
        text = {**_TEXT, "num_hidden_layers": 2 * LAYERS, "cross_attention_layers": [1, 3]}
        del text["head_dim"]
        return family, {
            "text_config": text,
            "vision_config": {
                "hidden_size": VISION,
                "intermediate_size": 64,
                "num_hidden_layers": LAYERS,
                "num_global_layers": 1,
                "attention_heads": 2,
                "intermediate_layers_indices": [0],
                "vision_output_dim": 2 * VISION,
                "image_size": 56,
                "patch_size": 14,
                "initializer_range": 0.1,
            },
            "image_token_index": ids["<|image|>"],
        }
    if family in ("pixtral", "mistral3"):
        merging = {"spatial_merge_size": 2} if family == "mistral3" else {}
        patch = 14 if family == "mistral3" else 16
        tower = {**_TOWER, "model_type": "pixtral", "patch_size": patch, "image_size": 8 * patch}
        return "llava" if family == "pixtral" else family, {
            "text_config": {**_TEXT, "model_type": "mistral", "sliding_window": None},
            "vision_config": {**tower, "head_dim": VISION // 2},
            "image_token_index": ids["[IMG]"],
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
            "multimodal_projector_bias": family == "pixtral",
            "tie_word_embeddings": False,
            **merging,
        }
    if family == "llava_next":
        return family, {
            "text_config": {**_TEXT, "model_type": "mistral", "sliding_window": None},
            "vision_config": {
                **_TOWER,
                "model_type": "clip_vision_model",
                "num_hidden_layers": LAYERS + 1,  # the last is not looked at
                "image_size": 56,
                "patch_size": 14,
                "projection_dim": VISION,
            },
            "image_token_index": ids["<image>"],
            "image_grid_pinpoints": [[56, 112], [112, 56], [112, 112]],
            "image_seq_length": 16,
        }
    return family, {
        "text_config": {**_TEXT, "model_type": "llama"},
        "vision_config": {**_TOWER, "image_size": 64, "patch_size": 16},
        "image_token_id": ids["<image>"],
        "scale_factor": 2,
        "pad_token_id": ids["<|endoftext|>"],
    }


def _qwen_config(family: str, ids: dict[str, int]) -> dict[str, Any]:
    tower = {**_QWEN_TOWER, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}
    sections = {"mrope_section": [2, 3, 3]}
    if family == "qwen2_vl":
        tower |= {"embed_dim": VISION, "hidden_size": HIDDEN, "mlp_ratio": 2}
    elif family == "qwen2_5_vl":
        tower |= {"intermediate_size": 64, "out_hidden_size": HIDDEN}
        tower |= {"window_size": 56, "fullatt_block_indexes": [1]}
    else:
        sections = {"mrope_section": [4, 2, 2], "mrope_interleaved": True}
        tower |= {"intermediate_size": 64, "out_hidden_size": HIDDEN, "patch_size": 16}
        tower |= {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    text = {**_TEXT}
    if family != "qwen3_vl":
        del text["head_dim"]
    rope = {"rope_type": "default", "rope_theta": 1e6, **sections}
    return {
        "text_config": {**text, "rope_parameters": rope},
        "vision_config": tower,
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": False,
    }


def _processor_files(family: str) -> dict[str, dict[str, Any]]:
    """The JSON files of the processor by name."""
    name, picture, processor = _pictures(family)
    files = {"preprocessor_config.json": {**picture, "processor_class": name}}
    if family.startswith("qwen") or family == "smolvlm":
        video = {"SmolVLMProcessor": "SmolVLM", "Qwen3VLProcessor": "Qwen3VL"}.get(name, "Qwen2VL")
        kept = {k: v for k, v in picture.items() if not k.startswith(("image_processor", "max_"))}
        kept |= {"video_processor_type": f"{video}VideoProcessor", "processor_class": name}
        if family == "smolvlm":
            kept |= {"video_sampling": {"fps": 1, "max_frames": 4, "video_size": picture["size"]}}
        files["video_preprocessor_config.json"] = kept
    files["processor_config.json"] = {**processor, "processor_class": name}
    return files


def _pictures(family: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Class of the processor, settings of its picture part, and of the processor itself."""
    if family.startswith("qwen"):
        patch = 16 if family == "qwen3_vl" else 14
        name = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL"}[family]
        pixels = _HALF_PIXELS if family == "qwen3_vl" else _CLIP_PIXELS
        picture = {
            "image_processor_type": "Qwen2VLImageProcessor",
            "size": {"shortest_edge": 4 * (2 * patch) ** 2, "longest_edge": 64 * (2 * patch) ** 2},
            "patch_size": patch,
            "temporal_patch_size": 2,
            "merge_size": 2,
            **pixels,
        }
        return f"{name}Processor", picture, {}
    if family == "gemma3":
        picture = {
            "image_processor_type": "Gemma3ImageProcessor",
            "size": {"height": 56, "width": 56},
            "resample": 2,
            "image_seq_length": 4,
            **_HALF_PIXELS,
        }
        return "Gemma3Processor", picture, {"image_seq_length": 4}
    if family == "mllama":
        picture = {
            "image_processor_type": "MllamaImageProcessor",
            "size": {"height": 56, "width": 56},
            "max_image_tiles": 4,
            **_CLIP_PIXELS,
        }
        return "MllamaProcessor", picture, {}
    if family in ("pixtral", "mistral3"):
        patch = 14 if family == "mistral3" else 16
        picture = {
            "image_processor_type": "PixtralImageProcessor",
            "size": {"longest_edge": 8 * patch},
            "patch_size": {"height": patch, "width": patch},
            **_CLIP_PIXELS,
        }
        merging = {"spatial_merge_size": 2} if family == "mistral3" else {}
        return "PixtralProcessor", picture, {"patch_size": patch, **merging}
    if family == "llava_next":
        picture = {
            "image_processor_type": "LlavaNextImageProcessor",
            "size": {"shortest_edge": 56},
            "crop_size": {"height": 56, "width": 56},
            "image_grid_pinpoints": [[56, 112], [112, 56], [112, 112]],
            **_CLIP_PIXELS,
        }
        processor = {
            "patch_size": 14,
            "vision_feature_select_strategy": "default",
            "num_additional_image_tokens": 1,
            "image_token": "<image>",
        }
        return "LlavaNextProcessor", picture, processor
    kind = "SmolVLM" if family == "smolvlm" else "Idefics3"
    picture = {
        "image_processor_type": f"{kind}ImageProcessor",
        "size": {"longest_edge": 256},
        "max_image_size": {"longest_edge": 64},
        "do_image_splitting": True,
        **_HALF_PIXELS,
    }
    return f"{kind}Processor", picture, {"image_seq_len": 4}
