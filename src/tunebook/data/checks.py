"""What is wrong with this data: findings that a person can act on, before any training.

The rows take the very path of training; nothing here changes a row.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.data.conversations import to_messages
from tunebook.data.duplicates import NearDuplicates, chat_digest
from tunebook.data.findings import (
    CheckReport as CheckReport,
    Finding as Finding,
    from_error,
)
from tunebook.data.formats import Detection, detect_for
from tunebook.data.loading import Loaded, load_rows, read_rows
from tunebook.data.marks import RowMarks
from tunebook.data.mismatch import template_mismatch
from tunebook.data.prepare import eval_part, recipe_encoder, require_answers
from tunebook.data.review import Review
from tunebook.data.templates import with_recipe_template
from tunebook.errors import ExtraMissing, RowInvalid, SourceMissing, TunebookError
from tunebook.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check(
    recipe_or_source: Any,
    *,
    model: str | None = None,
    rows: Any = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    near_duplicates: bool | None = None,
) -> CheckReport:
    """Look at every row as training would, and say what is wrong.

    Args:
        recipe_or_source: a Recipe, a path or dataset id, or rows in memory.
        model: whose tokenizer is used where no recipe says so; without one, tokens are not checked.
        rows: in-memory data instead of the recipe's source.
        tokenizer: used as it is instead of loading the model's.
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
        from tunebook.models.loading import load_tokenizer

        tokenizer = load_tokenizer(recipe.model)
    try:
        loaded = read_rows(recipe.data, rows=rows)
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
    tokenizer: PreTrainedTokenizerBase | None,
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
    except TunebookError as error:
        findings = [from_error(error)]
        report = CheckReport(findings=findings, detection=detection, rows=len(loaded.table))
        return report, RowMarks()
    measured, found = _measured(recipe)
    review = Review(detection, encoder, near, measured)
    _look_at_template(review, tokenizer, recipe)
    report = _report(review, loaded, found, missing)
    for code in _OF_NO_ROW:
        review.marks.found.pop(code, None)
    return report, review.marks


# Their mark on row 0 only says that there is something to report.
_OF_NO_ROW = ("template_mismatch", "skipped_row")


def recipe_of(source: Any, model: str | None, rows: Any) -> tuple[Recipe, Any]:
    """Recipe and rows in memory that a recipe, a source's name or rows mean."""
    if isinstance(source, Recipe):
        return source, rows
    if isinstance(source, str | Path):
        return Recipe.of(model=model, data=str(source)), rows
    return Recipe.of(model=model), source


def _report(
    review: Review, loaded: Loaded, findings: list[Finding], missing: list[str]
) -> CheckReport:
    for number, row in enumerate(loaded.table):
        review.look(number, row)
    report = review.report(len(loaded.table))
    skipped = loaded.skipped
    if skipped.count:
        review.mark("skipped_row", 0, skipped.reasons[0])
        finding = review.finding("skipped_row", len(loaded.table))
        title = finding.title.replace("1 rows", f"{skipped.count} rows", 1)
        update = {"count": skipped.count, "examples": [], "title": title}
        findings = [*findings, finding.model_copy(update=update)]
    return report.model_copy(
        update={"findings": [*report.findings, *findings], "not_checked": missing}
    )


def _near(wanted: bool | None) -> tuple[NearDuplicates | None, list[str]]:
    if wanted is False:
        return None, []
    try:
        return NearDuplicates(), []
    except ExtraMissing as error:
        if wanted:
            raise
        return None, [f"near-duplicates; {error.do}"]


def _measured(recipe: Recipe) -> tuple[set[bytes], list[Finding]]:
    """Digests of the evaluation rows, and what is wrong with them."""
    if recipe.data.eval_source is None:
        return set(), []
    try:
        return evaluation_digests(recipe), []
    except TunebookError as error:
        finding = from_error(error)
        return set(), [finding.model_copy(update={"title": f"Evaluation data: {finding.title}"})]


def evaluation_digests(recipe: Recipe) -> set[bytes]:
    """Digests of the conversations that a recipe measures on, from its own evaluation source."""
    part = eval_part(recipe.data)
    table = load_rows(part)
    detection = detect_for(part, table)
    digests = set()
    for row in table:
        try:
            digests.add(chat_digest(to_messages(row, detection)))
        except RowInvalid:
            continue
    return digests


def _look_at_template(review: Review, tokenizer: Any, recipe: Recipe) -> None:
    """The one place where the chosen template is compared with the model's own."""
    if tokenizer is not None:
        why = template_mismatch(tokenizer, recipe.model.chat_template)
        if why:
            review.mark("template_mismatch", 0, why)
