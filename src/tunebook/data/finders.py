"""One function for each way that columns are known to be named; each gives a detection or None.

Names and the values of a sample are looked at; whether every row agrees, `formats` finds out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, Field

from tunebook.data.conversations import FormatName

_CHAT_COLUMNS = ["messages", "conversations", "conversation", "chat", "dialogue", "dialog", "turns"]
_ITEM_KEYS: dict[Literal["messages", "sharegpt"], tuple[str, str]] = {
    "messages": ("role", "content"),
    "sharegpt": ("from", "value"),
}
PAIRS = [
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("query", "response"),
    ("input", "output"),
    ("instruction", "response"),
    ("prompt", "answer"),
    ("question", "response"),
    ("problem", "solution"),
]
ALPACA_ANSWERS = ["output", "response"]
_PROMPTS = ["prompt", "question", "query", "problem", "input"]
_REFERENCES = ["ground_truth", "reference", "reference_answer", "solution", "answer", "target"]


class Detection(BaseModel):
    """What a dataset's columns mean and how sure that is.

    `columns` gives, for each part of the format, the column (or key) that holds it; `confidence`
    is the share of the sampled rows that agree, lowered where a column's name had to be guessed.
    `merged_prompt`, if it is set, makes the question from several columns. `images` are the columns
    that hold pictures.
    """

    format: FormatName
    confidence: float = Field(ge=0.0, le=1.0)
    columns: dict[str, str]
    reason: str
    disagreeing: list[int] = []
    merged_prompt: str | None = None
    images: list[str] = []


def _find_chat(
    kind: Literal["messages", "sharegpt"],
    names: list[str],
    sample: list[dict[str, Any]],
    among: list[str],
) -> Detection | None:
    role, content = _ITEM_KEYS[kind]
    for name in among:
        item = _first_item(row.get(name) for row in sample)
        if item is None or role not in item or content not in item:
            continue
        columns = {"messages": name, "role": role, "content": content}
        if "system" in names and isinstance(sample[0].get("system"), str | None):
            columns["system"] = "system"
        return Detection(
            format=kind,
            confidence=1.0 if name in _CHAT_COLUMNS else 0.8,
            columns=columns,
            reason=f"The column `{name}` holds lists of turns with `{role}` and `{content}`.",
        )
    return None


def any_chat(names: list[str], sample: list[dict[str, Any]], among: list[str]) -> Detection | None:
    found = _find_chat("messages", names, sample, among)
    return found or _find_chat("sharegpt", names, sample, among)


def _first_item(values: Iterable[Any]) -> dict[str, Any] | None:
    for value in values:
        if isinstance(value, list) and value:
            return value[0] if isinstance(value[0], dict) else None
    return None


def _known(names: list[str]) -> list[str]:
    return [name for name in _CHAT_COLUMNS if name in names]


def _find_messages(names: list[str], sample: list[dict[str, Any]]) -> Detection | None:
    return _find_chat("messages", names, sample, _known(names))


def _find_sharegpt(names: list[str], sample: list[dict[str, Any]]) -> Detection | None:
    return _find_chat("sharegpt", names, sample, _known(names))


def _guess_messages(names: list[str], sample: list[dict[str, Any]]) -> Detection | None:
    return _find_chat("messages", names, sample, _unknown(names))


def _guess_sharegpt(names: list[str], sample: list[dict[str, Any]]) -> Detection | None:
    return _find_chat("sharegpt", names, sample, _unknown(names))


def _unknown(names: list[str]) -> list[str]:
    return [name for name in names if name not in ("chosen", "rejected")]


def _asked(names: list[str], sample: list[dict[str, Any]]) -> dict[str, str]:
    """The columns that hold the question, whichever way it is written; empty if none does."""
    chat = any_chat(names, sample, _known(names))
    if chat is not None:
        return chat.columns
    system = {"system": "system"} if "system" in names else {}
    if "instruction" in names:
        return {"instruction": "instruction"} | {n: n for n in ("input",) if n in names} | system
    prompt = next((name for name in _PROMPTS if name in names), None)
    return {"prompt": prompt} | system if prompt else {}


def _find_preference(names: list[str], sample: list[dict[str, Any]]) -> Detection | None:
    if not {"chosen", "rejected"} <= set(names):
        return None
    asked = _asked(names, sample)
    columns = {**asked, "chosen": "chosen", "rejected": "rejected"}
    held = next(
        (columns[part] for part in ("messages", "instruction", "prompt") if part in asked), ""
    )
    question = f"the question in `{held}`" if held else "the question inside both"
    reason = f"`chosen` is a better answer than `rejected`, with {question}."
    return Detection(format="preference", confidence=1.0, columns=columns, reason=reason)


def _find_unpaired(names: list[str], sample: list[dict[str, Any]]) -> Detection | None:
    labels = [row.get("label") for row in sample if row.get("label") is not None]
    if not labels or not all(value in (True, False, 0, 1) for value in labels):
        return None
    asked = _asked(names, sample)
    if not asked:
        return None
    columns = {**asked, "label": "label"}
    if "messages" not in asked:
        answer = next((name for name in _ANSWERS if name in names), None)
        if answer is None:
            return None
        columns["completion"] = answer
    reason = "`label` says of each answer whether it is a good one."
    return Detection(format="unpaired_preference", confidence=0.95, columns=columns, reason=reason)


_ANSWERS = ["completion", "response", "output", "answer"]


def _find_prompt_only(names: list[str], sample: list[dict[str, Any]]) -> Detection | None:
    asked = _asked(names, sample)
    if not asked or "instruction" in asked:
        return None
    reference = next(
        (name for name in _REFERENCES if name in names and name not in asked.values()), None
    )
    columns = {**asked, **({"reference": reference} if reference else {})}
    held = asked.get("messages") or asked["prompt"]
    tail = f", `{reference}` the reference to compare an answer with." if reference else " alone."
    return Detection(
        format="prompt_only",
        confidence=0.9 if reference else 0.8,
        columns=columns,
        reason=f"The column `{held}` is a question{tail}",
    )


def _find_asked_list(names: list[str], sample: list[dict[str, Any]]) -> Detection | None:
    """Questions as lists of messages beside a reference: what reinforcement is given."""
    value = next((row["prompt"] for row in sample if row.get("prompt")), None)
    answered = any(name in names for name in ("completion", "response"))
    return _find_prompt_only(names, sample) if isinstance(value, list) and not answered else None


def _find_alpaca(names: list[str], sample: list[dict[str, Any]]) -> Detection | None:
    answer = next((name for name in ALPACA_ANSWERS if name in names), None)
    if "instruction" not in names or answer is None:
        return None
    columns = {"instruction": "instruction", "output": answer}
    columns |= {name: name for name in ("input", "system") if name in names}
    listed = ", ".join(f"`{name}`" for name in columns.values())
    reason = f"The columns {listed} are those of instruction data."
    return Detection(format="alpaca", confidence=1.0, columns=columns, reason=reason)


def _find_pair(names: list[str], sample: list[dict[str, Any]]) -> Detection | None:
    for prompt, completion in PAIRS:
        if prompt in names and completion in names:
            columns = {"prompt": prompt, "completion": completion}
            columns |= {"system": "system"} if "system" in names else {}
            return Detection(
                format="prompt_completion",
                confidence=1.0,
                columns=columns,
                reason=f"The column `{prompt}` is a question and `{completion}` its answer.",
            )
    return None


def _find_text(names: list[str], sample: list[dict[str, Any]]) -> Detection | None:
    if "text" in names:
        reason = "The column `text` is plain text, learnt from the first to the last word."
        return Detection(format="text", confidence=1.0, columns={"text": "text"}, reason=reason)
    if len(names) == 1 and isinstance(sample[0].get(names[0]), str):
        reason = f"The only column, `{names[0]}`, holds text."
        return Detection(format="text", confidence=0.6, columns={"text": names[0]}, reason=reason)
    return None


FINDER_OF = {
    "preference": [_find_preference],
    "unpaired_preference": [_find_unpaired],
    "messages": [_find_messages, _guess_messages],
    "sharegpt": [_find_sharegpt, _guess_sharegpt],
    "alpaca": [_find_alpaca],
    "prompt_completion": [_find_pair],
    "prompt_only": [_find_prompt_only],
    "text": [_find_text],
}
# Preferences before all, since they hold a chat or a pair too. A chat column of an unknown name
# is guessed only where nothing better fits.
FINDERS = [
    *(_find_preference, _find_unpaired, _find_messages, _find_sharegpt, _find_alpaca),
    *(_find_asked_list, _find_pair, _find_prompt_only, _find_text),
    *(_guess_messages, _guess_sharegpt),
]
