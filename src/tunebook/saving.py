"""The saving and uploading methods that tutorials call, bound to one model: a thin face over `export`.

What a card tells of the training is taken from the trainer that trained the model last.
"""

from __future__ import annotations

import logging
import tempfile
import types
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunebook import export
from tunebook.export.card import Curve
from tunebook.export.shards import SHARD_BYTES
from tunebook.models.loading import portable_name
from tunebook.recipe import Recipe

logger = logging.getLogger(__name__)
_ROWS = 2048  # of the data, to measure importance on
_trainers: weakref.WeakKeyDictionary[Any, weakref.ref[Any]] = weakref.WeakKeyDictionary()


def with_saving(model: Any) -> Any:
    """The model itself, with methods that take the arguments known from tutorials."""
    for method in (
        save_pretrained_merged,
        save_pretrained_gguf,
        push_to_hub,
        push_to_hub_merged,
        push_to_hub_gguf,
    ):
        setattr(model, method.__name__, types.MethodType(method, model))
    return model


def remember(model: Any, trainer: Any) -> None:
    """Let a model's card tell what this trainer does; keeps neither of them alive."""
    if model is not None and not isinstance(model, str):
        _trainers[model] = weakref.ref(trainer)


def save_pretrained_merged(
    self: Any,
    save_directory: str | Path,
    tokenizer: Any = None,
    save_method: str = "merged_16bit",
    *,
    max_shard_size: int | str = SHARD_BYTES,
    replace: bool = False,
    **ignored: Any,
) -> Path:
    """Write the whole model with its adapter merged in, or the adapter alone.

    Args:
        save_directory: must not exist, or be empty, unless `replace`.
        save_method: "merged_16bit", "merged_4bit" (also "merged_4bit_forced") or "lora".
        max_shard_size: most bytes of one file, or a text such as "2GB".
        replace: whether model files in a folder that exists are replaced.

    Raises:
        FolderExists, DiskFull, ModelInvalid: see `tunebook.export.save_merged`.
    """
    _log_ignored("save_pretrained_merged", ignored)
    return export.save_merged(
        self,
        tokenizer,
        save_directory,
        method=save_method,
        replace=replace,
        shard_bytes=_bytes(max_shard_size),
    )


def save_pretrained_gguf(
    self: Any,
    save_directory: str | Path,
    tokenizer: Any = None,
    quantization_method: str | Sequence[str] = "fast_quantized",
    *,
    imatrix_file: str | Path | bool | None = None,
    bits: float | None = None,
    size: int | str | None = None,
    projector: str | None = None,
    replace: bool = False,
    progress: export.Progress | None = None,
    **ignored: Any,
) -> Path:
    """Write the model with its adapter merged in as GGUF, one file for each quantization.

    Args:
        tokenizer: of a model that sees, its processor; its vision tower gets a file of its own.
        save_directory: must not exist, or be empty, unless `replace`.
        quantization_method: one name such as "q4_k_m" or "dynamic", or several.
        imatrix_file: importance data; True or "auto" measures them on what was trained on.
        bits, size: of a "dynamic" file, see `tunebook.export.save_gguf`.
        projector: type of the file with the vision tower, see `tunebook.export.save_gguf`.
        replace: whether files of the same names are replaced; others in the folder stay.
        progress: told of the passes of measuring and of the bytes written; stops them.

    Raises:
        TunebookError: see `tunebook.export.save_gguf`.
    """
    _log_ignored("save_pretrained_gguf", ignored)
    return export.save_gguf(
        self,
        tokenizer,
        save_directory,
        quantization=quantization_method,
        importance="auto" if imatrix_file is True else imatrix_file or None,
        bits=bits,
        size=size,
        calibration=_trained_rows(self),
        projector=projector,
        replace=replace,
        progress=progress,
    )


def push_to_hub(
    self: Any, repo_id: str, tokenizer: Any = None, *, token: str | None = None, **options: Any
) -> str:
    """Put the adapter on the Hugging Face hub, or a model without one as a whole; returns the page.

    Args:
        repo_id: "owner/name", or a name alone for the token's own account.
        tokenizer: uploaded beside it.
        token: None takes the machine's login; kept nowhere.
        options: `private` (True unless given), `replace` another model that is there, and the
            `endpoint` of another hub.

    Raises:
        HubRefused, HubUnreachable: see `tunebook.export.upload`.
    """
    method = "lora" if hasattr(self, "peft_config") else "merged_16bit"
    return push_to_hub_merged(self, repo_id, tokenizer, method, token=token, **options)


