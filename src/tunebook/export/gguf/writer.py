"""Write a tuned model as GGUF: merge, turn, quantize and write one tensor after another.

No 16-bit file is made on the way, and no more than one tensor is held in memory. Knows models and
files; what each family and each mix wants stands in tables beside this module.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.errors import ModelInvalid, VerificationFailed, three_part
from tunebook.export.adapter import new_folder, require_free
from tunebook.export.gguf.architectures import (
    Architecture,
    architecture_of,
    network_of,
    notes_on,
)
from tunebook.export.gguf.choosing import Asked, choose_mixes
from tunebook.export.gguf.metadata import write_metadata
from tunebook.export.gguf.mixes import Mix, tensor_bytes, tensor_type
from tunebook.export.gguf.tensors import FileTensor, file_tensors
from tunebook.export.gguf.vocabulary import Vocabulary, add_vocabulary, vocabulary_of
from tunebook.export.ollama import write_modelfile
from tunebook.export.progress import Progress
from tunebook.models.loading import portable_name
from tunebook.recipe import Recipe

if TYPE_CHECKING:
    import gguf
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tunebook.export.gguf.importance import Importance

_LARGEST_F16 = 65504.0
_SPARE = 64 * 2**20  # vocabulary, merges and names


def save_gguf(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path | str,
    *,
    quantization: str | Sequence[str] | None = None,
    recipe: Recipe | None = None,
    replace: bool = False,
    progress: Progress | None = None,
    importance: str | Path | Importance | Mapping[str, torch.Tensor] | None = None,
    bits: float | None = None,
    size: int | str | None = None,
    calibration: Sequence[Sequence[int]] | None = None,
    verify: bool = True,
) -> Path:
    """Write a model, its adapter merged in, as one GGUF file for each quantization.

    Args:
        model: a PEFT model, or a plain one; it is not changed.
        tokenizer: written into the file, chat template included, and into a Modelfile for Ollama,
            which names the first quantization.
        folder: must not exist, or be empty, unless `replace`. Files are named after the model and
            the quantization, such as `tunebook-tiny-Q4_K_M.gguf`.
        quantization: names of `MIXES` or `ALIASES`; None takes the recipe's, or "q4_k_m". "dynamic"
            chooses each tensor's type for this model, and writes why in a .json file beside it.
        recipe: saved as `recipe.yaml` if given, and names the model.
        replace: whether files of the same name are replaced; others in the folder stay.
        progress: told of the bytes of the tensors, and of what llama.cpp and Ollama do otherwise.
        importance: how much each column matters: "auto" measures it, as "dynamic" does anyway; a
            path to an imatrix file; an `Importance`; or by the tensor's name in the file, (columns,)
            or (experts, columns), float32.
        bits, size: of a dynamic file, one of them: bits a weight; or bytes, such as "4GB", or the
            name of a mix whose size it shall have. None is that of "q4_k_m".
        calibration: token ids of rows to measure on; None takes the recipe's data. General text is
            added to them.
        verify: read every file again and compare it with the model before it gets its name.

    Raises:
        RecipeInvalid: no such quantization, or a size that cannot be.
        FileInvalid, SourceMissing: importance data that are not there, or another model's.
        ModelInvalid: a family that llama.cpp computes otherwise or not at all, or a weight that is
            not a number.
        VerificationFailed: what was written is not the model.
        FolderExists, DiskFull, Cancelled: see `save_adapter`.
    """
    folder = Path(folder)
    if quantization is None:
        quantization = recipe.export.gguf_quantization if recipe is not None else "q4_k_m"
    names = [quantization] if isinstance(quantization, str) else quantization
    asked = Asked(names, bits, size, importance, calibration)
    require_free(folder, purpose="the GGUF file", replace=replace)  # before minutes of measuring
    progress = progress or Progress()
    content = content_of(model, tokenizer, recipe=recipe)
    chosen = choose_mixes(
        asked,
        model,
        tokenizer,
        content.tensors,
        content.text,
        content.vocabulary,
        recipe=recipe,
        progress=progress,
    )
    content, mixes = dataclasses.replace(content, importance=chosen.importance), chosen.mixes
    needed = sum(content.bytes(mix) for mix in mixes)
    progress.begin(needed)
    with (
        three_part("write the GGUF file"),
        new_folder(
            folder,
            needed + _SPARE * len(mixes),
            purpose="the GGUF file",
            replace=replace,
            stale=(),
        ) as temporary,
    ):
        if content.text is not model.config:
            progress.note("Only the text part of the model is written, not its vision tower.")
        for note in (*content.vocabulary.notes, *notes_on(content.architecture, content.text)):
            progress.note(note)
        for mix in mixes:
            path = temporary / file_name(content.name, mix)
            _write(path, content, mix, progress)
            if verify:
                _require_same(path, content, mix)
        first = file_name(content.name, next(iter(mixes)))
        made = write_modelfile(temporary, first, tokenizer, generation=model.generation_config)
        for note in made.notes:
            progress.note(f"In the Modelfile for Ollama: {note}")
        if chosen.report is not None:
            chosen.report.save(temporary / f"{content.name}-{chosen.report.name}.json")
            progress.note(chosen.report.summary)
        progress.finish()
        if recipe is not None:
            recipe.save(temporary / "recipe.yaml")
    return folder


def file_name(name: str, mix: Mix) -> str:
    """The name of a file, such as `tunebook-tiny-Q4_K_M.gguf`."""
    return f"{name}-{mix.name}.gguf"


@dataclass(frozen=True)
class Content:
    """What goes into the files of one model, whatever the types.

    Attributes:
        name: of the model, and the beginning of its files' names.
        text: configuration of its text decoder.
        tensors: in the order of the file.
        importance: of the columns, if it was measured.
    """

    name: str
    architecture: Architecture
    text: Any
    tensors: list[FileTensor]
    vocabulary: Vocabulary
    importance: Importance | None = None

    def kinds(self, mix: Mix) -> list[str]:
        """The type of each tensor."""
        tied = all(tensor.name != "output.weight" for tensor in self.tensors)
        network = network_of(self.text, tied=tied, importance=self.importance is not None)
        return [tensor_type(tensor.name, tensor.shape, mix, network) for tensor in self.tensors]

    def bytes(self, mix: Mix) -> int:
        """Of all tensors."""
        pairs = zip(self.tensors, self.kinds(mix), strict=True)
        return sum(tensor_bytes(tensor.shape, kind) for tensor, kind in pairs)


def content_of(model: Any, tokenizer: Any, *, recipe: Recipe | None = None) -> Content:
    """What the files of a model hold; arguments and errors are those of `save_gguf`."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    architecture, text = architecture_of(base.config)
    tensors = list(file_tensors(base, architecture, text))
    rows = next(tensor.shape[0] for tensor in tensors if tensor.name == "token_embd.weight")
    vocabulary = vocabulary_of(tokenizer, rows)
    return Content(
        name=_name(model, recipe),
        architecture=architecture,
        text=text,
        tensors=tensors,
        vocabulary=vocabulary,
    )


