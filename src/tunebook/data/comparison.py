"""One row under two chat templates, token by token, with what only one of them has.

Both sides come from the path of training; this module only lays them side by side.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from tunebook.data.conversations import Message, to_messages
from tunebook.data.formats import detect_for
from tunebook.data.loading import read_page
from tunebook.data.prepare import recipe_encoder
from tunebook.data.templates import with_recipe_template
from tunebook.data.tokens import TokenView, token_view
from tunebook.errors import RowInvalid, TemplateInvalid

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tunebook.recipe import Recipe

SAME, ONLY, MASK = "same", "only", "mask"
_LONG = 1500  # tokens; beyond it very frequent ones no longer begin a match


class TemplateSide(BaseModel):
    """The row under one template ("" is the model's own); `error` where it refuses the row.

    `marks` says of each token: "same" on both sides, "only" on this side, or "mask" where the token
    is the same and only whether it is learnt differs.
    """

    template: str
    view: TokenView | None = None
    marks: list[str] = []
    error: dict[str, str] | None = None


class TemplateComparison(BaseModel):
    """The row under the recipe's template (`mine`) and under another."""

    row: int
    mine: TemplateSide
    other: TemplateSide

    @property
    def same(self) -> bool:
        """Whether both give the same tokens and learn the same ones."""
        sides = [self.mine, self.other]
        return all(side.view and set(side.marks) <= {SAME} for side in sides)

    def __str__(self) -> str:
        for side in (self.mine, self.other):
            if side.error is not None:
                return f"One of the templates refuses this row: {side.error['why']}"
        if self.same:
            return "Both templates make the same tokens of this row, and learn the same ones."
        left, right = self.mine.marks.count(ONLY), self.other.marks.count(ONLY)
        masks = self.mine.marks.count(MASK)
        return (
            f"{left:,} tokens are made by the first template only, {right:,} by the second only"
            + (f"; {masks:,} are learnt under one of them only." if masks else ".")
        )


def compare_templates(
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    row: int,
    other: str,
    *,
    rows: Any = None,
) -> TemplateComparison:
    """One row under the recipe's chat template and under another.

    Args:
        tokenizer: the model's, with its own template; the templates are put on copies of it.
        row: the row's number from 0.
        other: a template as in `model.chat_template`; "" means the model's own.
        rows: in-memory data instead of the recipe's source.

    Raises:
        RowInvalid: there is no such row, or it is no conversation.
        TemplateInvalid: the other template is unknown or no Jinja. One that refuses the row is an
            error of its side.
        Whatever `read_page` and `detect_format` raise.
    """
    page, head = read_page(recipe.data, max(0, row), 1, rows=rows)
    if row < 0 or not page:
        raise RowInvalid(
            f"There is no row {row}.", "rows are counted from 0.", "choose a smaller number."
        )
    seen = hasattr(tokenizer, "image_processor")
    messages = to_messages(page[0], detect_for(recipe.data, head), number=row, pictures=seen)
    return compare_messages(recipe, tokenizer, messages, other, row=row)


def compare_messages(
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    messages: list[Message],
    other: str,
    *,
    row: int = 0,
) -> TemplateComparison:
    """`compare_templates` for a row that is read already."""
    mine = _side(recipe, tokenizer, messages, recipe.model.chat_template or "", row)
    theirs = _side(recipe, tokenizer, messages, other, row)
    if mine.view is not None and theirs.view is not None:
        mine.marks, theirs.marks = token_marks(mine.view, theirs.view)
    return TemplateComparison(row=row, mine=mine, other=theirs)


def token_marks(mine: TokenView, other: TokenView) -> tuple[list[str], list[str]]:
    """For each token of two views: "same", "only" (on its side) or "mask"."""
    a, b = [cell.id for cell in mine.tokens], [cell.id for cell in other.tokens]
    marks_a, marks_b = [ONLY] * len(a), [ONLY] * len(b)
    junk = max(len(a), len(b)) > _LONG
    matcher = difflib.SequenceMatcher(None, a, b, autojunk=junk)
    for block in matcher.get_matching_blocks():
        for i, j in zip(
            range(block.a, block.a + block.size),
            range(block.b, block.b + block.size),
            strict=True,
        ):
            alike = mine.tokens[i].trained == other.tokens[j].trained
            marks_a[i] = marks_b[j] = SAME if alike else MASK
    return marks_a, marks_b


def _side(
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    messages: list[Message],
    template: str,
    row: int,
) -> TemplateSide:
    """The row under one template; an unknown template raises, one that refuses the row does not."""
    recipe = recipe.with_values({"model.chat_template": template or None})
    dressed = with_recipe_template(tokenizer, recipe)
    try:
        encoded = recipe_encoder(recipe, dressed, every_turn=True)(messages)
    except TemplateInvalid as error:
        return TemplateSide(template=template, error=error.to_dict())
    return TemplateSide(template=template, view=token_view(dressed, encoded, row=row))
