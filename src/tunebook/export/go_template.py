"""A chat template for Ollama, built from what the Jinja template writes around the turns.

Ollama runs Go templates, which cannot do what Jinja can. So nothing is translated: probe conversations
are rendered, the constant texts between their turns are taken from them, and the same texts are put
into a Go template (https://github.com/ollama/ollama/blob/main/docs/template.mdx). Knows texts and
templates; knows no model and no files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from tunebook.data.shapes import probe_of, shape_of
from tunebook.errors import TemplateInvalid

Messages = list[dict[str, Any]]
Render = Callable[..., str]
_BLANK_LINE = "\n\n"


@dataclass(frozen=True)
class Turns:
    """The constant texts around the turns of a conversation that ends in a question.

    Attributes:
        opening: before the first question where there is no system message.
        system: before the system message, and from there to the first question.
        answer: from a question's last character to its answer's first.
        question: from an answer's last character to the next question's first.
        prompt: behind the last question, to where the model begins.
    """

    opening: str
    system: tuple[str, str]
    answer: str
    question: str
    prompt: str

    def render(self, messages: Messages) -> str:
        """What the Go template makes of a conversation that ends in a question."""
        said = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
        opening = said.join(self.system) if said else self.opening
        turns = [message for message in messages if message["role"] != "system"]
        between = {"user": self.question, "assistant": self.answer}
        parts = [between[m["role"]] + m["content"] for m in turns[1:]]
        return "".join([opening, turns[0]["content"], *parts, self.prompt])

    def without_start(self, token: str) -> Turns:
        """Without a start token at the very beginning, for programs that put one there themselves."""
        before, behind = self.system
        return replace(
            self,
            opening=self.opening.removeprefix(token),
            system=(before.removeprefix(token), behind),
        )

    def go(self, *, today: str = "") -> str:
        """The Go template.

        Args:
            today: a date within the opening that is to be the day of the chat; empty if there is none.
        """
        before, behind = (_escaped(text, today) for text in self.system)
        opening, prompt = _escaped(self.opening, today), _escaped(self.prompt, today)
        question, answer = _escaped(self.question), _escaped(self.answer)
        return (
            "{{- $asked := false }}\n"
            "{{- range $i, $_ := .Messages }}\n"
            "{{- $last := eq (len (slice $.Messages $i)) 1 }}\n"
            '{{- if eq .Role "user" }}\n'
            f"{{{{- if $asked }}}}{question}{{{{ else if $.System }}}}{before}{{{{ $.System }}}}"
            f"{behind}{{{{ else }}}}{opening}{{{{ end }}}}{{{{ .Content }}}}"
            f"{{{{ if $last }}}}{prompt}{{{{ end }}}}\n"
            "{{- $asked = true }}\n"
            '{{- else if and (eq .Role "assistant") $asked }}'
            f"{answer}{{{{ .Content }}}}\n"
            "{{- end }}\n"
            "{{- end }}"
        )


@dataclass(frozen=True)
class Built:
    """The turns, and in sentences what the Go template does otherwise than the Jinja one."""

    turns: Turns
    notes: list[str]
    today: str = ""


def build(render: Render, *, shows_tools: bool = False) -> Built:
    """The texts around turns, proved on conversations of one to five turns.

    Args:
        render: from messages, and `generation_prompt`, to the Jinja template's text.
        shows_tools: whether the template knows tools, which the Go template leaves out.

    Raises:
        TemplateInvalid: the template refuses a single question, or does not keep its words.
    """
    turns, notes = _learnt(render)
    notes += _differences(render, turns)
    if shows_tools:
        notes.append("Tools are left out: Ollama will not offer them to this model.")
    today = date.today().isoformat()
    constant = "\0".join((turns.opening, *turns.system, turns.prompt))
    if today in constant:
        return Built(turns, notes, today)
    day = date.today()
    shown = (f"{day:%d %b %Y}", f"{day:%d %B %Y}", f"{day:%B %d, %Y}")
    if any(text in constant for text in shown):
        notes.append(f"The date in it stays {today}, the day on which this was written.")
    return Built(turns, notes)


def _learnt(render: Render) -> tuple[Turns, list[str]]:
    """The turns, and what is not the same in longer conversations."""
    one = _gaps(render, "u")
    if one is None:
        raise TemplateInvalid(
            "The chat template cannot be written for Ollama.",
            "it does not keep the words of a single question together.",
            "serve the model with llama.cpp (`llama-server --jinja`), which runs the template itself.",
        )
    notes = []
    three = _gaps(render, "uau")
    answer, question = (three[1], three[2]) if three else ("\n", "\n")
    if three is None:
        notes.append("Earlier turns are not written as the model's template writes them.")
    turns = Turns(one[0], (one[0], _BLANK_LINE), answer, question, one[1])
    if (with_system := _gaps(render, "su")) is not None:
        turns = replace(turns, system=(with_system[0], with_system[1]))
    else:
        notes.append("The model knows no system message; Ollama puts it before the first question.")
    return turns, notes


def _differences(render: Render, turns: Turns) -> list[str]:
    """Sentences for conversations that come out otherwise than by the Jinja template."""
    plain, system = ("Hi!", "Hello.\nYes?", "2 + 2?", "It is 4.", "Thanks, né?"), "Be *brief*."
    thought = ("Hi!", "<think>\nA greeting.\n</think>\n\nHello.", "2 + 2?")
    blanks = (" Hi!\n", " Hello. ", "2 + 2? ")
    checks = [
        ("", plain[:3], "A second question is written in another way than by the template."),
        ("", plain, "Long conversations are written in another way than by the template."),
        (system, plain, "A system message is written in another way in long conversations."),
        ("", thought, "Thoughts of earlier answers are kept: the template takes them out."),
        ("", blanks, "Blanks at the ends of messages are kept: the template cuts them off."),
    ]
    found = []
    for first, said, sentence in checks:
        messages = [{"role": "system", "content": first}] if first else []
        messages += [
            {"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said)
        ]
        try:
            exact = render(messages, generation_prompt=True)
        except TemplateInvalid:
            continue  # said already where it matters: a system message that is refused
        if exact != turns.render(messages):
            found.append(sentence)
    return found


def _gaps(render: Render, roles: str) -> tuple[str, ...] | None:
    """The constant texts of a conversation, `u`, `a` and `s` for its roles; None if there are none."""
    names = {"u": "user", "a": "assistant", "s": "system"}
    found = []
    for times in (1, 2):
        probe = probe_of(tuple(names[role] for role in roles), times=times)
        if probe is None:
            return None
        try:
            shape = shape_of(render(probe, generation_prompt=True), probe, {})
        except TemplateInvalid:
            return None
        found.append(None if shape is None else shape.gaps)
    return found[0] if found[0] == found[1] else None


def _escaped(text: str, today: str = "") -> str:
    """Text that a Go template writes as it is, inside of a Modelfile's triple quotes."""
    kept = text.replace("{{", '{{ "{{" }}').replace('"""', '{{ "\\"\\"\\"" }}')
    if kept.endswith("{"):  # else it would run into the action behind it
        kept = kept[:-1] + '{{ "{" }}'
    return kept.replace(today, "{{ currentDate }}") if today else kept
