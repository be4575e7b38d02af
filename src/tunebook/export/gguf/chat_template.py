"""The chat template as llama.cpp can run it, or an error before anything is written.

llama.cpp has a Jinja of its own, without imports and with fewer filters, and gives a template no
token names but `bos_token` and `eos_token`. Where it is installed it is asked itself; a list of what
it does not have serves elsewhere. Knows Jinja; knows nothing of GGUF's keys.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import loopcontrols

from tunebook.data.templates import without_generation_marks
from tunebook.errors import TemplateInvalid
from tunebook.export.gguf.judged_template import refusal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What llama.cpp's common/jinja has no word for, of all that Jinja and transformers have.
_NO_STATEMENTS = {
    nodes.Extends: "extends",
    nodes.Block: "block",
    nodes.Include: "include",
    nodes.Import: "import",
    nodes.FromImport: "from … import",
    nodes.With: "with",
    nodes.ScopedEvalContextModifier: "autoescape",
}
_NO_FILTERS = {
    *("attr", "batch", "center", "e", "escape", "filesizeformat", "forceescape", "groupby"),
    *("pprint", "random", "round", "striptags", "urlencode", "urlize", "wordwrap", "xmlattr"),
}

_WHAT = "llama.cpp cannot run this chat template."
_DO = "set `model.chat_template` to a named template that writes the same, and train with it."


def portable_templates(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """The tokenizer's chat templates by name (`default`, perhaps `tool_use`, …), each self-contained.

    `{% generation %}` marks are taken out, which say nothing about the text, and token names that
    only transformers knows are set in front. Empty if the tokenizer has no template.

    Raises:
        TemplateInvalid: a template uses what llama.cpp's Jinja does not have.
    """
    given = tokenizer.chat_template
    if not given:
        return {}
    named = given if isinstance(given, dict) else {"default": given}
    return {name: _portable(text, tokenizer) for name, text in named.items()}


def _portable(text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    text = without_generation_marks(text)
    tree = _parsed(text)
    known = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    names = {"bos_token": "", "eos_token": "", **known}
    missing = [
        name
        for name in sorted(meta.find_undeclared_variables(tree))
        if name in names and (name not in known or name not in ("bos_token", "eos_token"))
    ]
    settings = [f"{{%- set {name} = {json.dumps(names[name])} %}}" for name in missing]
    whole = "".join(settings) + text
    _require_run(whole, tree, names)
    return whole


def _parsed(text: str) -> nodes.Template:
    try:
        return jinja2.Environment(extensions=[loopcontrols]).parse(text)
    except jinja2.TemplateSyntaxError as error:
        raise _invalid(f"line {error.lineno}: {error.message}") from error


def _require_run(text: str, tree: nodes.Template, names: dict[str, str]) -> None:
    """By llama.cpp itself, whose reason may be in the list; or by the list alone."""
    why = refusal(text, names["bos_token"] or "<s>", names["eos_token"] or "</s>")
    if why != "":
        _require_known(tree)
    if why:
        raise TemplateInvalid(_WHAT, f"llama.cpp says: {why.rstrip('.')}.", _DO)


def _require_known(tree: nodes.Template) -> None:
    for kind, word in _NO_STATEMENTS.items():
        for node in tree.find_all(kind):
            raise _invalid(f"line {node.lineno} has a statement `{word}`")
    for filtered in tree.find_all(nodes.Filter):
        if filtered.name in _NO_FILTERS:
            raise _invalid(f"line {filtered.lineno} has a filter `{filtered.name}`")


def _invalid(why: str) -> TemplateInvalid:
    return TemplateInvalid(_WHAT, f"{why}, which its Jinja does not have.", _DO)
