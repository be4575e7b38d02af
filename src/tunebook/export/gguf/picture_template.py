"""A chat template that writes pictures for llama.cpp as it writes them for the model in training.

llama.cpp joins a message with pictures to one text, in which a marker stands for each, and puts the
picture's own tokens there itself. A template made for parts would not see the pictures then. Knows
Jinja; knows nothing of GGUF's keys.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tunebook.data.sandbox import program
from tunebook.errors import TemplateInvalid

_MARKER = "<__media"  # with some letters and `__>` behind it, or that alone
# Cuts the text of a message at the markers, so that the template sees parts again.
_BEFORE = """\
{%- set pictures = namespace(marker='', messages=[]) -%}
{%- for message in messages -%}
{%- set turn = namespace(parts=[], seen=false) -%}
{%- set alone = [{'type': 'text', 'text': message.content}] -%}
{%- for part in (alone if message.content is string else message.content or []) -%}
{%- if part.type == 'text' and 'MARKER' in part.text -%}
{%- set turn.seen = true -%}
{%- for piece in part.text.split('MARKER') -%}
{%- if loop.first -%}
{%- set rest = piece -%}
{%- else -%}
{%- set pictures.marker = 'MARKER' + piece.split('__>')[0] + '__>' -%}
{%- set turn.parts = turn.parts + [{'type': 'image'}] -%}
{%- set rest = piece.split('__>', 1)[1] -%}
{%- endif -%}
{%- if rest -%}{%- set turn.parts = turn.parts + [{'type': 'text', 'text': rest}] -%}{%- endif -%}
{%- endfor -%}
{%- else -%}
{%- set turn.parts = turn.parts + [part] -%}
{%- endif -%}
{%- endfor -%}
{%- set shown = {'role': message.role, 'content': turn.parts} if turn.seen else message -%}
{%- set pictures.messages = pictures.messages + [shown] -%}
{%- endfor -%}
{%- set messages = pictures.messages -%}
{%- set rendered %}""".replace("MARKER", _MARKER)
_BEHIND = """{% endset -%}
{{- rendered.replace(PLACE, BEFORE + pictures.marker + AFTER) if pictures.marker else rendered -}}
"""


@dataclass(frozen=True)
class Place:
    """How a family's chat template writes a picture, and what of that llama.cpp leaves to the template.

    Attributes:
        text: what the template writes.
        before, after: what the processor puts around the picture's tokens, beside those that
            llama.cpp puts there.
    """

    text: str
    before: str = ""
    after: str = ""


def with_pictures(template: str, place: Place, names: dict[str, Any]) -> str | None:
    """The template, so that llama.cpp's pictures come where it writes them.

    Args:
        template: as llama.cpp can run it, see `portable_templates`.
        names: of special tokens, that it may use.

    Returns:
        None if it writes no pictures, in whatever form they come.
    """
    shown = [{"type": "image"}, {"type": "text", "text": "a"}]
    try:
        text, _ = program(template).render([{"role": "user", "content": shown}], names)
    except TemplateInvalid:
        return None
    if text.count(place.text) != 1:
        return None
    filled = {"PLACE": place.text, "BEFORE": place.before, "AFTER": place.after}
    behind = _BEHIND
    for name, value in filled.items():
        behind = behind.replace(name, json.dumps(value), 1)
    return _BEFORE + template.removesuffix("\n") + behind
