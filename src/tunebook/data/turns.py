"""One turn of a conversation, in whatever dialect it was written, as one message of today.

This module knows roles, content parts, reasoning and tool calls; it knows no rows and no columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tunebook.errors import RowInvalid

Message = dict[str, Any]

ROLE_ALIASES = {
    "system": ["system", "developer", "system_prompt", "context"],
    "user": ["user", "human", "prompter", "input", "question", "instruction", "customer"],
    "assistant": [
        *("assistant", "gpt", "chatgpt", "bot", "ai", "model", "output", "answer", "response"),
        *("bing", "bard", "claude", "gpt4", "gpt-4", "llm", "agent", "chatbot"),
    ],
    "tool": [
        *("tool", "function", "observation", "ipython", "tool_response", "tool_result"),
        *("function_response", "tool_output", "tools"),
    ],
}
_CALLS = ["function_call", "tool_call", "tool_calls"]
_ROLE_OF = {alias: role for role, aliases in ROLE_ALIASES.items() for alias in aliases}
_SPEAKERS = frozenset(_ROLE_OF)
_ROLE_OF |= dict.fromkeys(_CALLS, "assistant")
_EXTRA_KEYS = ["name", "tool_calls", "tool_call_id", "reasoning_content", "thinking", "train"]
_IMAGE_PARTS = {"image", "image_url", "input_image"}
_IMAGE_KEYS = ("image", "image_url", "path", "url", "bytes")
_OTHER_PARTS = {"video", "audio", "input_audio"}
IMAGE_MARK = "\U000f1a6e"
"""Where a picture stands among the words of a turn: a private character that no text holds."""
DEEPEST = 32


def standard_role(name: Any) -> str | None:
    """The role that an alias such as "human" or "gpt" means; None if it is unknown."""
    return _ROLE_OF.get(name.strip().lower()) if isinstance(name, str) else None


def to_message(
    turn: Any, place: str, where: str, *, role_key: str = "role", content_key: str = "content"
) -> Message:
    """One turn as `{"role", "content", ...}` with reasoning and tool calls where it has them.

    Text parts are joined, reasoning parts become `reasoning_content`, a tool call's arguments
    become an object, and the empty keys that Arrow adds to objects are dropped. For each picture the
    text gets an `IMAGE_MARK`, and `images` its value, None where the part holds none.

    Args:
        place: which row, for the error; `where`: which turn of it.

    Raises:
        RowInvalid: naming the row, the turn and the key.
    """
    if not isinstance(turn, dict):
        raise wrong(place, where, f"is {describe(turn)}, not an object with `{role_key}`")
    if turn.get(role_key) is None:
        raise wrong(place, where, f"has no `{role_key}`")
    role = standard_role(turn[role_key])
    if role is None:
        known = ", ".join(_ROLE_OF)
        why = f"has the unknown `{role_key}` {turn[role_key]!r}; known are {known}"
        raise wrong(place, where, why)
    content = turn.get(content_key)
    if type(content) is str and len(turn) == 2 and turn[role_key] in _SPEAKERS:
        return {"role": role, "content": content}  # as most are: there is nothing else to see to
    extras = {key: turn[key] for key in _EXTRA_KEYS if turn.get(key) is not None}
    if "reasoning_content" not in extras and isinstance(turn.get("reasoning"), str):
        extras["reasoning_content"] = turn["reasoning"]
    if turn[role_key].strip().lower() in _CALLS and isinstance(content, str):
        extras["tool_calls"], content = _called(content, place, where), ""
    elif isinstance(turn.get("function_call"), dict) and "tool_calls" not in extras:
        extras["tool_calls"] = [turn["function_call"]]
    if "tool_calls" in extras:
        extras["tool_calls"] = [_call(item, place, where) for item in _items(extras["tool_calls"])]
        if not extras["tool_calls"]:
            del extras["tool_calls"]
    if content is None and extras.keys() & {"tool_calls", "reasoning_content", "thinking"}:
        content = ""
    if content is None:
        raise wrong(place, where, f"has no `{content_key}`")
    if isinstance(content, list):
        content, reasoning, images = _joined(content, place, f"`{content_key}` in {where}")
        if reasoning:
            extras.setdefault("reasoning_content", reasoning)
        if images:
            extras["images"] = images
    if not isinstance(content, str):
        raise wrong(place, where, f"has {describe(content)} as `{content_key}`, not text")
    return {"role": role, "content": content, **extras}


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _joined(parts: list[Any], place: str, where: str) -> tuple[str, str, list[Any]]:
    """The text parts joined with a mark for each picture, the reasoning parts, and the pictures."""
    texts: list[str] = []
    reasoning: list[str] = []
    images: list[Any] = []
    for number, part in enumerate(parts):
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in _OTHER_PARTS:
            raise wrong(place, where, f"holds in part {number} `{kind}`, which no model here reads")
        if isinstance(part, dict) and (
            kind in _IMAGE_PARTS or (kind is None and part.get("image") is not None)
        ):
            texts.append(IMAGE_MARK)
            images.append(next((part[k] for k in _IMAGE_KEYS if part.get(k) is not None), None))
            continue
        if isinstance(part, dict) and kind in ("thinking", "reasoning"):
            text = part.get("thinking") or part.get("reasoning") or part.get("text")
            reasoning.append(text if isinstance(text, str) else "")
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            texts.append(part["text"])
        else:
            raise wrong(place, where, f"holds in part {number} {describe(part)}, which is not text")
    return "".join(texts), "".join(reasoning), images


def _called(text: str, place: str, where: str) -> list[Any]:
    """The tool calls that a ShareGPT turn holds as JSON text."""
    try:
        return _items(json.loads(text))
    except (json.JSONDecodeError, RecursionError):
        raise wrong(place, where, f"is a tool call, but {describe(text)} is no JSON") from None


def _call(call: Any, place: str, where: str) -> dict[str, Any]:
    """A tool call as `{"type": "function", "function": {"name", "arguments"}}`."""
    call = without_empty(call)
    inner = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        raise wrong(place, where, f"has {describe(call)} as tool call, without a `name`")
    arguments = inner.get("arguments", inner.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments) if arguments.strip() else {}
        except (json.JSONDecodeError, RecursionError):
            why = f"has a tool call whose arguments {describe(arguments)} are no JSON"
            raise wrong(place, where, why) from None
    named = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
    function = {"name": inner["name"], "arguments": arguments}
    return {**named, "type": "function", "function": function}


def without_empty(value: Any, depth: int = 0) -> Any:
    """The value without keys that hold None: Arrow gives every object the keys of all the others."""
    if depth > DEEPEST:
        return value
    if isinstance(value, dict):
        return {k: without_empty(v, depth + 1) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [without_empty(item, depth + 1) for item in value]
    return value


def too_deep(value: Any) -> str | None:
    """Why a value cannot be a row: it holds itself, or is nested too far. None if it can."""
    path: set[int] = set()
    seen: dict[int, int] = {}

    def walk(item: Any, depth: int) -> str | None:
        if not isinstance(item, dict | list | tuple):
            return None
        if id(item) in path:
            return "it holds itself"
        if depth > DEEPEST:
            return f"it is nested more than {DEEPEST} levels deep"
        if seen.get(id(item), -1) >= depth:
            return None
        seen[id(item)] = depth
        path.add(id(item))
        children: Iterable[Any] = item.values() if isinstance(item, dict) else item
        found = next((why for child in children if (why := walk(child, depth + 1))), None)
        path.discard(id(item))
        return found

    return walk(value, 0)


def wrong(place: str, where: str, why: str) -> RowInvalid:
    """The error of one row: which, where in it, why."""
    return RowInvalid(
        f"{place} cannot be turned into a conversation.",
        f"{where} {why}.",
        "mend or delete the row.",
    )


def describe(value: Any) -> str:
    """A value in a few words, for an error; safe for huge and for cyclic values."""
    if value is None:
        return "missing"
    if isinstance(value, list | dict | str) and not value:
        return f"an empty {type(value).__name__}"
    if isinstance(value, str):
        text = repr(value[:60])
    elif isinstance(value, list | dict):
        text = f"of {len(value)}"
    else:
        text = repr(value)
    return f"{type(value).__name__} {text if len(text) < 60 else text[:57] + '...'}"
