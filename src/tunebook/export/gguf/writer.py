"""Write a tuned model as GGUF: merge, turn, quantize and write one tensor after another.

No 16-bit file is made on the way, and no more than one tensor is held in memory. Knows models and
files; what each family and each mix wants stands in tables beside this module.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.errors import VerificationFailed, three_part
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
from tunebook.export.gguf.one_file import add_values, write_file
from tunebook.export.gguf.picture_template import with_pictures
from tunebook.export.gguf.projector import Projector, projector_mix, projector_of
from tunebook.export.gguf.tensors import FileTensor, file_tensors
from tunebook.export.gguf.vision_families import VisionFamily, vision_family
from tunebook.export.gguf.vocabulary import Vocabulary, add_vocabulary, vocabulary_of
from tunebook.export.ollama import write_modelfile
from tunebook.export.processors import processor_of, words_of
from tunebook.export.progress import Progress
from tunebook.models.loading import portable_name
from tunebook.models.vision import has_towers
from tunebook.recipe import Recipe

if TYPE_CHECKING:
    import gguf
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tunebook.export.gguf.importance import Importance

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
    projector: str | None = None,
    verify: bool = True,
) -> Path:
    """Write a model, its adapter merged in, as one GGUF file for each quantization.

    A model that sees gets one file more, `mmproj-….gguf`, with its vision tower and projector.

    Args:
        model: a PEFT model, or a plain one; it is not changed.
        tokenizer: written into the file, chat template included, and into a Modelfile for Ollama,
            which names the first quantization. Of a model that sees, its processor; of a tokenizer
            alone the processor beside the model's weights is taken.
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
        projector: type of the file with the vision tower: "f16", "f32", "bf16" or "q8_0"; None is
            "f16", or "f32" if nothing else is asked for.
        verify: read every file again and compare it with the model before it gets its name.

    Raises:
        RecipeInvalid: no such quantization, also of the vision tower, or a size that cannot be.
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
    eyes = projector_mix(projector or ("f32" if {*names} == {"f32"} else "f16"))
    require_free(folder, purpose="the GGUF file", replace=replace)  # before minutes of measuring
    progress = progress or Progress()
    content = content_of(model, tokenizer, recipe=recipe)
    words = words_of(tokenizer)
    chosen = choose_mixes(
        asked,
        model,
        words,
        content.tensors,
        content.text,
        content.vocabulary,
        recipe=recipe,
        progress=progress,
    )
    content, mixes = dataclasses.replace(content, importance=chosen.importance), chosen.mixes
    needed = sum(content.bytes(mix) for mix in mixes) + content.projector_bytes(eyes)
    progress.begin(needed)
    with (
        three_part("write the GGUF file"),
        new_folder(
            folder,
            needed + _SPARE * len(mixes),
            purpose="the GGUF file",
            replace=replace,
            stale=(
                projector_name("*"),
            ),  # a folder with two of them would leave it open which is meant
        ) as temporary,
    ):
        for note in content.notes:
            progress.note(note)
        for mix in mixes:
            path = temporary / file_name(content.name, mix)
            _write(path, content, mix, progress)
            if verify:
                _require_same(path, content.differences(path, content.kinds(mix)))
        seeing = []
        if content.projector is not None:
            path = temporary / projector_name(content.name, eyes)
            _write_projector(path, content.name, content.projector, eyes, progress)
            seeing = [path.name]
            if verify:
                _require_same(path, content.projector.differences(path, eyes))
        files = [file_name(content.name, next(iter(mixes))), *seeing]
        made = write_modelfile(temporary, files, words, generation=model.generation_config)
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


def projector_name(name: str, mix: Mix | None = None) -> str:
    """The name of a projector file, such as `mmproj-my-model-F16.gguf`; programs look for its beginning."""
    return f"mmproj-{name}-{mix.name if mix else '*'}.gguf"