def _name(model: Any, recipe: Recipe | None) -> str:
    """What files call the model: the base model's name, and that it was tuned."""
    base = recipe.model.name if recipe is not None else getattr(model.config, "_name_or_path", "")
    stem = re.sub(r"[^\w.+-]+", "-", portable_name(base).rstrip("/").rsplit("/", 1)[-1]).strip("-.")
    return f"{stem or 'model'}-tuned" if hasattr(model, "peft_config") else stem or "model"


def _write(path: Path, content: Content, mix: Mix, progress: Progress) -> None:
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, content.architecture.name)
    kinds = content.kinds(mix)
    try:
        add_vocabulary(writer, content.vocabulary)
        write_metadata(
            writer,
            content.architecture,
            content.text,
            name=content.vocabulary.model_name(content.name),
            vocabulary=len(content.vocabulary.tokens),
        )
        writer.add_file_type(mix.file_type)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        if content.importance is not None:
            _add_importance(writer, content.importance)
        for tensor, kind in zip(content.tensors, kinds, strict=True):
            writer.add_tensor_info(
                tensor.name,
                tensor.shape,
                np.dtype(np.float32),
                tensor_bytes(tensor.shape, kind),
                raw_dtype=gguf.GGMLQuantizationType[kind],
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        _write_tensors(writer, content, kinds, progress)
    finally:
        writer.close()


def _add_importance(writer: gguf.GGUFWriter, importance: Importance) -> None:
    """By the keys of llama.cpp's tools/quantize."""
    writer.add_string("quantize.imatrix.file", Path(importance.file).name or "measured by Tunebook")
    writer.add_string("quantize.imatrix.dataset", ", ".join(importance.datasets))
    writer.add_int32("quantize.imatrix.entries_count", len(importance.tensors))
    writer.add_int32("quantize.imatrix.chunks_count", importance.chunks)


def _write_tensors(
    writer: gguf.GGUFWriter, content: Content, kinds: list[str], progress: Progress
) -> None:
    assert writer.fout is not None
    file = writer.fout[0]
    writer.write_padding(file, file.tell())
    columns = content.importance.columns() if content.importance is not None else {}
    for tensor, kind in zip(content.tensors, kinds, strict=True):
        packed = _packed(tensor, kind, columns.get(tensor.name))
        data = packed.cpu().contiguous().numpy()
        file.write(data.data)  # `tofile` does not tell that a disk is full
        writer.write_padding(file, data.nbytes)
        progress.add(data.nbytes)
    file.flush()
    os.fsync(file.fileno())


def _packed(tensor: FileTensor, kind: str, importance: torch.Tensor | None) -> torch.Tensor:
    """The blocks of a tensor: (..., bytes of a row), uint8."""
    from tunebook.export.gguf.blocks import quantize

    weight = tensor.load()
    if kind == "F16" and (largest := float(weight.abs().amax())) > _LARGEST_F16:
        raise ModelInvalid(
            f"The weights {tensor.name} do not fit into F16.",
            f"the largest is {largest:,.0f}, and F16 ends at {_LARGEST_F16:,.0f}.",
            "set the quantization to 'bf16' or 'f32'.",
        )
    return quantize(weight, kind, importance)


def _require_same(path: Path, content: Content, mix: Mix) -> None:
    from tunebook.export.gguf.checking import differences

    if found := differences(path, content.tensors, content.kinds(mix), content.vocabulary):
        raise VerificationFailed(
            f"{path.name} is not the model that was to be saved.",
            f"read again, {found[0]}" + (f", and {len(found) - 1} more." if found[1:] else "."),
            "export it again; if it happens twice, check the disk, or report it with "
            "`tunebook doctor`'s output.",
        )
