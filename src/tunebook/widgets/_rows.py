"""The rows of a recipe as the data panel needs them: plain data from the path that training uses.

Reads through `tunebook.data`; knows no widget.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunebook.recipe import Recipe

FIRST_ROWS = 20  # of a file, before all of it is read
MOST_TOKENS = 3000  # of one row, in the page
MOST_TEXT = 20_000  # characters of one message, in the page
FORMATS = {
    "messages": "Chat: lists of role and content",
    "sharegpt": "Chat: lists of from and value (ShareGPT)",
    "alpaca": "Instruction, input and output (Alpaca)",
    "prompt_completion": "Question and answer",
    "text": "Plain text",
    "preference": "Preference: a chosen and a rejected answer",
    "unpaired_preference": "Answers labelled good or bad",
    "prompt_only": "Questions without an answer to learn",
}


class RowReader:
    """The rows of one recipe; each is encoded when it is looked at.

    Of a local file only the first rows are read until `read_all`, so that a page shows at once
    however large the file is.

    Args:
        tokenizer: the model's, with the recipe's template on it.
        rows: rows in memory instead of the recipe's source.

    Raises:
        SourceMissing, DatasetUnreadable, DatasetEmpty, FormatUnknown, TemplateInvalid: as they say.
    """

    def __init__(self, recipe: Recipe, tokenizer: Any, *, rows: Any = None):
        from tunebook.data.formats import detect_for
        from tunebook.data.loading import read_page
        from tunebook.data.prepare import recipe_encoder

        self.recipe = recipe
        self._given = rows
        self._rows: Any = None
        self._tokenizer = tokenizer
        self._encoder = recipe_encoder(recipe, tokenizer, every_turn=True)
        if rows is None and Path(recipe.data.source).expanduser().is_file():
            self._rows, head = read_page(recipe.data, 0, FIRST_ROWS)
            self.detection = detect_for(recipe.data, head)
        else:
            self.read_all()

    def read_all(self) -> None:
        """Read every row, and detect the format from them."""
        from tunebook.data import load_rows
        from tunebook.data.formats import detect_for

        self._rows = load_rows(self.recipe.data, rows=self._given)
        self.detection = detect_for(self.recipe.data, self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def format_dict(self) -> dict[str, Any]:
        """What was detected, in words."""
        found = self.detection
        words = f"{FORMATS.get(found.format, found.format)}. {found.reason}"
        return {"name": found.format, "words": words, "columns": found.columns}

    def view(self, row: int) -> dict[str, Any]:
        """Messages, tokens and counts of one row, as a DataPanel's traits.

        Raises:
            RowInvalid, TemplateInvalid: this row cannot be encoded.
        """
        from tunebook.data import to_messages, token_view

        messages = to_messages(self._rows[row], self.detection, number=row)
        view = token_view(self._tokenizer, self._encoder(messages), row=row)
        return {
            "conversation": [
                {"role": str(item["role"]), "content": _shortened(str(item["content"]))}
                for item in messages
            ],
            "tokens": [[cell.text, cell.id, _kind(cell)] for cell in view.tokens[:MOST_TOKENS]],
            "counts": {
                "tokens": view.n_tokens,
                "trained": view.n_trained,
                "truncated": view.truncated,
                "shown": min(view.n_tokens, MOST_TOKENS),
            },
        }

    def check(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Figures of all rows, and what is wrong with them, worst first."""
        from tunebook.data import check

        report = check(self.recipe, rows=self._given, tokenizer=self._tokenizer)
        findings = [finding.model_dump(mode="json") for finding in report.findings]
        if report.statistics is None:
            return {}, findings
        statistics = report.statistics.model_dump(mode="json")
        tokens = statistics["tokens"]
        statistics["trained_share"] = statistics["trained_tokens"] / tokens if tokens else 0.0
        return statistics, findings


def data_size(statistics: dict[str, Any]) -> Any:
    """The plan's `DataSize` from figures, or None while nothing is counted."""
    from tunebook.plan import DataSize

    if not statistics.get("rows") or not statistics.get("tokens"):
        return None
    return DataSize(
        rows=statistics["rows"],
        mean_length=statistics["mean_length"],
        max_length=statistics["longest"],
    )


def _kind(cell: Any) -> str:
    kind = "trained" if cell.trained else "masked"
    return f"{kind} special" if cell.special else kind


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]} …"
