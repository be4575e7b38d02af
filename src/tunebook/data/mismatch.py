"""Is a chat template the one that the model was trained with? Told from what both render.

Texts of templates may differ and mean the same; only their renderings are compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunebook.data.frames import common
from tunebook.data.sandbox import Program, program
from tunebook.data.templates import chosen_text, without_generation_marks
from tunebook.errors import TemplateInvalid

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def _turns(*said: str) -> list[dict[str, Any]]:
    roles = ["user", "assistant"] * len(said)
    return [{"role": role, "content": text} for role, text in zip(roles, said, strict=False)]


_PROBES: list[tuple[str, list[dict[str, Any]], bool]] = [
    ("a question and its answer", _turns("Hi", "Hello"), False),
    ("a prompt", _turns("Hi"), True),
    ("several turns", _turns("Hi", "Hello", "And?", "So."), False),
    (
        "a system message",
        [{"role": "system", "content": "Be brief."}, *_turns("Hi", "Hello")],
        False,
    ),
    ("blanks around texts", _turns(" Hi\n", "\n Hello "), False),
]


def template_mismatch(tokenizer: PreTrainedTokenizerBase, chosen: str | None) -> str | None:
    """How a chosen template differs from the tokenizer's own; None if it renders the same.

    Args:
        tokenizer: the model's, with the template that it was trained with.
        chosen: a name, a file or Jinja text, as in `recipe.model.chat_template`; None or "" means
            the tokenizer's own.

    Raises:
        TemplateInvalid: the chosen template is unknown or not Jinja.
    """
    own = tokenizer.get_chat_template() if tokenizer.chat_template else None
    if not chosen or own is None:
        return None
    text = chosen_text(tokenizer, chosen)
    if without_generation_marks(text) == without_generation_marks(own):
        return None
    theirs, ours = program(own), program(text)
    variables = dict(tokenizer.special_tokens_map)
    for what, messages, is_prompt in _PROBES:
        wanted = _rendered(theirs, messages, variables, is_prompt)
        found = _rendered(ours, messages, variables, is_prompt)
        # Where the model's own template refuses, there is nothing to differ from.
        if wanted is not None and wanted != found:
            return f"{what} reads differently: {_difference(wanted, found)}"
    return None


def _rendered(
    template: Program, messages: list[dict[str, Any]], variables: dict[str, Any], is_prompt: bool
) -> str | None:
    try:
        return template.render(messages, variables, generation_prompt=is_prompt)[0]
    except TemplateInvalid:
        return None


def _difference(wanted: str, found: str | None) -> str:
    if found is None:
        return "the chosen template refuses it, the model's own does not."
    place = max(0, common(wanted, found) - 12)
    return (
        f"the model was trained with {wanted[place : place + 48]!r} "
        f"where the chosen template writes {found[place : place + 48]!r}."
    )
