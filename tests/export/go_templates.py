"""An interpreter of the part of Go's `text/template` that Ollama's chat templates use.

`chat` does what Ollama does: it joins neighbours of the same role, gathers the system messages, and
gives both to the template.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Any

_ACTION = re.compile(r"\{\{(- )?\s*((?:\"(?:\\.|[^\"\\])*\"|[^\"}]|\}(?!\}))*?)\s*( -)?\}\}")
_TOKEN = re.compile(r"\"(?:\\.|[^\"\\])*\"|:=|[()=,]|[^\s()=,:]+")


def chat(template: str, messages: list[dict[str, str]]) -> str:
    """The prompt that Ollama makes of a conversation."""
    system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
    joined: list[dict[str, str]] = []
    for message in messages:
        if joined and joined[-1]["Role"] == message["role"]:
            joined[-1]["Content"] += "\n\n" + message["content"]
        else:
            joined.append({"Role": message["role"], "Content": message["content"]})
    return execute(template, {"Messages": joined, "System": system, "Response": ""})


def execute(template: str, data: dict[str, Any]) -> str:
    """A template's text for some data."""
    nodes, rest = _parse(_lexed(template))
    assert not rest, "an `end` too many"
    out: list[str] = []
    _run(nodes, data, {"$": data}, out)
    return "".join(out)


def _lexed(template: str) -> list[tuple[str, str]]:
    """("text" or "action", its text), with blanks cut off where an action asks for it."""
    pieces: list[tuple[str, str]] = []
    place, cut = 0, False
    for found in _ACTION.finditer(template):
        text = template[place : found.start()]
        text = text.lstrip() if cut else text
        text = text.rstrip() if found[1] else text
        pieces += [("text", text), ("action", found[2])]
        place, cut = found.end(), bool(found[3])
    text = template[place:]
    assert "{{" not in text, "an action that does not end"
    return [*pieces, ("text", text.lstrip() if cut else text)]


def _parse(pieces: list[tuple[str, str]]) -> tuple[list[Any], list[tuple[str, str]]]:
    """Nodes up to an `end` or `else`, and the pieces from there on."""
    nodes: list[Any] = []
    while pieces:
        kind, text = pieces[0]
        word = text.split(" ", 1)[0]
        if kind == "action" and word in ("end", "else"):
            break
        if kind == "action" and word in ("if", "range"):
            node, pieces = _parse_block(text, pieces[1:])
        else:
            node, pieces = (kind, text), pieces[1:]
        nodes.append(node)
    return nodes, pieces


def _parse_block(
    text: str, pieces: list[tuple[str, str]]
) -> tuple[tuple[str, str, list[Any], list[Any]], list[tuple[str, str]]]:
    """An `if` or `range` with its bodies, and the pieces behind its `end`."""
    word, expression = text.split(" ", 1)
    body, pieces = _parse(pieces)
    other: list[Any] = []
    assert pieces, f"no `end` of {text!r}"
    if pieces[0][1].startswith("else if "):  # shares the `end`
        inner, pieces = _parse_block(pieces[0][1][5:], pieces[1:])
        return (word, expression, body, [inner]), pieces
    if pieces[0][1] == "else":
        other, pieces = _parse(pieces[1:])
    assert [action for _, action in pieces[:1]] == ["end"], f"no `end` of {text!r}"
    return (word, expression, body, other), pieces[1:]


def _run(nodes: list[Any], dot: Any, names: dict[str, Any], out: list[str]) -> None:
    for node in nodes:
        if node[0] == "text":
            out.append(node[1])
        elif node[0] == "action":
            _act(node[1], dot, names, out)
        elif node[0] == "if":
            _run(node[2] if _value(node[1], dot, names) else node[3], dot, _Inner(names), out)
        else:
            variables, expression = node[1].split(" := ")
            index, item = variables.split(", ")
            for number, element in enumerate(_value(expression, dot, names)):
                inner = _Inner(names)
                inner.declare(index, number)
                inner.declare(item, element)
                _run(node[2], element, inner, out)


class _Inner(dict[str, Any]):
    """Variables of a block: those declared in it, over those around it, which can be set too."""

    def __init__(self, outer: dict[str, Any]) -> None:
        super().__init__()
        self._outer = outer

    def declare(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(name) if name in self.keys() else self._outer[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self.keys():
            super().__setitem__(name, value)
        else:
            self._outer[name] = value


def _act(text: str, dot: Any, names: dict[str, Any], out: list[str]) -> None:
    for sign in (" := ", " = "):
        name, found, expression = text.partition(sign)
        if found and name.startswith("$"):
            value = _value(expression, dot, names)
            if sign == " := " and isinstance(names, _Inner):
                names.declare(name, value)
            else:
                names[name] = value
            return
    out.append(str(_value(text, dot, names)))


def _value(text: str, dot: Any, names: dict[str, Any]) -> Any:
    value, rest = _call(_TOKEN.findall(text), dot, names)
    assert not rest, f"not understood: {text!r}"
    return value


def _call(tokens: list[str], dot: Any, names: dict[str, Any]) -> tuple[Any, list[str]]:
    """A function with its arguments, or one operand."""
    operands: list[Any] = []
    while tokens and tokens[0] != ")":
        if tokens[0] == "(":
            value, tokens = _call(tokens[1:], dot, names)
            assert tokens[0] == ")"
            tokens = tokens[1:]
        else:
            value, tokens = _operand(tokens[0], dot, names), tokens[1:]
        operands.append(value)
    function, *arguments = operands
    if callable(function):
        return function(*arguments), tokens
    assert not arguments, f"{function!r} is no function"
    return function, tokens


def _operand(token: str, dot: Any, names: dict[str, Any]) -> Any:
    if token in _FUNCTIONS:
        return _FUNCTIONS[token]
    if token.startswith('"'):
        return re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), token[1:-1])
    if token in ("true", "false"):
        return token == "true"
    if token.isdigit():
        return int(token)
    start, *fields = token.split(".")
    value = names[start] if start else dot
    for field in fields:
        value = value[field]
    return value


def _and(*values: Any) -> Any:
    return next((value for value in values if not value), values[-1])


_FUNCTIONS = {
    "eq": lambda one, *others: any(one == other for other in others),
    "ne": lambda one, other: one != other,
    "not": lambda value: not value,
    "and": _and,
    "or": lambda *values: next((value for value in values if value), values[-1]),
    "len": len,
    "slice": lambda items, start: items[start:],
    "currentDate": lambda: date.today().isoformat(),
}
