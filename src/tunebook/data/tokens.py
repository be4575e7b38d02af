"""The token view: every token of a row as the panel shows it, coloured by what is learnt.

Pure data: it encodes nothing itself, and what it shows is what `masking` made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from tunebook.data.conversations import to_messages
from tunebook.data.formats import detect_for
from tunebook.data.loading import read_page
from tunebook.data.masking import MASKED, Encoded
from tunebook.data.prepare import recipe_encoder, sees
from tunebook.data.templates import with_recipe_template
from tunebook.data.vision import ImageSpan
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tunebook.recipe import Recipe

LONGEST_TEXT = 2000
TEMPLATE = "template"


class TokenCell(BaseModel):
    """One token: `text` is the part of the row that it adds.

    A character that is spread over several tokens stands in the first of them; the others have an
    empty `text` and `continues` set. `turn` is -1 and `role` "template" outside of all turns.
    `value` is what was measured at this token, such as its loss; None where nothing was.
    """

    id: int
    text: str
    trained: bool
    special: bool
    turn: int
    role: str
    continues: bool = False
    value: float | None = None


class TokenView(BaseModel):
    """One row, token by token; the texts joined give the rendered row up to the cut.

    `images` are its pictures, each a stretch of tokens.
    """

    tokens: list[TokenCell]
    row: int
    truncated: bool
    n_tokens: int
    n_trained: int
    n_cut: int = 0
    images: list[ImageSpan] = []


def token_view(
    tokenizer: PreTrainedTokenizerBase,
    encoded: Encoded,
    *,
    row: int = 0,
    values: Sequence[float | None] = (),
) -> TokenView:
    """The cells of one encoded row.

    Args:
        row: the row's number from 0, carried along for the panel.
        values: what was measured at each token, such as its loss; tokens beyond its end, and those
            whose value is no finite number, have none.
    """
    special = special_ids(tokenizer)
    cells: list[TokenCell] = []
    cursor = 0
    last = len(encoded.input_ids) - 1
    offsets = encoded.offsets  # of a row of a megabyte, seconds to make
    for index, (token, label) in enumerate(zip(encoded.input_ids, encoded.labels, strict=True)):
        start, end = offsets[index]
        if index == last and not encoded.truncated:
            end = len(encoded.text)
        turn, role = _owner(encoded, start)
        cells.append(
            TokenCell(
                id=token,
                text=encoded.text[cursor : max(cursor, end)],
                trained=label != MASKED,
                special=token in special,
                turn=turn,
                role=role,
                continues=index > 0 and end <= cursor,
                value=_finite(values[index]) if index < len(values) else None,
            )
        )
        cursor = max(cursor, end)
    return TokenView(
        tokens=cells,
        row=row,
        truncated=encoded.truncated,
        n_tokens=len(cells),
        n_trained=encoded.n_trained,
        n_cut=max(0, encoded.length - len(cells)),
        images=getattr(encoded, "images", []),
    )


def special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The ids of the tokens that stand for no ordinary text."""
    added = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


def preview_rows(
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    start: int = 0,
    count: int = 10,
    *,
    rows: Any = None,
) -> list[dict[str, Any]]:
    """Some rows for the data panel, each JSON-safe.

    Returns:
        For each row `row` (its number from 0), `raw` (the columns, long texts cut at 2000
        characters), `messages`, `tools` (None, or their schemas), `view` (a dumped `TokenView`), and
        `error` (None, or the dict of the error that this row alone has; then `view` is None).

    Raises:
        Whatever `read_page` and `detect_format` raise.
    """
    tokenizer = with_recipe_template(tokenizer, recipe)
    start = max(0, start)
    page, head = read_page(recipe.data, start, max(0, count), rows=rows)
    detection = detect_for(recipe.data, head)
    encoder = recipe_encoder(recipe, tokenizer, every_turn=True)
    shown = []
    for number, raw in enumerate(page, start=start):
        item: dict[str, Any] = {"row": number, "raw": json_safe(raw)}
        item |= {"messages": [], "tools": None, "view": None, "error": None}
        try:
            messages = to_messages(raw, detection, number=number, pictures=sees(encoder))
            item |= {"messages": json_safe(messages), "tools": json_safe(messages.tools)}
            view = token_view(tokenizer, encoder(messages), row=number)
            item["view"] = view.model_dump(mode="json")
        except TunebookError as error:
            item["error"] = error.to_dict()
        shown.append(item)
    return shown


def json_safe(value: Any) -> Any:
    """The value as plain JSON: long texts cut, bytes and other objects described."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    if isinstance(value, str):
        return value if len(value) <= LONGEST_TEXT else value[:LONGEST_TEXT] + "…"
    if isinstance(value, dict):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(item) for item in value]
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    return json_safe(str(value))


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _owner(encoded: Encoded, start: int) -> tuple[int, str]:
    for span in encoded.spans:
        if span.start <= start < span.end:
            return span.turn, span.role
    return -1, TEMPLATE
