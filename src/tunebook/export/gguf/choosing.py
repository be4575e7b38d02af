"""What an export asks for, made definite for one model: its importance data and its mixes.

Knows what users write ("dynamic", "4GB", "auto", a path); how either is found is others' matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.errors import RecipeInvalid
from tunebook.export.gguf.architectures import network_of
from tunebook.export.gguf.mixes import DYNAMIC, Mix, mix_named, tensor_bytes, tensor_type
from tunebook.export.gguf.tensors import FileTensor
from tunebook.export.gguf.vocabulary import Vocabulary
from tunebook.export.progress import Progress

if TYPE_CHECKING:
    import torch

    from tunebook.export.gguf.calibration import Calibration
    from tunebook.export.gguf.importance import Importance
    from tunebook.export.gguf.report import DynamicReport
    from tunebook.recipe import Recipe

_TOKENS, _TOKENS_ON_CPU = 1 << 17, 1 << 14  # to calibrate on: a minute or two on either
_SAME_SIZE = "q4_k_m"  # of a dynamic mix, unless something else is asked for


@dataclass(frozen=True)
class Asked:
    """How a model is to be quantized.

    Attributes:
        names: of mixes, or "dynamic".
        bits: a weight, of everything in a dynamic file's tensors.
        size: of a dynamic file: bytes, a text such as "4GB" or "3.5GiB", or the name of a mix whose
            size it shall have.
        importance: "auto" measures; or a file, data or columns by name; None is none, but for a
            dynamic mix, which needs it.
        calibration: token ids to measure on; None takes the recipe's data. General text is added.
    """

    names: Sequence[str]
    bits: float | None = None
    size: int | str | None = None
    importance: str | Path | Importance | Mapping[str, torch.Tensor] | None = None
    calibration: Sequence[Sequence[int]] | None = None

    @property
    def dynamic(self) -> bool:
        """Whether a mix is to be made for the model."""
        return any(_is_dynamic(name) for name in self.names)

    def require_sense(self) -> None:
        """Raise for what no model can be quantized by.

        Raises:
            RecipeInvalid: no such mix, none at all, or a size where it has no meaning.
        """
        for name in self.names:
            if not _is_dynamic(name):
                mix_named(name)
        if not self.names:
            raise RecipeInvalid(
                "There is no quantization to write GGUF in.",
                "the list of names is empty.",
                "set `export.gguf_quantization` to ['q4_k_m'] or others.",
            )
        if self.bits is not None and self.size is not None:
            raise RecipeInvalid(
                "A dynamic mix has one size.",
                f"both bits={self.bits} and size={self.size!r} are given.",
                "leave one of them out.",
            )
        if not self.dynamic and (self.bits is not None or self.size is not None):
            raise RecipeInvalid(
                "`bits` and `size` are for dynamic mixes.",
                f"{', '.join(self.names)} have a size of their own.",
                "set quantization='dynamic', or leave `bits` and `size` out.",
            )


@dataclass(frozen=True)
class Chosen:
    """What is to be written.

    Attributes:
        mixes: in the order asked for, none twice.
        importance: that all of them are quantized with.
        report: of the dynamic mix, if there is one.
    """

    mixes: list[Mix]
    importance: Importance | None
    report: DynamicReport | None = None


def choose_mixes(
    asked: Asked,
    model: Any,
    tokenizer: Any,
    tensors: Sequence[FileTensor],
    text: Any,
    vocabulary: Vocabulary,
    *,
    recipe: Recipe | None = None,
    progress: Progress | None = None,
) -> Chosen:
    """Measure and choose for one model.

    Args:
        tensors: of its file.
        text: configuration of its text decoder.
        recipe: whose data are calibrated on unless rows were given.
        progress: told of the passes of what is measured.

    Raises:
        RecipeInvalid: see `Asked.require_sense`; or the model does not become that small.
        FileInvalid, SourceMissing: the importance data are not there, damaged or another model's.
        Cancelled: a stop was asked for.
    """
    asked.require_sense()
    progress = progress or Progress()
    if asked.dynamic:
        from tunebook.export.gguf.dynamic import PASSES

        progress.plan(PASSES)
    rows: Calibration | None = None
    if asked.dynamic or asked.importance == "auto":
        rows = _calibration(asked, model, tokenizer, recipe)
    importance = _importance(asked, model, tensors, rows, progress)
    mixes: dict[str, Mix] = {}
    report = None
    for name in asked.names:
        if not _is_dynamic(name):
            mix = mix_named(name)
        else:
            from tunebook.export.gguf.dynamic import make_dynamic

            assert importance is not None
            assert rows is not None
            tied = all(tensor.name != "output.weight" for tensor in tensors)
            network = network_of(text, tied=tied, importance=True)
            limit = _limit(asked, tensors, network, vocabulary)
            mix, report = make_dynamic(
                model, tensors, network, importance, rows, limit, progress=progress
            )
        mixes[mix.name] = mix
    return Chosen(list(mixes.values()), importance, report)


def _is_dynamic(name: str) -> bool:
    return str(name).lower() == DYNAMIC


def _calibration(asked: Asked, model: Any, tokenizer: Any, recipe: Recipe | None) -> Calibration:
    from tunebook.export.gguf.calibration import calibration, rows_of
    from tunebook.export.gguf.importance import device_of

    own = asked.calibration
    if own is None:
        own = rows_of(recipe, tokenizer) if recipe is not None else ()
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    tokens = _TOKENS_ON_CPU if device_of(base).type == "cpu" else _TOKENS
    return calibration(tokenizer, own, tokens=tokens)


def _importance(
    asked: Asked,
    model: Any,
    tensors: Sequence[FileTensor],
    rows: Calibration | None,
    progress: Progress,
) -> Importance | None:
    """What was given or measured; where gradients are needed and not given, those are measured."""
    from tunebook.export.gguf.imatrix import load_imatrix
    from tunebook.export.gguf.importance import Importance, measure_importance

    given: Importance | None = None
    if isinstance(asked.importance, Importance):
        given = asked.importance
    elif isinstance(asked.importance, Mapping):
        given = Importance.of_columns(asked.importance)
    elif asked.importance not in (None, "auto"):
        given = load_imatrix(asked.importance)
    if given is not None:
        given.require_fits(tensors)
        if given.has_gradients or not asked.dynamic:
            return given
    if rows is None:
        return None
    measured = measure_importance(
        model, tensors, rows.rows, datasets=rows.datasets, progress=progress
    )
    return measured if given is None else measured.with_columns_of(given)


def _limit(
    asked: Asked, tensors: Sequence[FileTensor], network: Any, vocabulary: Vocabulary
) -> int:
    """Bytes of all tensors together."""
    if asked.bits is not None:
        weights = sum(tensor_bytes(tensor.shape, "F32") // 4 for tensor in tensors)
        return int(asked.bits * weights / 8)
    size: int | str = asked.size if asked.size is not None else _SAME_SIZE
    if isinstance(size, str):
        from accelerate.utils import convert_file_size_to_int

        text = size
        try:
            size = int(convert_file_size_to_int(text.strip().upper()))
        except ValueError:
            mix = mix_named(text)
            kinds = (tensor_type(t.name, t.shape, mix, network) for t in tensors)
            return sum(
                tensor_bytes(tensor.shape, kind)
                for tensor, kind in zip(tensors, kinds, strict=True)
            )
    return size - _beside(tensors, vocabulary)


def _beside(tensors: Sequence[FileTensor], vocabulary: Vocabulary) -> int:
    """About how many bytes of a file are no tensors: each text has its length before it."""
    words = (*vocabulary.tokens, *vocabulary.merges, *vocabulary.chat_templates.values())
    numbers = 4 * (len(vocabulary.types) + len(vocabulary.scores))
    return sum(8 + len(word.encode()) for word in words) + numbers + 128 * len(tensors) + 4096
