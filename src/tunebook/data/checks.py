"""What is wrong with this data: findings that a person can act on, before any training.

The rows take the very path of training; nothing here changes a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.data.duplicates import NearDuplicates
from tunebook.data.findings import (
    ORDER,
    CheckReport as CheckReport,
    Finding as Finding,
    from_error,
)
from tunebook.data.formats import Detection, detect_for
from tunebook.data.loading import Loaded, read_rows
from tunebook.data.marks import RowMarks
from tunebook.data.mismatch import template_mismatch
from tunebook.data.overlap import Overlap, overlap_of
from tunebook.data.prepare import recipe_encoder, require_answers, require_sight
from tunebook.data.review import Review
from tunebook.data.spool import Skipped
from tunebook.data.templates import with_recipe_template
from tunebook.data.vision_texts import tokenizer_of
from tunebook.errors import DatasetUnreadable, ExtraMissing, SourceMissing, TunebookError
from tunebook.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, ProcessorMixin


def check(
    recipe_or_source: Any,
    *,
    model: str | None = None,
    rows: Any = None,
    tokenizer: PreTrainedTokenizerBase | ProcessorMixin | None = None,
    near_duplicates: bool | None = None,
) -> CheckReport:
    """Look at every row as training would, and say what is wrong.

    Args:
        recipe_or_source: a Recipe, a path or dataset id, or rows in memory.
        model: whose tokenizer is used where no recipe says so; without one, tokens are not checked.
        rows: in-memory data instead of the recipe's source.
        tokenizer: used as it is instead of loading the model's; the processor of one that sees.
        near_duplicates: look for them too; None: if the package for it is installed.

    Raises:
        SourceMissing: there is nothing to check.
        ModelMissing, TokenizerMissing: the model named has no tokenizer to check with. What is
        wrong with the data itself is a finding, never raised.
        ExtraMissing: near-duplicates were asked for, and the package for it is not installed.
    """
    recipe, rows = recipe_of(recipe_or_source, model, rows)
    by_recipe = isinstance(recipe_or_source, Recipe)
    if tokenizer is None and (by_recipe or model is not None):
        from tunebook.data.tokenizers import words_for

        tokenizer = words_for(recipe)
    try:
        loaded = read_readable(recipe, rows)
        detection = detect_for(recipe.data, loaded.table)
    except SourceMissing:
        raise
    except TunebookError as error:
        return CheckReport(findings=[from_error(error)])
    return check_loaded(recipe, loaded, detection, tokenizer, near_duplicates, trains=by_recipe)[0]


def check_loaded(
    recipe: Recipe,
    loaded: Loaded,
    detection: Detection,
    tokenizer: PreTrainedTokenizerBase | ProcessorMixin | None,
    near_duplicates: bool | None = None,
    *,
    trains: bool = True,
) -> tuple[CheckReport, RowMarks]:
    """`check` of rows that are loaded already, with what was found row by row.

    Args:
        trains: the recipe is to be trained, so rows without answers are an error.
    """
    near, missing = _near(near_duplicates)
    encoder = None
    try:
        if trains:
            require_answers(recipe, detection)
        if tokenizer is not None:
            encoder = recipe_encoder(recipe, with_recipe_template(tokenizer, recipe))
            require_sight(detection, encoder)
    except TunebookError as error:
        finding = from_error(error)
        report = CheckReport(findings=[finding], detection=detection, rows=len(loaded.table))
        return report, RowMarks()
    overlap, found = _overlap(recipe, len(loaded.table), near)
    review = Review(detection, encoder, near, overlap)
    _look_at_template(review, tokenizer, recipe)
    report = _report(review, loaded, found, missing)
    for code in _OF_NO_ROW:
        review.marks.found.pop(code, None)
    return report, review.marks


# Their mark on row 0 only says that there is something to report.
_OF_NO_ROW = ("template_mismatch", "skipped_row", "broken_row")


def recipe_of(source: Any, model: str | None, rows: Any) -> tuple[Recipe, Any]:
    """Recipe and rows in memory that a recipe, a source's name or rows mean."""
    if isinstance(source, Recipe):
        return source, rows
    if isinstance(source, str | Path):
        return Recipe.of(model=model, data=str(source)), rows
    return Recipe.of(model=model), source


def read_readable(recipe: Recipe, rows: Any = None) -> Loaded:
    """The rows, without those that cannot be read: one of them hides no finding of the others.

    Its `skipped` tells of them; it is not `allowed` where training would stop at them.

    Raises:
        As `read_rows`; DatasetUnreadable only where no row can be read.
    """
    rows = list(rows) if isinstance(rows, Iterator) else rows
    try:
        return read_rows(recipe.data, rows=rows)
    except DatasetUnreadable as error:
        part = recipe.data.model_copy(update={"on_bad_rows": "skip"})
        try:
            loaded = read_rows(part, rows=rows)
        except TunebookError:
            raise error from None  # nothing else is there to look at
        # What training would stop at comes first, also where it was mended in reading.
        reasons = [f"{error.what} {error.why}", *loaded.skipped.reasons[1:]]
        return Loaded(loaded.table, Skipped(False, max(1, loaded.skipped.count), reasons))


def _report(
    review: Review, loaded: Loaded, findings: list[Finding], missing: list[str]
) -> CheckReport:
    for number, row in enumerate(loaded.table):
        review.look(number, row)
    report = review.report(len(loaded.table))
    skipped = loaded.skipped
    if skipped.count:
        code = "skipped_row" if skipped.allowed else "broken_row"
        review.mark(code, 0, skipped.reasons[0])
        finding = review.finding(code, len(loaded.table))
        title = finding.title.replace("1 rows", f"{skipped.count} rows", 1)
        update = {"count": skipped.count, "examples": [], "title": title}
        findings = [*findings, finding.model_copy(update=update)]
    findings = sorted([*report.findings, *findings], key=lambda found: ORDER[found.severity])
    return report.model_copy(update={"findings": findings, "not_checked": missing})


def _near(wanted: bool | None) -> tuple[NearDuplicates | None, list[str]]:
    if wanted is False:
        return None, []
    try:
        return NearDuplicates(), []
    except ExtraMissing as error:
        if wanted:
            raise
        return None, [f"near-duplicates; {error.do}"]


def _overlap(
    recipe: Recipe, rows: int, near: NearDuplicates | None
) -> tuple[Overlap | None, list[Finding]]:
    """What is measured on, and what is wrong with it."""
    try:
        return overlap_of(recipe, rows, NearDuplicates() if near is not None else None), []
    except TunebookError as error:
        finding = from_error(error)
        return None, [finding.model_copy(update={"title": f"Evaluation data: {finding.title}"})]


def _look_at_template(review: Review, tokenizer: Any, recipe: Recipe) -> None:
    """The one place where the chosen template is compared with the model's own."""
    if tokenizer is not None:
        why = template_mismatch(tokenizer_of(tokenizer), recipe.model.chat_template)
        if why:
            review.mark("template_mismatch", 0, why)
