"""What the columns of a dataset mean: chat, instructions, questions, preferences, plain text.

This module looks at names and at the first rows; it knows no tokenizer and no template.
"""

from __future__ import annotations

from typing import Any

from tunebook.data.conversations import FormatName, to_label, to_messages, to_preference
from tunebook.data.finders import (
    ALPACA_ANSWERS,
    FINDER_OF,
    FINDERS,
    PAIRS,
    Detection as Detection,
    any_chat,
)
from tunebook.data.mapping import require_fields, standard_columns
from tunebook.data.pictures import picture_columns
from tunebook.data.tools import tools_column
from tunebook.errors import FormatUnknown, RecipeInvalid, RowInvalid
from tunebook.recipe import DataPart

SAMPLE = 100
INSTRUCTION = "Write what this picture shows."
"""What is asked about pictures with a text, where no column and no `data.merged_prompt` asks."""
CAPTIONS = ("caption", "description", "latex", "formula", "transcription", "text", "label")
_ANSWERS, _ASKED = {"completion", "output"}, {"prompt", "instruction", "messages"}
KNOWN = (
    "`messages` (list of role/content), `conversations` (list of from/value), "
    "`instruction`/`input`/`output`, `prompt`/`completion`, `question`/`answer`, `text`, "
    "`chosen`/`rejected`, `prompt`/`completion`/`label`, `prompt`"
)


def detect_for(part: DataPart, rows: Any) -> Detection:
    """What the columns mean, as a recipe's data part says or lets find out.

    Raises:
        FormatUnknown, RecipeInvalid: as `detect_format`.
    """
    return detect_format(
        rows,
        part.format,
        columns=part.columns,
        merged_prompt=part.merged_prompt,
        image_columns=part.image_columns,
    )


def detect_format(
    rows: Any,
    format: str = "auto",
    *,
    columns: dict[str, str] | None = None,
    merged_prompt: str | None = None,
    image_columns: list[str] | None = None,
) -> Detection:
    """Find out what the columns mean from their names and the first 100 rows.

    Args:
        rows: a `datasets.Dataset` or a list of dicts, with at least one row.
        format: a format's name, to be taken without looking further; "auto" tries all.
        columns: part to column, taken instead of looking at names; `tools` alone goes with
            whatever the other names mean.
        merged_prompt: the question as text with `{column}` and optional `[[blocks]]`; of rows with
            pictures it may be the same for all.
        image_columns: the columns that hold pictures; None looks for them, [] takes none.

    Raises:
        FormatUnknown: no format fits, or the one named needs columns that are not there.
        RecipeInvalid: the mapping names a part or a column that is not there.
    """
    sample = [rows[index] for index in range(min(SAMPLE, len(rows)))]
    named = getattr(rows, "column_names", None)
    names: list[str] = list(named or dict.fromkeys(key for row in sample for key in row))
    mapped = standard_columns(columns or {}, names)
    images = _images(names, sample, image_columns)
    words = [name for name in names if name not in images]
    if mapped.keys() - {"tools"} or merged_prompt:
        found = _by_hand(words, sample, format, mapped, merged_prompt, bool(images))
        return _compare(_with_images(found, images), sample)
    for finder in FINDERS if format == "auto" else FINDER_OF[format]:
        named_so = finder(words, sample)
        if named_so is not None:
            found = _with_tools(named_so, names, sample, mapped.get("tools"))
            return _compare(_with_images(found, images), sample)
    caption = next((name for name in CAPTIONS if images and name in words), None)
    if caption is not None and format in ("auto", "prompt_completion"):
        return _compare(_with_images(_captioned(caption, 0.9), images), sample)
    listed = ", ".join(f"`{name}`" for name in names) or "none"
    if format == "auto":
        raise FormatUnknown(
            "The format of the dataset is not known.",
            f"its columns are {listed}; known are {KNOWN}.",
            "rename the columns to one of these, or set `data.format`; `data.columns` maps others.",
        )
    raise FormatUnknown(
        f"The dataset is not in the format `{format}`.",
        f"its columns are {listed}; known are {KNOWN}.",
        'set `data.format` to "auto", or name the columns in `data.columns`.',
    )


def _images(names: list[str], sample: list[dict[str, Any]], wanted: list[str] | None) -> list[str]:
    for name in wanted or ():
        if name not in names:
            raise RecipeInvalid(
                f"`data.image_columns` names a column that is not there: `{name}`.",
                f"the columns are {', '.join(f'`{item}`' for item in names)}.",
                "write one of these, or leave it empty to let them be found.",
            )
    return picture_columns(names, sample) if wanted is None else list(wanted)


def _captioned(column: str, confidence: float) -> Detection:
    """Pictures with nothing but a text to each: the text is the answer."""
    reason = f"`{column}` is what is to be said of each picture; asked is: {INSTRUCTION}"
    return Detection(
        format="prompt_completion",
        confidence=confidence,
        columns={"completion": column},
        reason=reason,
        merged_prompt=INSTRUCTION,
    )


