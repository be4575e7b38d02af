"""Which linear layers of a 4-bit checkpoint had better stay in 16 bit, for a size of the whole.

The same estimate of what rounding costs that chooses the types of a dynamic GGUF file, for NF4. Knows
models; writes nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tunebook.errors import FileInvalid, RecipeInvalid
from tunebook.export import four_bits
from tunebook.export.gguf.tensors import FileTensor, Source
from tunebook.export.merge import in_16_bit, rounded_weights
from tunebook.export.weights import Weight, merged_weights

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from tunebook.export.gguf.importance import Importance


def four_bit_skips(
    model: Any,
    importance: Importance,
    *,
    size: int | str | None = None,
    bits: float | None = None,
) -> list[str]:
    """Names of the layers to keep, for bitsandbytes' `llm_int8_skip_modules` and `save_merged`.

    Example:
        >>> tensors = linear_tensors(model)  # doctest: +SKIP
        >>> importance = measure_importance(model, tensors, rows)  # doctest: +SKIP
        >>> keep = four_bit_skips(model, importance, bits=6)  # doctest: +SKIP
        >>> save_merged(model, tokenizer, "out", method="merged_4bit", keep=keep)  # doctest: +SKIP

    Args:
        importance: with gradients, measured on `linear_tensors`, or on a GGUF file's tensors.
        size: of the checkpoint's weights in bytes, or a text such as "5GB".
        bits: a weight, of everything; one of the two.

    Returns:
        Full dotted names in the model's order; the output head is always one.

    Raises:
        RecipeInvalid: neither size nor bits, or both, or less than everything in 4 bit.
        FileInvalid: the importance has no gradients, or is another model's.
    """
    from tunebook.export.gguf.knapsack import choose
    from tunebook.export.gguf.rounding_error import estimated_errors

    base = model.get_base_model() if hasattr(model, "peft_config") else model
    weights = merged_weights(base)
    tensors = linear_tensors(model)
    importance = _by_weight(importance, base)
    importance.require_fits(tensors)
    if not importance.has_gradients:
        raise FileInvalid(
            "These importance data do not tell which layers matter.",
            "they hold the inputs' mean squares alone, and no gradients.",
            "measure them with `measure_importance`.",
        )
    linear = {tensor.name for tensor in tensors}
    rest = sum(2 * w.elements for w in weights if w.name not in linear)
    small = [int(w.elements * four_bits.BYTES) for w in weights if w.name in linear]
    large = [2 * w.elements for w in weights if w.name in linear]
    limit = _limit(size, bits, sum(w.elements for w in weights))
    errors = [estimated_errors(tensor, ["NF4"], importance, _rounded)["NF4"] for tensor in tensors]
    chosen = choose(
        [(error, 0.0) for error in errors], list(zip(small, large, strict=True)), limit - rest
    )
    if chosen is None:
        raise RecipeInvalid(
            "The model does not become that small.",
            f"{limit:,} bytes are asked for, and with every linear layer in 4 bit it has "
            f"{rest + sum(small):,}.",
            "ask for more, or take a smaller model.",
        )
    small_ones = {tensor.name for tensor, one in zip(tensors, chosen, strict=True) if one == 0}
    return in_16_bit(base, weights, small_ones)


def linear_tensors(model: Any) -> list[FileTensor]:
    """The matrices that a 4-bit checkpoint rounds: of linear layers, all but the output head."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    return [_tensor(weight) for weight in rounded_weights(base, merged_weights(base))]


def _tensor(weight: Weight) -> FileTensor:
    holder: Any = weight.holder
    source = Source(weight, None, lambda rows: rows)
    shape = (holder.out_features, holder.in_features)
    return FileTensor(weight.name, shape, lambda: weight.value().float(), source)


def _by_weight(importance: Importance, base: PreTrainedModel) -> Importance:
    """Under the names and with the rows of the model, if it is by those of a GGUF file."""
    import torch

    from tunebook.export.gguf.architectures import architecture_of
    from tunebook.export.gguf.tensors import file_tensors

    if not any(name.startswith("blk.") for name in importance.tensors):
        return importance
    tensors = {}
    architecture, text = architecture_of(base.config)
    for tensor in file_tensors(base, architecture, text):
        moments = importance.tensors.get(tensor.name)
        if tensor.source is None or len(tensor.shape) != 2 or moments is None:
            continue
        rows = moments.rows
        if rows is not None:
            places = tensor.source.turn(torch.arange(rows.shape[1]))
            rows = torch.empty_like(rows).index_copy_(1, places, rows)
        tensors[tensor.source.weight.name] = replace(moments, rows=rows)
    return replace(importance, tensors=tensors)


def _limit(size: int | str | None, bits: float | None, elements: int) -> int:
    if (size is None) == (bits is None):
        raise RecipeInvalid(
            "The size of the checkpoint is not clear.",
            "exactly one of `size` and `bits` is needed.",
            "set bits=6, or size='5GB'.",
        )
    if bits is not None:
        return int(bits * elements / 8)
    from accelerate.utils import convert_file_size_to_int

    return int(convert_file_size_to_int(size.upper() if isinstance(size, str) else size))


def _rounded(weight: torch.Tensor, _: str, __: torch.Tensor | None) -> torch.Tensor:
    """As it comes back from NF4."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    data, state = quantize_4bit(
        weight.contiguous(), blocksize=64, compress_statistics=True, quant_type="nf4"
    )
    found: torch.Tensor = dequantize_4bit(data, state)
    return found.float()
