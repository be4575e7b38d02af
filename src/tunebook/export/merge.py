"""Write a tuned model with its adapter folded into the weights, in 16 bit or in 4 bit.

Goes tensor by tensor to files that are filled as they come, so neither the model nor a file of it is
held twice; the live model is not changed and can train on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from tunebook.errors import ModelInvalid
from tunebook.export import four_bits
from tunebook.export.adapter import new_folder, save_adapter
from tunebook.export.progress import Progress
from tunebook.export.shards import SHARD_BYTES, ShardWriter
from tunebook.export.weights import Weight, as_stored, is_tied, merged_tensors, merged_weights
from tunebook.recipe import Recipe

__all__ = ["SaveMethod", "merged_tensors", "save_merged"]

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SaveMethod = Literal["merged_16bit", "merged_4bit", "lora"]
_ALIASES = {"merged_4bit_forced": "merged_4bit", "16bit": "merged_16bit", "adapter": "lora"}


def save_merged(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase | None,
    folder: Path | str,
    *,
    method: str = "merged_16bit",
    recipe: Recipe | None = None,
    replace: bool = False,
    progress: Progress | None = None,
    shard_bytes: int = SHARD_BYTES,
    keep: Sequence[str] = (),
) -> Path:
    """Write a whole model (`merged_16bit`, `merged_4bit`) or the adapter alone (`lora`).

    Args:
        model: a PEFT model, or a plain one (then its weights are written as they are).
        tokenizer: saved beside it, chat template included; None saves none.
        folder: must not exist, or be empty, unless `replace`.
        method: a `SaveMethod`. "merged_4bit" quantizes the linear layers, all but the output head,
            to NF4 with double quantization after merging: smaller, and no longer exactly the model
            that was trained. "merged_4bit_forced" is another name for it.
        recipe: saved as `recipe.yaml` if given.
        replace: whether model files in a folder that exists are replaced; other files there stay.
        progress: told of the bytes of the tensors.
        shard_bytes: most bytes of one file.
        keep: names of linear layers that "merged_4bit" leaves in 16 bit, see `four_bit_skips`.

    Raises:
        FolderExists, DiskFull, Cancelled: see `save_adapter`.
        ModelInvalid: unknown method, `lora` on a model without an adapter, or a weight that is NaN.
    """
    folder = Path(folder)
    method = _method(method)
    adapted = hasattr(model, "peft_config")
    if method == "lora":
        if not adapted:
            raise ModelInvalid(
                "There is no adapter to save.",
                "the model carries no LoRA.",
                "add one with `get_peft_model`, or save with save_method='merged_16bit'.",
            )
        return save_adapter(
            cast("PeftModel", model),
            tokenizer,
            folder,
            recipe=recipe,
            replace=replace,
            progress=progress,
        )
    base: Any = model.get_base_model() if adapted else model  # type: ignore[operator]
    dtype = _storage_dtype(base)
    weights = merged_weights(base)
    small: set[str] = set()
    if method == "merged_4bit":
        small = {w.name for w in rounded_weights(base, weights)} - {
            f"{name}.weight" for name in keep
        }
    size = int(sum(w.elements * (four_bits.BYTES if w.name in small else 2) for w in weights))
    progress = progress or Progress()
    progress.begin(size)
    spared = size + 16 * 2**20
    with new_folder(folder, spared, purpose="the merged model", replace=replace) as temporary:
        expected = len(weights) + 5 * len(small)
        with ShardWriter(temporary, shard_bytes=shard_bytes, expected=expected) as shards:
            for name, tensor in _tensors(base, weights, small, dtype):
                progress.add(shards.add(name, tensor))
        _write_config(base, temporary, dtype, in_16_bit(base, weights, small) if small else None)
        progress.finish()
        if tokenizer is not None:
            tokenizer.save_pretrained(str(temporary))
        if recipe is not None:
            recipe.save(temporary / "recipe.yaml")
    return folder


def _method(name: str) -> str:
    known = get_args(SaveMethod)
    method = name.strip().lower().replace(" ", "_")
    method = _ALIASES.get(method, method)
    if method not in known:
        raise ModelInvalid(
            f"There is no save method {name!r}.",
            f"known are {', '.join(repr(item) for item in known)}.",
            "choose one of them; for llama.cpp and Ollama use `save_pretrained_gguf`.",
        )
    return method


def rounded_weights(base: PreTrainedModel, weights: list[Weight]) -> list[Weight]:
    """The matrices that 4 bit are for: all of linear layers but the output head."""
    from torch import nn

    head: Any = base.get_output_embeddings()  # type: ignore[no-untyped-call]
    whole = {id(part) for part in head.modules()} if isinstance(head, nn.Module) else set()
    return [w for w in weights if w.is_linear and id(w.holder) not in whole]


def in_16_bit(base: PreTrainedModel, weights: list[Weight], small: set[str]) -> list[str]:
    """Linear layers that stay in 16 bit, the head among them even where it is tied."""
    kept = [w.name.removesuffix(".weight") for w in weights if w.is_linear and w.name not in small]
    head: Any = base.get_output_embeddings()  # type: ignore[no-untyped-call]
    names = [name for name, module in base.named_modules() if module is head]
    return [*kept, *(name for name in names if name not in kept)]


def _tensors(
    base: PreTrainedModel, weights: list[Weight], small: set[str], dtype: torch.dtype
) -> Iterator[tuple[str, torch.Tensor]]:
    """What is written, under the names that the architecture's checkpoints have."""
    plain = (weight for weight in weights if weight.name not in small)
    yield from _as_published(base, ((w.name, as_stored(w, dtype)) for w in plain))
    for weight in weights:
        if weight.name in small:
            yield from four_bits.packed(weight.name, weight.value(), dtype).items()


def _as_published(
    base: PreTrainedModel, tensors: Iterable[tuple[str, torch.Tensor]]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors under their published names: transformers stores experts, for one, otherwise in memory.

    The tensors of one module are turned at a time.
    """
    from transformers.core_model_loading import revert_weight_conversion

    group: dict[str, Any] = {}
    place = ""
    for name, tensor in tensors:
        owner = name.rsplit(".", 2)[0]
        if group and owner != place:
            yield from revert_weight_conversion(base, group).items()
            group = {}
        place = owner
        group[name] = tensor
    if group:
        yield from revert_weight_conversion(base, group).items()


def _storage_dtype(base: PreTrainedModel) -> torch.dtype:
    import torch

    saved = getattr(base.config, "dtype", None)
    return torch.float16 if saved == torch.float16 else torch.bfloat16


def _write_config(
    base: PreTrainedModel, folder: Path, dtype: torch.dtype, in_16_bit: list[str] | None
) -> None:
    """`config.json` for what was written.

    Args:
        in_16_bit: names of layers if the others are in 4 bit; None if nothing is quantized.
    """
    import copy

    config: Any = copy.deepcopy(base.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    if in_16_bit is not None:
        config.quantization_config = four_bits.quantization_config(dtype, in_16_bit)
    if getattr(config, "tie_word_embeddings", False):
        config.tie_word_embeddings = is_tied(base)
    config.dtype = dtype
    config.save_pretrained(str(folder))
    if base.generation_config is not None:
        base.generation_config.save_pretrained(str(folder))