def _with_images(found: Detection, images: list[str]) -> Detection:
    """The detection with the columns of pictures."""
    if not images:
        return found
    if found.format == "text":
        found = _captioned(found.columns["text"], found.confidence)
    listed = ", ".join(f"`{name}`" for name in images)
    reason = f"{found.reason} Pictures are in {listed}."
    return found.model_copy(update={"images": images, "reason": reason})


def row_format(row: dict[str, Any]) -> FormatName | None:
    """The format that one row looks like by itself; None if it is like none."""
    held = {key: value for key, value in row.items() if value not in (None, "", [])}
    for finder in FINDERS:
        found = finder(list(held), [held])
        if found is not None:
            return found.format
    return None


def look_at(row: dict[str, Any], detection: Detection, *, number: int | None = None) -> None:
    """Raise `RowInvalid` unless the row has all that its format needs."""
    if detection.format == "preference":
        to_preference(row, detection, number=number)
    if detection.format == "unpaired_preference":
        to_label(row, detection, number=number)
    to_messages(row, detection, number=number, pictures=True)


def _compare(found: Detection, sample: list[dict[str, Any]]) -> Detection:
    disagreeing, others = [], set()
    for number, row in enumerate(sample):
        try:
            look_at(row, found, number=number)
        except RowInvalid:
            disagreeing.append(number)
            others.add(row_format(row))
    share = 1 - len(disagreeing) / max(1, len(sample))
    reason = found.reason
    if disagreeing:
        first = ", ".join(map(str, disagreeing[:3])) + (", …" if len(disagreeing) > 3 else "")
        reason += f" {len(disagreeing)} of the first {len(sample)} rows do not fit (rows {first})"
        other = sorted(name for name in others if name not in (None, found.format))
        reason += f"; they look like {' and '.join(f'`{n}`' for n in other)}." if other else "."
    confidence = round(found.confidence * share, 3)
    return found.model_copy(
        update={"disagreeing": disagreeing, "confidence": confidence, "reason": reason}
    )


def _with_tools(
    found: Detection, names: list[str], sample: list[dict[str, Any]], mapped: str | None
) -> Detection:
    """The detection with the column of tools, mapped or found, where a chat could use it."""
    name = mapped or tools_column(names, sample)
    if name is None or name in found.columns.values() or found.format == "text":
        return found
    reason = f"{found.reason} `{name}` holds the tools that the model may call."
    return found.model_copy(update={"columns": {**found.columns, "tools": name}, "reason": reason})


def _by_hand(
    names: list[str],
    sample: list[dict[str, Any]],
    format: str,
    columns: dict[str, str],
    merged_prompt: str | None,
    pictures: bool,
) -> Detection:
    """The detection that a mapping by hand means."""
    if pictures and not merged_prompt and columns.keys() & _ANSWERS and not columns.keys() & _ASKED:
        merged_prompt = INSTRUCTION
    if merged_prompt:
        if not pictures or "{" in merged_prompt:
            require_fields(merged_prompt, names)
        if not columns.keys() & {"completion", "output", "chosen", "text"}:
            answers = [*ALPACA_ANSWERS, *dict.fromkeys(answer for _, answer in PAIRS)]
            answers += CAPTIONS if pictures else ()
            answer = next((name for name in answers if name in names), None)
            columns |= {"completion": answer} if answer else {}
    kind = _kind_of(set(columns) | ({"prompt"} if merged_prompt else set()))
    if kind is None or (
        format not in ("auto", kind) and (format, kind) != ("sharegpt", "messages")
    ):
        raise FormatUnknown(
            "`data.columns` does not make a whole row.",
            f"it maps {', '.join(f'`{part}`' for part in columns) or 'nothing'}"
            + (f", and `data.format` is `{format}`." if format != "auto" else "."),
            "map `messages`; or `prompt` and `completion`; or `text`; or `chosen` and `rejected`.",
        )
    if "messages" in columns:
        chat = any_chat(names, sample, [columns["messages"]])
        if chat is not None:
            kind = chat.format if kind == "messages" else kind
            columns = chat.columns | columns
    listed = ", ".join(f"{part}=`{column}`" for part, column in columns.items())
    reason = f"Mapped by hand: {listed}" if listed else "Mapped by hand"
    if merged_prompt and "{" in merged_prompt:
        reason += "; the question is merged from several columns."
    else:
        reason += f"; asked of each is: {merged_prompt}" if merged_prompt else "."
    return Detection(
        format=kind, confidence=1.0, columns=columns, reason=reason, merged_prompt=merged_prompt
    )


def _kind_of(parts: set[str]) -> FormatName | None:
    """The format whose parts these are."""
    asked = bool(parts & {"prompt", "instruction", "messages"})
    if {"chosen", "rejected"} <= parts:
        return "preference"
    if "label" in parts and asked:
        return "unpaired_preference"
    if "messages" in parts:
        return "messages"
    if asked and parts & {"output", "completion"}:
        return "alpaca" if "instruction" in parts else "prompt_completion"
    if asked:
        return "prompt_only"
    return "text" if "text" in parts else None