def push_to_hub_merged(
    self: Any,
    repo_id: str,
    tokenizer: Any = None,
    save_method: str = "merged_16bit",
    *,
    token: str | None = None,
    **options: Any,
) -> str:
    """Put the model with its adapter merged in on the hub; see `push_to_hub`.

    Args:
        save_method: as for `save_pretrained_merged`.
    """
    with tempfile.TemporaryDirectory(prefix="tunebook-") as place:
        folder = export.save_merged(self, tokenizer, Path(place) / "model", method=save_method)
        return _upload(self, folder, repo_id, token, options)


def push_to_hub_gguf(
    self: Any,
    repo_id: str,
    tokenizer: Any = None,
    quantization_method: str | Sequence[str] = "q4_k_m",
    *,
    token: str | None = None,
    **options: Any,
) -> str:
    """Put GGUF files of the model on the hub; see `push_to_hub`.

    Args:
        quantization_method: one name such as "q8_0", or several.
        options: also `imatrix_file`, `bits`, `size` and `projector`, see `save_pretrained_gguf`.
    """
    known = ("imatrix_file", "bits", "size", "projector")
    asked = {name: options.pop(name) for name in known if name in options}
    with tempfile.TemporaryDirectory(prefix="tunebook-") as place:
        written = save_pretrained_gguf(
            self, Path(place) / "model", tokenizer, quantization_method, **asked
        )
        folder = written if written.is_dir() else written.parent
        return _upload(self, folder, repo_id, token, options)


def _upload(model: Any, folder: Path, repo: str, token: str | None, options: dict[str, Any]) -> str:
    known = {name: options.pop(name) for name in ("replace", "endpoint") if name in options}
    private = options.pop("private", None)
    _log_ignored("push_to_hub", options)
    trainer = _trainers[model]() if model in _trainers else None
    return export.upload(
        folder,
        repo,
        token=token,
        private=private is not False,
        recipe=_recipe(model),
        repeatable=False,
        numbers=_numbers(trainer),
        curve=_curve(trainer),
        **known,
    )


def _recipe(model: Any) -> Recipe:
    """What the model itself tells of how it was made."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    values: dict[str, Any] = {"model.name": portable_name(base.name_or_path or "unknown")}
    bits = {"load_in_4bit": 4, "load_in_8bit": 8}
    loaded = getattr(base.config, "quantization_config", None)
    values["quantization.bits"] = next(
        (count for name, count in bits.items() if getattr(loaded, name, False)), 16
    )
    if adapter := next(iter(getattr(model, "peft_config", {}).values()), None):
        values |= {"lora.r": adapter.r, "lora.alpha": adapter.lora_alpha}
    return Recipe().with_values(values)


def _trained_rows(model: Any) -> list[list[int]] | None:
    """Token ids of some of the rows that the model was trained on, where they are known."""
    trainer = _trainers[model]() if model in _trainers else None
    dataset = getattr(trainer, "train_dataset", None)
    if "input_ids" not in (getattr(dataset, "column_names", None) or ()):
        return None
    few: list[list[int]] = dataset[:_ROWS]["input_ids"]  # type: ignore[index]
    return few


def _numbers(trainer: Any) -> dict[str, Any]:
    """The lines of a card; what is not known is left out of it."""
    told: dict[str, Any] = dict.fromkeys(
        ("Data", "training.learning_rate", "training.epochs", "training.max_steps")
    )
    if trainer is None:
        return told
    info = getattr(getattr(trainer, "train_dataset", None), "info", None)
    rows = getattr(getattr(trainer, "train_dataset", None), "num_rows", None)
    told["Data"] = getattr(info, "dataset_name", None)
    told["rows of data"] = rows
    told["training.learning_rate"] = trainer.args.learning_rate
    told["steps"] = trainer.state.global_step or None
    if losses := (_curve(trainer) or Curve([])).losses:
        told["loss"] = f"{losses[0][1]:.4f} → {losses[-1][1]:.4f}"
    return told


def _curve(trainer: Any) -> Curve | None:
    if trainer is None:
        return None
    lines = trainer.state.log_history
    return Curve(
        [(line["step"], line["loss"]) for line in lines if "loss" in line],
        [(line["step"], line["eval_loss"]) for line in lines if "eval_loss" in line],
    )


def _bytes(size: int | str) -> int:
    from accelerate.utils import convert_file_size_to_int

    return int(convert_file_size_to_int(size))


def _log_ignored(where: str, arguments: dict[str, Any]) -> None:
    if arguments:
        logger.warning("%s: ignored %s", where, ", ".join(sorted(arguments)))
