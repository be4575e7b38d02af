"""Write an adapter folder: LoRA weights, tokenizer with its template, and the recipe.

Writes are all or nothing: the folder appears under its name only when everything is in it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tunebook.errors import FolderExists, require_disk_space
from tunebook.recipe import Recipe

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedTokenizerBase

_SPARE = 16 * 2**20  # tokenizer and small files beside the weights


def save_adapter(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path | str,
    *,
    recipe: Recipe | None = None,
    replace: bool = False,
) -> Path:
    """Write the adapter of a PEFT model so that PEFT and Tunebook load it again.

    Args:
        model: the model with its adapter.
        tokenizer: saved beside it, chat template included.
        folder: must not exist, or be empty, unless `replace`.
        recipe: saved as `recipe.yaml` if given.
        replace: whether a folder that exists is replaced.

    Raises:
        FolderExists: the folder holds something and `replace` is off.
        DiskFull: there is not enough room.
    """
    folder = Path(folder)
    size = parameter_bytes(model, trainable=True) + _SPARE
    with new_folder(folder, size, purpose="the adapter", replace=replace) as temporary:
        model.save_pretrained(str(temporary))
        tokenizer.save_pretrained(str(temporary))
        if recipe is not None:
            recipe.save(temporary / "recipe.yaml")
    return folder


@contextmanager
def new_folder(folder: Path, size: int, *, purpose: str, replace: bool) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its name at the end, or vanishes on an error.

    Args:
        folder: the final name.
        size: bytes that are about to be written.
        purpose: for the error messages.
        replace: whether an existing folder gives way.

    Raises:
        FolderExists, DiskFull: see `save_adapter`.
    """
    if folder.exists() and not replace and (not folder.is_dir() or any(folder.iterdir())):
        raise FolderExists(
            f"The folder {folder} exists already.",
            f"{purpose} would overwrite what is in it.",
            "choose another folder, or delete that one first.",
        )
    require_disk_space(folder, size, purpose=purpose)
    made = [parent for parent in folder.absolute().parents if not parent.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp makes it private
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in made:
            parent.rmdir()
        raise


def parameter_bytes(model: nn.Module, *, trainable: bool) -> int:
    """Bytes in a model's parameters, or in the trainable ones only."""
    return sum(
        parameter.numel() * parameter.element_size()
        for parameter in model.parameters()
        if parameter.requires_grad or not trainable
    )
