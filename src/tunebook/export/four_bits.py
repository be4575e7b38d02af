"""Weights in NF4 with double quantization, as bitsandbytes packs them and transformers loads them.

Dettmers et al. 2023 (QLoRA): blocks of 64 values, whose scales are quantized to 8 bit in blocks of 256.
Knows tensors and the configuration of transformers, and no files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_BLOCK, _BLOCK_OF_SCALES = 64, 256
BYTES = 0.5 + 1 / _BLOCK + 4 / (_BLOCK * _BLOCK_OF_SCALES)
"""Of one value, without the small tables of each tensor."""


def packed(name: str, weight: torch.Tensor, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """A matrix as the tensors that a checkpoint holds for it, on the CPU.

    Args:
        name: such as `model.layers.0.mlp.up_proj.weight`.
        weight: (out, in), floating point; rounded once, from what is given.
        dtype: that it gets when it is dequantized.
    """
    from bitsandbytes.functional import quantize_4bit

    data, state = quantize_4bit(
        weight.contiguous(), blocksize=_BLOCK, compress_statistics=True, quant_type="nf4"
    )
    state.dtype = dtype
    parts = {f"{name}.{key}": value.cpu() for key, value in state.as_dict(packed=True).items()}
    return {name: data.cpu(), **parts}


def quantization_config(dtype: torch.dtype, in_16_bit: list[str]) -> dict[str, Any]:
    """What `config.json` says so that transformers and vLLM load the weights as they are.

    Args:
        dtype: of the arithmetic.
        in_16_bit: full names of the linear layers that are not quantized.
    """
    from transformers import BitsAndBytesConfig

    configure: Any = BitsAndBytesConfig
    config = configure(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=in_16_bit,
    )
    values: dict[str, Any] = config.to_dict()
    return values