@dataclass(frozen=True)
class Content:
    """What goes into the files of one model, whatever the types.

    Attributes:
        name: of the model, and the beginning of its files' names.
        text: configuration of its text decoder.
        tensors: in the order of the file.
        projector: of a model that sees, its other file.
        importance: of the columns, if it was measured.
    """

    name: str
    architecture: Architecture
    text: Any
    tensors: list[FileTensor]
    vocabulary: Vocabulary
    projector: Projector | None = None
    importance: Importance | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what llama.cpp does otherwise than the model."""
        of_eyes = self.projector.notes if self.projector is not None else ()
        return (*self.vocabulary.notes, *notes_on(self.architecture, self.text), *of_eyes)

    def kinds(self, mix: Mix) -> list[str]:
        """The type of each tensor."""
        tied = all(tensor.name != "output.weight" for tensor in self.tensors)
        network = network_of(self.text, tied=tied, importance=self.importance is not None)
        return [tensor_type(tensor.name, tensor.shape, mix, network) for tensor in self.tensors]

    def bytes(self, mix: Mix) -> int:
        """Of all tensors."""
        pairs = zip(self.tensors, self.kinds(mix), strict=True)
        return sum(tensor_bytes(tensor.shape, kind) for tensor, kind in pairs)

    def projector_bytes(self, mix: Mix) -> int:
        """Of all tensors of the projector file, if there is one."""
        if self.projector is None:
            return 0
        pairs = zip(self.projector.tensors, self.projector.kinds(mix), strict=True)
        return sum(tensor_bytes(tensor.shape, kind) for tensor, kind in pairs)

    def differences(self, path: Path, kinds: Sequence[str]) -> list[str]:
        """What in a file is not the model, each as half a sentence; see `checking.differences`."""
        from tunebook.export.gguf.checking import differences

        of_eyes = self.projector.of_language if self.projector is not None else {}
        return differences(path, self.tensors, kinds, self.vocabulary, of_eyes)


def content_of(model: Any, tokenizer: Any, *, recipe: Recipe | None = None) -> Content:
    """What the files of a model hold; arguments and errors are those of `save_gguf`."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    if sees := has_towers(base):
        vision_family(base.config)  # whose error tells more than that of its language tower
        tokenizer = processor_of(base, tokenizer, recipe)
    architecture, text = architecture_of(base.config)
    projector = projector_of(base, tokenizer) if sees else None
    tensors = list(file_tensors(base, architecture, text))
    rows = next(tensor.shape[0] for tensor in tensors if tensor.name == "token_embd.weight")
    words = words_of(tokenizer)
    vocabulary = vocabulary_of(words, rows)
    if projector is not None:
        vocabulary = _seeing(vocabulary, projector.family, words)
    return Content(
        name=_name(model, recipe),
        architecture=architecture,
        text=text,
        tensors=tensors,
        vocabulary=vocabulary,
        projector=projector,
    )


def _seeing(vocabulary: Vocabulary, family: VisionFamily, words: Any) -> Vocabulary:
    """With a chat template that writes llama.cpp's pictures as the model learnt them."""
    template = vocabulary.chat_template
    if template is None:
        return vocabulary
    made = with_pictures(template, family.place, dict(words.special_tokens_map))
    if made is None:
        note = "The chat template writes no pictures; llama.cpp puts them where a message has them."
        return dataclasses.replace(vocabulary, notes=(*vocabulary.notes, note))
    templates = {**vocabulary.chat_templates, "default": made}
    return dataclasses.replace(vocabulary, chat_templates=templates)


def _name(model: Any, recipe: Recipe | None) -> str:
    """What files call the model: the base model's name, and that it was tuned."""
    base = recipe.model.name if recipe is not None else getattr(model.config, "_name_or_path", "")
    stem = re.sub(r"[^\w.+-]+", "-", portable_name(base).rstrip("/").rsplit("/", 1)[-1]).strip("-.")
    return f"{stem or 'model'}-tuned" if hasattr(model, "peft_config") else stem or "model"


def _write(path: Path, content: Content, mix: Mix, progress: Progress) -> None:
    def describe(writer: gguf.GGUFWriter) -> None:
        add_vocabulary(writer, content.vocabulary)
        write_metadata(
            writer,
            content.architecture,
            content.text,
            name=content.vocabulary.model_name(content.name),
            vocabulary=len(content.vocabulary.tokens),
        )
        if content.projector is not None:
            add_values(writer, content.projector.of_language)
        if content.importance is not None:
            _add_importance(writer, content.importance)

    importance = content.importance.columns() if content.importance is not None else {}
    write_file(
        path,
        content.architecture.name,
        describe,
        content.tensors,
        content.kinds(mix),
        mix,
        progress,
        importance=importance,
    )


def _write_projector(
    path: Path, name: str, projector: Projector, mix: Mix, progress: Progress
) -> None:
    def describe(writer: gguf.GGUFWriter) -> None:
        writer.add_type("mmproj")
        writer.add_name(name)
        add_values(writer, projector.metadata)

    kinds = projector.kinds(mix)
    write_file(path, "clip", describe, projector.tensors, kinds, mix, progress)


def _add_importance(writer: gguf.GGUFWriter, importance: Importance) -> None:
    """By the keys of llama.cpp's tools/quantize."""
    writer.add_string("quantize.imatrix.file", Path(importance.file).name or "measured by Tunebook")
    writer.add_string("quantize.imatrix.dataset", ", ".join(importance.datasets))
    writer.add_int32("quantize.imatrix.entries_count", len(importance.tensors))
    writer.add_int32("quantize.imatrix.chunks_count", importance.chunks)


def _require_same(path: Path, found: list[str]) -> None:
    if found:
        raise VerificationFailed(
            f"{path.name} is not the model that was to be saved.",
            f"read again, {found[0]}" + (f", and {len(found) - 1} more." if found[1:] else "."),
            "export it again; if it happens twice, check the disk, or report it with "
            "`tunebook doctor`'s output.",
        )
