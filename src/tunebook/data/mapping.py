"""Columns mapped by hand: which column is which part, and a question merged from several.

This module knows names and templates with braces; what a format is, `formats` knows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunebook.data.turns import wrong
from tunebook.errors import FormatUnknown, RecipeInvalid

PARTS = {
    "messages": ["messages", "conversations", "conversation"],
    "prompt": ["prompt", "question", "user"],
    "completion": ["completion", "answer", "response", "assistant"],
    "instruction": ["instruction"],
    "input": ["input"],
    "output": ["output"],
    "system": ["system"],
    "tools": ["tools", "functions"],
    "text": ["text"],
    "chosen": ["chosen"],
    "rejected": ["rejected"],
    "label": ["label"],
    "reference": ["reference", "ground_truth", "solution"],
}
_PART_OF = {alias: part for part, aliases in PARTS.items() for alias in aliases}
_PART = re.compile(r"\[\[(.*?)\]\]|\{(\w[^{}]*)\}", re.DOTALL)
_NAME = re.compile(r"\{(\w[^{}]*)\}")


def standard_columns(columns: dict[str, str], names: list[str]) -> dict[str, str]:
    """A mapping by the parts' own names, after looking that the columns are there.

    Raises:
        RecipeInvalid: a part is unknown, or a column is not in the dataset.
    """
    mapped = {}
    for part, column in columns.items():
        if part not in _PART_OF:
            raise RecipeInvalid(
                f"`data.columns` maps an unknown part, `{part}`.",
                f"parts are {', '.join(PARTS)}.",
                f"write one of these before `={column}`.",
            )
        _require(column, names, "data.columns")
        mapped[_PART_OF[part]] = column
    return mapped


def require_fields(template: str, names: list[str]) -> None:
    """Look that every `{column}` of a merged prompt is a column.

    Raises:
        RecipeInvalid: one is not, or there is none, or a block is not closed.
    """
    fields = MergedPrompt(template).columns
    if not fields:
        raise RecipeInvalid(
            "`data.merged_prompt` names no column.",
            f"{template!r} holds no name in braces.",
            "write columns in braces, such as `{instruction}[[\\nInput: {input}]]`.",
        )
    opened, closed = template.count("[["), template.count("]]")
    if opened != closed:
        raise RecipeInvalid(
            "`data.merged_prompt` has a block that is not closed.",
            f"{template!r} holds {opened} `[[` and {closed} `]]`.",
            "close every `[[` with `]]`.",
        )
    for field in fields:
        _require(field, names, "data.merged_prompt")


def fill(template: str, row: dict[str, Any], place: str) -> str:
    """The merged prompt of one row; `\\n` that was typed is a new line.

    Raises:
        RowInvalid: a column outside of all blocks is missing.
    """
    prompt = MergedPrompt(template.replace("\\n", "\n"))
    for name in prompt.required:
        if row.get(name) is None:
            raise wrong(place, f"`{name}`", "is missing")
    return prompt.fill(row)


@dataclass(frozen=True)
class MergedPrompt:
    """Text with `{column}` names and `[[optional blocks]]`, filled from a row.

    A block is left out where one of its columns is missing or empty:
    `"{instruction}[[\\nInput: {input}]]"`.
    """

    text: str

    @property
    def columns(self) -> list[str]:
        """The columns that the text names, in order."""
        return list(dict.fromkeys(_NAME.findall(self.text)))

    @property
    def required(self) -> list[str]:
        """The columns outside of all blocks."""
        return [name for _, name in _PART.findall(self.text) if name]

    def check(self, columns: Sequence[str]) -> None:
        """See to it that the columns named are there.

        Raises:
            FormatUnknown: naming the one that is not.
        """
        for name in self.columns:
            if name not in columns:
                raise FormatUnknown(
                    "The merged prompt names a column that is not there.",
                    f"it has {{{name}}}; the columns are {', '.join(columns)}.",
                    "name one of these columns in braces.",
                )
        if not self.columns:
            raise FormatUnknown(
                "The merged prompt names no column.",
                f"it is {self.text!r}.",
                "write column names in braces, such as `{instruction}[[\\nInput: {input}]]`.",
            )

    def fill(self, row: dict[str, Any]) -> str:
        """The text for one row."""

        def part(match: re.Match[str]) -> str:
            block, name = match.group(1), match.group(2)
            if name is not None:
                return _said(row.get(name))
            values = {key: _said(row.get(key)) for key in _NAME.findall(block)}
            if not all(values.values()):
                return ""
            return _NAME.sub(lambda found: values[found.group(1)], block)

        return _PART.sub(part, self.text)


def _said(value: Any) -> str:
    return "" if value is None else str(value)


def _require(column: str, names: list[str], field: str) -> None:
    if column not in names:
        listed = ", ".join(f"`{name}`" for name in names) or "none"
        raise RecipeInvalid(
            f"`{field}` names a column that is not there: `{column}`.",
            f"the columns are {listed}.",
            f"write one of these in `{field}`.",
        )
