"""Random Llama models at published shapes, written once in 4 bit, and what they are trained on.

Knows shapes, bitsandbytes' file format and numbers; knows no trainer.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEED = 3407
RANK = 16
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_SPECIAL = {0: "<|begin_of_text|>", 1: "<|end_of_text|>", 4: "<|finetune_right_pad_id|>"}
_SPECIALS = 256  # ids at the end of Llama 3's vocabulary
_ADAPTER = re.compile(r"layers\.(\d+)\.\w+\.(\w+)\.lora_([AB])\.")


@dataclass(frozen=True)
class Size:
    """A Llama; the sizes of Llama 3.2 1B and 3B, Llama 3.1 8B, and one for a CPU."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool
    rope_factor: float
    vocabulary: int = 128256

    def linears(self) -> dict[str, tuple[int, int]]:
        """Shape of each weight in a decoder layer, by the name of its module."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "self_attn.q_proj": (q, self.hidden),
            "self_attn.k_proj": (kv, self.hidden),
            "self_attn.v_proj": (kv, self.hidden),
            "self_attn.o_proj": (self.hidden, q),
            "mlp.gate_proj": (self.intermediate, self.hidden),
            "mlp.up_proj": (self.intermediate, self.hidden),
            "mlp.down_proj": (self.hidden, self.intermediate),
        }


SIZES = {
    "tiny": Size(128, 256, 2, 4, 2, 32, True, 32.0, 1024),
    "1b": Size(2048, 8192, 16, 32, 8, 64, True, 32.0),
    "3b": Size(3072, 8192, 28, 24, 8, 128, True, 32.0),
    "8b": Size(4096, 14336, 32, 32, 8, 128, False, 8.0),
}


def checkpoint_folder(root: Path, name: str) -> Path:
    """Where `write_checkpoint` puts a size."""
    return root / f"llama-{name}-nf4"


def write_checkpoint(root: Path, name: str) -> None:
    """Write a size's weights in NF4 (double quantization), a tokenizer and a config; once.

    Every weight is drawn and quantized on the device by itself, so that nothing large is ever held
    in 16 bit; the file holds the state dict that a model loaded in 4 bit has.
    """
    import torch
    from safetensors.torch import save_file

    folder = checkpoint_folder(root, name)
    if folder.is_dir():
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    unfinished = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    tensors = {key: value.cpu().contiguous() for key, value in _weights(SIZES[name], device)}
    save_file(tensors, unfinished / "model.safetensors", metadata={"format": "pt"})
    _tokenizer(SIZES[name]).save_pretrained(unfinished)
    config = json.dumps(_config(SIZES[name], _dtype(device)), indent=2)
    (unfinished / "config.json").write_text(config)
    unfinished.rename(folder)


def token_rows(name: str, count: int, length: int) -> list[list[int]]:
    """`count` rows of `length` token ids with Zipf's frequencies, so that there is something to learn."""
    import numpy as np

    words = SIZES[name].vocabulary - _SPECIALS
    weights = 1.0 / np.arange(3, words + 3)
    random = np.random.default_rng([SEED, length])
    ranks = random.choice(words, size=(count, length), p=weights / weights.sum())
    ids = np.random.default_rng(SEED).permutation(words)[ranks]
    ids[:, 0] = words  # begin of text
    rows: list[list[int]] = ids.tolist()
    return rows


def same_adapter(model: Any) -> str:
    """Give every peer the same adapter: A by the layer's name, B zero. Returns the adapter's dtype.

    Raises:
        RuntimeError: something else is trainable, or an adapter is missing.
    """
    import torch

    seen, kinds = 0, set()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        found = _ADAPTER.search(name)
        if found is None:
            raise RuntimeError(f"{name} is trainable and no adapter")
        layer, linear, matrix = found.groups()
        values = torch.zeros(parameter.shape)
        if matrix == "A":
            random = torch.Generator().manual_seed(zlib.crc32(f"{layer} {linear}".encode()))
            bound = 1 / math.sqrt(parameter.shape[1])  # as PEFT draws it
            values.uniform_(-bound, bound, generator=random)
        with torch.no_grad():
            parameter.copy_(values)
        seen, kinds = seen + 1, kinds | {str(parameter.dtype).removeprefix("torch.")}
    expected = 2 * len(TARGETS) * model.config.num_hidden_layers
    if seen != expected:
        raise RuntimeError(f"{seen} adapter matrices where {expected} were expected")
    return "+".join(sorted(kinds))


def _weights(size: Size, device: str) -> Iterator[tuple[str, Any]]:
    """Names and tensors of the file."""
    import torch
    from bitsandbytes.functional import quantize_4bit

    random = torch.Generator(device).manual_seed(SEED)
    dtype = _dtype(device)

    def draw(*shape: int) -> torch.Tensor:
        weight = torch.empty(shape, device=device, dtype=dtype)
        return weight.normal_(std=0.02, generator=random)

    yield "model.embed_tokens.weight", draw(size.vocabulary, size.hidden)
    for number in range(size.layers):
        layer = f"model.layers.{number}"
        for module, shape in size.linears().items():
            packed, state = quantize_4bit(draw(*shape), compress_statistics=True, quant_type="nf4")
            yield f"{layer}.{module}.weight", packed
            for key, value in state.as_dict(packed=True).items():
                yield f"{layer}.{module}.weight.{key}", value
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{layer}.{norm}.weight", torch.ones(size.hidden, device=device, dtype=dtype)
    yield "model.norm.weight", torch.ones(size.hidden, device=device, dtype=dtype)
    if not size.tied:
        yield "lm_head.weight", draw(size.vocabulary, size.hidden)


def _dtype(device: str) -> Any:
    import torch

    return torch.bfloat16 if device == "cuda" else torch.float32


def _config(size: Size, dtype: Any) -> dict[str, Any]:
    from transformers import BitsAndBytesConfig, LlamaConfig

    config = LlamaConfig(
        architectures=["LlamaForCausalLM"],
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        head_dim=size.head_dim,
        vocab_size=size.vocabulary,
        max_position_embeddings=131072,
        rms_norm_eps=1e-5,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": size.rope_factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        tie_word_embeddings=size.tied,
        bos_token_id=size.vocabulary - _SPECIALS,
        eos_token_id=size.vocabulary - _SPECIALS + 1,
        pad_token_id=size.vocabulary - _SPECIALS + 4,
        dtype=dtype,
    )
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=["lm_head"],
    )
    return {**config.to_dict(), "quantization_config": quantization.to_dict()}


def _tokenizer(size: Size) -> Any:
    """Bytes, then names that stand for nothing: the trainers want a tokenizer as large as the model."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    first = size.vocabulary - _SPECIALS
    names = sorted(pre_tokenizers.ByteLevel.alphabet())
    names += [f"<|unused_{number}|>" for number in range(len(names), size.vocabulary)]
    for place, name in _SPECIAL.items():
        names[first + place] = name
    tokens = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocab=tokens, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    begin, end, pad = _SPECIAL.values()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=begin, eos_token=end, pad_token=pad
    )
