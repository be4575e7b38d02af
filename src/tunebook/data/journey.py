"""One row through all stages: raw, as messages, as text, as tokens, and where training puts it.

Every stage is what training itself makes; a stage that fails ends the journey and says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

from tunebook.data.checks import check_loaded
from tunebook.data.conversations import to_messages
from tunebook.data.formats import Detection, detect_for
from tunebook.data.loading import read_rows
from tunebook.data.masking import Encoded
from tunebook.data.placing import Placement, RowPlaces
from tunebook.data.prepare import AnyEncoder, recipe_encoder, sees
from tunebook.data.templates import with_recipe_template
from tunebook.data.tokens import TEMPLATE, TokenView, json_safe, token_view
from tunebook.errors import RowInvalid, TunebookError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

    from tunebook.recipe import Recipe

StageName = Literal["raw", "messages", "text", "tokens", "packed"]


class TextPiece(BaseModel):
    """A piece of the rendered text, of one turn or, with `turn` -1, of the template."""

    text: str
    turn: int
    role: str
    trained: bool


class RowJourney(BaseModel):
    """One row, stage by stage; the pieces of `text` joined give the rendered row without any cut.

    `tools` are the schemas that the row offers, None where it offers none, and `tools_shown` says
    whether the chat template writes them.
    `failed` is the stage that could not be made, with its `error`; what follows it is empty.
    """

    row: int
    raw: dict[str, Any]
    messages: list[dict[str, Any]] = []
    tools: list[dict[str, Any]] | None = None
    tools_shown: bool | None = None
    text: list[TextPiece] = []
    tokens: TokenView | None = None
    packed: Placement = Placement(state="unknown")
    failed: StageName | None = None
    error: dict[str, str] | None = None


def follow_row(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase, row: int, *, rows: Any = None
) -> RowJourney:
    """One row through all stages; all rows are read and encoded to know where it lands.

    Args:
        tokenizer: the model's; the recipe's chat template is put on a copy of it.
        row: its number from 0.
        rows: in-memory data instead of the recipe's source.

    Raises:
        RowInvalid: there is no row of that number.
        Whatever `load_rows` and `detect_format` raise.
    """
    loaded = read_rows(recipe.data, rows=rows)
    if not 0 <= row < len(loaded.table):
        raise RowInvalid(
            f"There is no row {row}.",
            f"rows are counted from 0, and there are {len(loaded.table)}.",
            f"ask for a row from 0 to {len(loaded.table) - 1}.",
        )
    detection = detect_for(recipe.data, loaded.table)
    _, marks = check_loaded(recipe, loaded, detection, tokenizer, near_duplicates=False)
    encoder = recipe_encoder(recipe, with_recipe_template(tokenizer, recipe), every_turn=True)
    places = RowPlaces(recipe, marks, len(loaded.table))
    return journey_of(loaded.table[row], row, detection, encoder, places)


def journey_of(
    raw: dict[str, Any],
    number: int,
    detection: Detection,
    encoder: AnyEncoder,
    places: RowPlaces | None = None,
    values: Sequence[float | None] = (),
) -> RowJourney:
    """`follow_row` for whoever has read and checked the rows already.

    Args:
        encoder: with `every_turn`.
        places: of all rows; without them the last stage is not known.
        values: what was measured at each token, such as its loss.
    """
    journey = RowJourney(row=number, raw=json_safe(raw))
    if places is not None:
        journey.packed = places.of(number)
    stage: StageName = "messages"
    try:
        messages = to_messages(raw, detection, number=number, pictures=sees(encoder))
        journey.messages, journey.tools = json_safe(messages), json_safe(messages.tools)
        stage = "text"
        encoded = encoder(messages)
        if messages.tools:
            journey.tools_shown = encoder.renderer(messages.tools).shows_tools
    except TunebookError as error:
        journey.failed, journey.error = stage, error.to_dict()
        return journey
    journey.text = pieces(encoded)
    journey.tokens = token_view(encoder.tokenizer, encoded, row=number, values=values)
    return journey


def pieces(encoded: Encoded) -> list[TextPiece]:
    """The rendered text, cut where turns begin and end."""
    found: list[TextPiece] = []
    cursor = 0

    def take(end: int, turn: int, role: str, trained: bool) -> None:
        nonlocal cursor
        if end > cursor:
            text = encoded.text[cursor:end]
            found.append(TextPiece(text=text, turn=turn, role=role, trained=trained))
            cursor = end

    for span in encoded.spans:
        take(span.start, -1, TEMPLATE, False)
        take(span.end, span.turn, span.role, span.trained)
    take(len(encoded.text), -1, TEMPLATE, False)
    return found
