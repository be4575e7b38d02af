"""Write an adapter folder: LoRA weights, tokenizer with its template, and the recipe.

Writes are all or nothing: the folder appears under its name only when everything is in it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tunebook.errors import (
    FolderExists,
    ModelInvalid,
    as_disk_full,
    require_disk_space,
)
from tunebook.export.progress import Progress
from tunebook.models.loading import portable_name
from tunebook.recipe import Recipe

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedTokenizerBase

_SPARE = 16 * 2**20  # tokenizer and small files beside the weights
_HOST = re.sub(r"\W", "", socket.gethostname())  # other machines' processes may share the disk
_OF_A_MODEL = (
    "*.safetensors",
    "*.safetensors.index.json",
    "adapter_config.json",
    "config.json",
    "generation_config.json",
)


def save_adapter(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase | None,
    folder: Path | str,
    *,
    recipe: Recipe | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write the adapter of a PEFT model so that PEFT and Tunebook load it again.

    Args:
        model: the model with its adapter.
        tokenizer: saved beside it, chat template included; None saves none.
        folder: must not exist, or be empty, unless `replace`.
        recipe: saved as `recipe.yaml` if given.
        replace: whether model files in a folder that exists are replaced; other files there stay.
        progress: told of the bytes of the weights.

    Raises:
        FolderExists: the folder holds something and `replace` is off.
        DiskFull: there is not enough room.
        Cancelled: a stop was asked for.
        ModelInvalid: a weight is NaN; the message names it.
    """
    folder = Path(folder)
    _require_numbers(model)
    size = parameter_bytes(model, trainable=True)
    progress = progress or Progress()
    progress.begin(size)
    with new_folder(folder, size + _SPARE, purpose="the adapter", replace=replace) as temporary:
        model.save_pretrained(str(temporary))
        _name_base_portably(temporary / "adapter_config.json")
        if tokenizer is not None:
            tokenizer.save_pretrained(str(temporary))
        if recipe is not None:
            recipe.save(temporary / "recipe.yaml")
        progress.finish()
    return folder


@contextmanager
def new_folder(
    folder: Path,
    size: int,
    *,
    purpose: str,
    replace: bool,
    stale: tuple[str, ...] = _OF_A_MODEL,
) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its name at the end, or vanishes on an error.

    What a process left that was killed while it wrote there is removed first.

    Args:
        folder: the final name.
        size: bytes that are about to be written.
        purpose: for the error messages.
        replace: whether files of an existing folder are replaced.
        stale: which files of it go when it is replaced, though no new one has their name.

    Raises:
        FolderExists, DiskFull: see `save_adapter`.
    """
    require_free(folder, purpose=purpose, replace=replace)
    _remove_left_behind(folder)
    require_disk_space(folder, size, purpose=purpose)
    made = [parent for parent in folder.absolute().parents if not parent.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{folder.name}.{_HOST}-{os.getpid()}."
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=prefix))
    try:
        yield temporary
        if folder.exists():
            _replace_files(temporary, folder, stale)
        else:
            temporary.chmod(0o755)  # mkdtemp makes it private
            temporary.rename(folder)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in made:
            with suppress(OSError):
                parent.rmdir()
        if (full := as_disk_full(error, during=f"write {purpose}")) is not None:
            raise full from error
        raise


def require_free(folder: Path, *, purpose: str, replace: bool) -> None:
    """Raise if something is in a folder that is to be written; arguments are those of `new_folder`.

    Raises:
        FolderExists: there is.
    """
    if folder.exists() and not replace and (not folder.is_dir() or any(folder.iterdir())):
        raise FolderExists(
            f"The folder {folder} exists already.",
            f"{purpose} would overwrite what is in it.",
            "choose another folder, or say that it gives way: `replace=True`, in a shell `--replace`.",
        )


def _remove_left_behind(folder: Path) -> None:
    """Remove the temporary folders of processes of this machine that live no more."""
    import psutil

    name = re.compile(re.escape(f".{folder.name}.{_HOST}-") + r"(\d+)\.\w+")
    for path in folder.parent.glob(".*") if folder.parent.is_dir() else ():
        found = name.fullmatch(path.name)
        if found and path.is_dir() and not psutil.pid_exists(int(found[1])):
            shutil.rmtree(path, ignore_errors=True)


def _require_numbers(model: PeftModel) -> None:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not bool(parameter.isfinite().all()):
            raise ModelInvalid(
                "The adapter is damaged: a weight is not a number.",
                f"{name} holds NaN or infinity.",
                "go back to an earlier checkpoint, and train with a lower learning rate.",
            )


def _name_base_portably(path: Path) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = portable_name(config["base_model_name_or_path"] or "")
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _replace_files(source: Path, folder: Path, stale: tuple[str, ...]) -> None:
    """Move files over those of the same name; stale ones go, whatever else is there stays."""
    for pattern in stale:
        for old in folder.glob(pattern):
            old.unlink()
    for file in source.iterdir():
        file.replace(folder / file.name)
    source.rmdir()


def parameter_bytes(model: nn.Module, *, trainable: bool) -> int:
    """Bytes in a model's parameters, or in the trainable ones only."""
    return sum(
        parameter.numel() * parameter.element_size()
        for parameter in model.parameters()
        if parameter.requires_grad or not trainable
    )
