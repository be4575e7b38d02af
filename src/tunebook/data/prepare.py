"""From a recipe to tables of `input_ids` and `labels`, with figures about them.

Every row takes the path of `masking.Encoder`; packing and batching are the trainer's matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.data.collecting import (
    BATCH,
    DataStatistics as DataStatistics,
    RowCollector as RowCollector,
)
from tunebook.data.conversations import to_label, to_messages
from tunebook.data.formats import Detection, detect_for
from tunebook.data.loading import quiet_datasets, read_rows
from tunebook.data.masking import Encoded, Encoder
from tunebook.data.rendering import Span
from tunebook.data.spool import Skipped
from tunebook.data.templates import with_recipe_template
from tunebook.data.vision import VisionEncoder
from tunebook.data.vision_collator import VisionRows
from tunebook.data.vision_prepare import picture_folder, prepare_rows
from tunebook.errors import (
    DatasetEmpty,
    FormatUnsuitable,
    ImagesUnsupported,
    NothingToLearn,
    RowInvalid,
    TemplateInvalid,
)
from tunebook.recipe import DataPart, Recipe

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

Progress = Callable[[int, int], None]
AnyEncoder = Encoder | VisionEncoder


@dataclass
class PreparedData:
    """What the trainer gets: tables with the columns `input_ids` and `labels` (-100 is not learnt).

    For a model that sees, `VisionRows` instead, whose pictures are opened when a batch is made.
    `lengths` are those of the training rows in tokens, in order.
    """

    train: Dataset | VisionRows
    eval: Dataset | VisionRows | None
    statistics: DataStatistics
    detection: Detection
    lengths: list[int] = field(default_factory=list)


def prepare_data(
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase | ProcessorMixin,
    *,
    rows: Any = None,
    progress: Progress | None = None,
) -> PreparedData:
    """Load, understand, render, tokenise and mask everything that a recipe trains on.

    Args:
        tokenizer: the model's; the recipe's chat template is put on a copy of it. The processor of a
            model that sees.
        rows: in-memory data instead of `recipe.data.source`.
        progress: called with (rows done, rows in all) now and then.

    Raises:
        SourceMissing, DatasetUnreadable, DatasetEmpty, FormatUnknown, RowInvalid: as in loading.
        TemplateInvalid: no template, or it refuses a row, which is named.
        FormatUnsuitable: the rows are preferences or bare questions, and the recipe did not say
            what to learn of them.
        NothingToLearn: not one token of any row would be learnt.
        ImagesUnsupported: the rows hold pictures, and the model reads text only.
    """
    tokenizer = with_recipe_template(tokenizer, recipe)
    loaded = read_rows(recipe.data, rows=rows)
    table, skipped = loaded.table, loaded.skipped
    detection = detect_for(recipe.data, table)
    require_answers(recipe, detection)
    encoder = recipe_encoder(recipe, tokenizer)
    require_sight(detection, encoder)
    train_rows, eval_rows = divide_rows(recipe, len(table))
    folder = picture_folder(recipe.data) if rows is None else None
    train, counted = _encoded(train_rows, table, detection, encoder, progress, skipped, folder)
    if not counted.lengths:
        raise _nothing(recipe, counted, skipped)
    statistics = counted.statistics()
    statistics.hidden_tools = encoder.hidden_tools
    evaluation = _evaluation(recipe, eval_rows, table, detection, encoder, skipped, folder)
    statistics.skipped_rows = skipped.count
    statistics.eval_rows = len(evaluation) if evaluation is not None else 0
    return PreparedData(train, evaluation, statistics, detection, counted.lengths)


def sees(encoder: AnyEncoder) -> bool:
    """Whether the encoder takes pictures."""
    return isinstance(encoder, VisionEncoder)


def require_sight(detection: Detection, encoder: AnyEncoder) -> None:
    """Look that pictures in columns of their own have a model that sees them.

    Raises:
        ImagesUnsupported: the model reads text only.
    """
    if detection.images and not isinstance(encoder, VisionEncoder):
        listed = ", ".join(f"`{name}`" for name in detection.images)
        raise ImagesUnsupported(
            "The rows hold pictures, and the model reads text only.",
            f"they are in {listed}.",
            "choose a vision model, or set `data.image_columns` to [] to learn the words alone.",
        )


def _encoded(
    numbers: list[int],
    table: Dataset,
    detection: Detection,
    encoder: AnyEncoder,
    progress: Progress | None,
    skipped: Skipped,
    folder: Path | None,
) -> tuple[Dataset | VisionRows, RowCollector]:
    if isinstance(encoder, VisionEncoder):
        return prepare_rows(
            numbers, table, detection, encoder, skipped, folder=folder, progress=progress
        )
    collected = _encode_table(numbers, table, detection, encoder, progress, skipped)
    with quiet_datasets():
        return collected.dataset(), collected


def require_answers(recipe: Recipe, detection: Detection) -> None:
    """Look that the rows are something that supervised training learns, or were said to be.

    Raises:
        FormatUnsuitable: preferences that were not asked for by name, or questions alone.
    """
    format = detection.format
    if format == "prompt_only" or (
        format in ("preference", "unpaired_preference") and recipe.data.format != format
    ):
        what, do = _UNSUITABLE[format]
        raise FormatUnsuitable(what, detection.reason, do)


_UNSUITABLE = {
    "preference": (
        "The dataset holds preferences, and supervised training learns one answer to each row.",
        "set `data.format` to `preference` to learn the chosen answers only; the rejected ones "
        "are then not used.",
    ),
    "unpaired_preference": (
        "The dataset holds answers labelled good or bad, and supervised training would learn both.",
        "set `data.format` to `unpaired_preference` to learn the good answers only, or to another "
        "format to learn all.",
    ),
    "prompt_only": (
        "The dataset holds questions without an answer to learn.",
        "name the column of the answers, such as `data.columns: {prompt: question, completion: "
        "solution}`.",
    ),
}


def recipe_encoder(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase | ProcessorMixin, *, every_turn: bool = False
) -> AnyEncoder:
    """The encoder that a recipe's mask and length ask for.

    Args:
        tokenizer: or the processor of a model that sees, which takes pictures too.
    """
    words: Any = tokenizer
    if hasattr(words, "image_processor"):
        return VisionEncoder(
            words,
            train_on=recipe.data.train_on,
            max_length=recipe.model.max_seq_length,
            min_pixels=recipe.data.min_pixels,
            max_pixels=recipe.data.max_pixels,
            every_turn=every_turn,
            folder=picture_folder(recipe.data),
        )
    return Encoder(
        words,
        train_on=recipe.data.train_on,
        max_length=recipe.model.max_seq_length,
        every_turn=every_turn,
    )


def encode_rows(
    table: Dataset,
    numbers: list[int],
    detection: Detection,
    encoder: Encoder,
    skipped: Skipped | None = None,
) -> Iterator[tuple[int, Encoded]]:
    """Each numbered row of the table with its encoding, in batches; bad answers are passed over.

    Args:
        skipped: counts the rows that cannot be used, where that is allowed.

    Raises:
        RowInvalid, TemplateInvalid: naming the row.
    """
    skipped = skipped or Skipped()
    # The tokenizer lets go of the interpreter: one batch is tokenised while the next is rendered.
    with ThreadPoolExecutor(1, thread_name_prefix="tunebook-tokenize") as beside:
        waiting: tuple[list[int], Future[list[Encoded]]] | None = None
        for first in range(0, len(numbers), BATCH):
            batch = numbers[first : first + BATCH]
            kept, rendered = _render_rows(table, batch, detection, encoder, skipped)
            begun = kept, beside.submit(encoder.tokenize, rendered)
            if waiting is not None:
                yield from zip(waiting[0], waiting[1].result(), strict=True)
            waiting = begun
        if waiting is not None:
            yield from zip(waiting[0], waiting[1].result(), strict=True)


def _render_rows(
    table: Dataset, batch: list[int], detection: Detection, encoder: Encoder, skipped: Skipped
) -> tuple[list[int], list[tuple[str, list[Span], bool]]]:
    """The numbers and the rendered texts of those rows of a batch that are learnt from."""
    labelled = detection.format == "unpaired_preference"
    together = batch[-1] - batch[0] == len(batch) - 1  # as they nearly always are
    columns = table[batch[0] : batch[-1] + 1] if together else table[batch]
    kept, rendered = [], []
    for place, number in enumerate(batch):
        row = {name: values[place] for name, values in columns.items()}
        try:
            if labelled and not to_label(row, detection, number=number):
                continue
            rendered.append(encoder.render(to_messages(row, detection, number=number)))
            kept.append(number)
        except RowInvalid as error:
            skipped.take(error)
        except TemplateInvalid as error:
            why = f"row {number} (counted from 0): {error.why}"
            skipped.take(TemplateInvalid(error.what, why, error.do))
    return kept, rendered


def _encode_table(
    numbers: list[int],
    table: Dataset,
    detection: Detection,
    encoder: Encoder,
    progress: Progress | None,
    skipped: Skipped,
) -> RowCollector:
    collected = RowCollector()
    rows = encode_rows(table, numbers, detection, encoder, skipped)
    for done, (number, encoded) in enumerate(rows, start=1):
        collected.add(number, encoded)
        if progress is not None and (done % BATCH == 0 or done == len(numbers)):
            progress(done, len(numbers))
    return collected


def divide_rows(recipe: Recipe, rows: int) -> tuple[list[int], list[int]]:
    """Numbers of the rows to train on and to measure, both in the order of the table.

    Raises:
        DatasetEmpty: there are too few rows to hold some back.
    """
    import random

    numbers = list(range(rows))
    fraction = recipe.data.eval_fraction
    if recipe.data.eval_source is not None or fraction == 0:
        return numbers, []
    held_back = max(1, round(len(numbers) * fraction))
    if held_back >= len(numbers):
        raise DatasetEmpty(
            "There are too few rows to hold some back for evaluation.",
            f"there is {len(numbers)} row, and `data.eval_fraction` is {fraction}.",
            "set `data.eval_fraction` to 0, or add rows.",
        )
    measured = set(random.Random(recipe.training.seed).sample(numbers, held_back))
    return [n for n in numbers if n not in measured], sorted(measured)


def _evaluation(
    recipe: Recipe,
    numbers: list[int],
    table: Dataset,
    detection: Detection,
    encoder: AnyEncoder,
    skipped: Skipped,
    folder: Path | None,
) -> Dataset | VisionRows | None:
    if recipe.data.eval_source is not None:
        loaded = read_rows(eval_part(recipe.data))
        table, skipped = loaded.table, loaded.skipped
        detection = detect_for(eval_part(recipe.data), table)
        require_answers(recipe, detection)
        require_sight(detection, encoder)
        numbers, folder = list(range(len(table))), picture_folder(eval_part(recipe.data))
    if not numbers:
        return None
    rows, counted = _encoded(numbers, table, detection, encoder, None, skipped, folder)
    return rows if counted.lengths else None


def eval_part(data: DataPart) -> DataPart:
    """The data part that `eval_source` means; `name:split` chooses a split, else it is "train"."""
    source, split = data.eval_source or "", "train"
    if ":" in source and not Path(source).exists():
        head, tail = source.rsplit(":", 1)
        if head and "/" not in tail and "\\" not in tail:
            source, split = head, tail
    return data.model_copy(
        update={"source": source, "split": split, "config": None, "eval_source": None}
    )


def _nothing(recipe: Recipe, train: RowCollector, skipped: Skipped) -> NothingToLearn:
    limit = recipe.model.max_seq_length
    if skipped.count and not train.masked:
        return NothingToLearn(
            "Nothing would be learnt: not one row can be used.",
            f"all {skipped.count} rows were left out; the first: {skipped.reasons[0]}",
            "mend the rows, or set `data.on_bad_rows` to `stop` to see each error.",
        )
    return NothingToLearn(
        "Nothing would be learnt: every token of every row is masked.",
        f"none of the {train.masked} rows has a learnt token within {limit} tokens (first: row "
        f"{train.first_masked}); `data.train_on` is `{recipe.data.train_on}`.",
        "give the rows answers, raise `model.max_seq_length`, or set `data.train_on` to `all`.",
    )
