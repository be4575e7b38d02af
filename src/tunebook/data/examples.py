"""Chat templates written as an example text with `{SYSTEM}`, `{INPUT}` and `{OUTPUT}`, made Jinja.

This module knows texts only; setting the template on a tokenizer is `templates`' matter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tunebook.errors import TemplateInvalid

_SYSTEM = "{SYSTEM}"


@dataclass(frozen=True)
class ExampleTemplate:
    """The pieces of an example.

    Attributes:
        opening: the text before the first question, with `{SYSTEM}` in it or not.
        first: before the first question.
        question: before every other question.
        answer: from a question to its answer.
        ending: behind an answer.
    """

    opening: str
    first: str
    question: str
    answer: str
    ending: str

    @classmethod
    def of(cls, text: str) -> ExampleTemplate:
        """Take an example apart: one round of question and answer, or two that show how it goes on.

        Raises:
            TemplateInvalid: the marks are missing or in another order, or the rounds end differently.
        """
        pieces = re.split(r"\{(INPUT|OUTPUT)\}", text)
        marks, texts = pieces[1::2], pieces[::2]
        if marks not in (["INPUT", "OUTPUT"], ["INPUT", "OUTPUT"] * 2):
            raise _invalid(
                f"its marks are {', '.join(marks) or 'none'}.",
                "write {INPUT} and then {OUTPUT}, once, or twice to show how a chat goes on.",
            )
        if text.count(_SYSTEM) > 1 or _SYSTEM in "".join(texts[1:]):
            raise _invalid(
                "{SYSTEM} is not where it can be.", "write it once, before the first {INPUT}."
            )
        head, ending = texts[0], texts[-1]
        if len(marks) == 2:
            opening, first = _opened(head, ending)
            return cls(opening, first, first, texts[1], ending)
        if texts[1] != texts[3] or not texts[2].startswith(ending):
            raise _invalid(
                "its two rounds are written in different ways.",
                "write the same text between {INPUT} and {OUTPUT}, and behind each {OUTPUT}.",
            )
        question = texts[2][len(ending) :]
        if question and head.endswith(question):
            return cls(head.removesuffix(question), question, question, texts[1], ending)
        return cls(head, "", question, texts[1], ending)

    def jinja(self, *, default_system: str, start: str = "", end: str = "") -> str:
        """The template as Jinja, with `{% generation %}` marks.

        Args:
            default_system: where a conversation has no system message.
            start: the start token, put in front unless the example begins with it.
            end: the end token, put behind answers unless the example has an end there already.
        """
        before, mark, after = self.opening.partition(_SYSTEM)
        # A blank before an answer is one token with its first word: the model says it itself.
        header = self.answer.rstrip(" ")
        blanks = self.answer[len(header) :]
        if start and not (before + self.first).startswith(start):
            before = start + before
        system = f"(messages[0]['content'] if has_system else {quoted(default_system)})"
        opening = f"{quoted(before)} ~ {system} ~ {quoted(after)}" if mark else quoted(before)
        refused = "" if mark else "{%- if has_system -%}" + _raise("no {SYSTEM}") + "{%- endif -%}"
        return (
            "{%- set has_system = messages[0]['role'] == 'system' -%}"
            f"{refused}{{{{- {opening} -}}}}"
            "{%- for message in (messages[1:] if has_system else messages) -%}"
            "{%- if message['role'] == 'user' -%}"
            f"{{{{- ({quoted(self.first)} if loop.first else {quoted(self.question)})"
            " ~ message['content'] -}}"
            "{%- elif message['role'] == 'assistant' -%}"
            f"{{{{- {quoted(header)} -}}}}{{%- generation -%}}{{{{- {quoted(blanks)}"
            f" ~ message['content'] ~ {quoted(self.ending + end)} -}}}}{{%- endgeneration -%}}"
            "{%- else -%}" + _raise("only user and assistant turns") + "{%- endif -%}"
            "{%- endfor -%}"
            f"{{%- if add_generation_prompt -%}}{{{{- {quoted(header)} -}}}}{{%- endif -%}}"
        )


def quoted(text: str) -> str:
    """A Jinja string literal."""
    escapes = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r"}
    return "'" + "".join(escapes.get(letter, letter) for letter in text) + "'"


def _opened(head: str, ending: str) -> tuple[str, str]:
    """What stands once, and what stands before each question, of an example with one round."""
    before, mark, after = head.partition(_SYSTEM)
    if not mark:
        return "", head
    # What ends an answer ends the system text too; else only blanks belong to it.
    ended = ending if ending and after.startswith(ending) else ""
    blanks = after[: len(after) - len(after.lstrip())]
    closing = ended or blanks
    return before + mark + closing, after[len(closing) :]


def _raise(what: str) -> str:
    return f"{{{{- raise_exception('This template knows {what}.') -}}}}"


def _invalid(why: str, do: str) -> TemplateInvalid:
    return TemplateInvalid("The example of a chat cannot be understood.", why, do)
