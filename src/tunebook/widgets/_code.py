"""The lines of Python and of a shell that do what the panels show, from the recipe's differences.

Knows the recipe; knows nothing of widgets.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunebook.data.demo import demo_recipe
from tunebook.errors import RecipeInvalid
from tunebook.recipe import Recipe, resolve_field
from tunebook.sampling import Sampling
from tunebook.widgets._fields import flat_values

_NAMED = {"model.name": "model", "data.source": "data"}


def differences(recipe: Recipe) -> dict[str, Any]:
    """The fields that are not at their default, by dotted name; model and data are always there."""
    default = flat_values(Recipe())
    return {
        path: value
        for path, value in flat_values(recipe).items()
        if path in _NAMED or value != default[path]
    }


def code_lines(
    recipe: Recipe,
    purpose: str,
    run: Any = None,
    *,
    rows: str = "",
    fixes: Sequence[str] = (),
    out: str = "",
) -> dict[str, str]:
    """The same in both languages: `{"python": ..., "shell": ...}`.

    Args:
        purpose: what the panel is for: model, data, method, train, try, takeaway.
        run: the run whose folder is named, if there is one.
        rows: the notebook's variable that holds the rows, if it is not the recipe's source.
        fixes: applied to the data; `out` is the new file that they would be written to.
    """
    if fixes:
        return _fix_lines(recipe, list(fixes), out, rows)
    folder = None if run is None else Path(run.path)
    return {
        "python": "\n".join(_python(recipe, purpose, folder, rows)),
        "shell": "\n".join(_shell(recipe, purpose, folder, rows)),
    }


def chat_lines(
    recipe: Recipe, run: Any, question: str, sampling: Sampling, system: str = ""
) -> dict[str, str]:
    """How the try panel's last question is asked without it."""
    folder = None if run is None else Path(run.path)
    changed = sampling.model_dump(exclude_defaults=True)
    asked: Any = question
    if system.strip():
        asked = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    given = [literal(asked), *(f"{name}={literal(value)}" for name, value in changed.items())]
    python = [*_begin(recipe, "try", folder), f"print(run.answer({', '.join(given)}))"]
    words = [*_shell(recipe, "try", folder), f"--ask {shlex.quote(question)}"]
    if system.strip():
        words.append(f"--system {shlex.quote(system)}")
    words += [f"--{name.replace('_', '-')} {value}" for name, value in changed.items()]
    return {"python": "\n".join(python), "shell": " ".join(words)}


def takeaway_lines(
    recipe: Recipe, run: Any, *, check: bool, hub: tuple[str, bool, bool] = ("", True, False)
) -> dict[str, str]:
    """How what the take-away panel does is done without it; a token is never among the lines.

    Args:
        check: whether what is written is loaded again and compared.
        hub: repository, whether it is private, and whether another model there gives way; an empty
            name uploads nothing.
    """
    repo, private, replace = hub
    folder = None if run is None else Path(run.path)
    given = literal(list(recipe.export.formats))
    types = list(recipe.export.gguf_quantization) if "gguf" in recipe.export.formats else []
    if types:
        given += f", quantization={literal(types)}"
    python = [
        *_begin(recipe, "takeaway", folder),
        f"for path in run.export({given}):",
        "    print(path)" if not check else "    print(path, run.verify(path).summary)",
    ]
    words = _shell(recipe, "takeaway", folder)
    if types:
        words.append(f"--gguf-quantization {','.join(types)}")
    words += ["--verify"] * check
    if repo:
        more = ", private=False" * (not private) + ", replace=True" * replace
        python.append(f"print(run.upload({literal(repo)}{more}))  # after `hf auth login`")
        words += ["--hub", shlex.quote(repo), *["--public"] * (not private)]
        words += ["--replace"] * replace
    return {"python": "\n".join(python), "shell": " ".join(words)}


def literal(value: Any) -> str:
    """A value as Python source, with double quotes as in the rest of the code shown."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(k)}: {literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(literal(item) for item in value) + "]"
    return repr(value)


def recipe_lines(recipe: Recipe) -> list[str]:
    """The call that makes this recipe, one argument a line."""
    plain, dotted = [], []
    for path, value in differences(recipe).items():
        name = _NAMED.get(path) or _plain_name(path)
        if name:
            plain.append(f"    {name}={literal(value)},")
        else:
            dotted.append(f"{literal(path)}: {literal(value)}")
    if recipe.name is not None:
        plain.append(f"    name={literal(recipe.name)},")
    if recipe == demo_recipe():
        return ["recipe = tunebook.demo_recipe()"]
    lines = ["recipe = tunebook.Recipe.of(", *plain]
    if dotted:
        lines.append("    **{" + ", ".join(dotted) + "},")
    return [*lines, ")"]


def _begin(recipe: Recipe, purpose: str, folder: Path | None, more: str = "") -> list[str]:
    """The lines up to the recipe or the run."""
    if folder is not None and purpose in ("try", "takeaway"):
        begin = ["import tunebook", "", f"run = tunebook.open_run({literal(str(folder))})"]
    else:
        begin = ["import tunebook", "", *recipe_lines(recipe)]
        if purpose in ("train", "try", "takeaway"):
            wait = "" if purpose == "train" else ", wait=True"
            begin.append(f"run = tunebook.train(recipe{more}{wait})")
    return begin


def _python(recipe: Recipe, purpose: str, folder: Path | None, rows: str = "") -> list[str]:
    more = f", rows={rows}" if rows else ""
    begin = _begin(recipe, purpose, folder, more)
    verbs = {
        "data": [f"print(tunebook.check(recipe{more}))"],
        "method": ["print(tunebook.make_plan(recipe))"],
    }
    return [*begin, *verbs.get(purpose, [])]


def _shell(recipe: Recipe, purpose: str, folder: Path | None, rows: str = "") -> list[str]:
    where = shlex.quote(str(folder)) if folder is not None else "runs/NAME"
    if purpose == "try":
        return [f"tunebook chat {where}"]
    if purpose == "takeaway":
        return [f"tunebook export {where} --formats {','.join(recipe.export.formats)}"]
    if rows and purpose in ("data", "train"):
        return [f"# `{rows}` is in the notebook's memory: save it to a file for the shell."]
    if purpose == "data":
        source, model = shlex.quote(recipe.data.source), shlex.quote(recipe.model.name)
        return [f"tunebook check {source} --model {model}"]
    words = ["tunebook plan" if purpose == "method" else "tunebook train"]
    for path, value in differences(recipe).items():
        if path in _NAMED:
            words.append(f"--{_NAMED[path]} {shlex.quote(str(value))}")
        else:
            words.append(f"--{path} {shlex.quote(_option(value))}")
    return [" \\\n  ".join(words)]


def _fix_lines(recipe: Recipe, fixes: list[str], out: str, rows: str) -> dict[str, str]:
    """A new file of fixed rows; a shell names whole sources only, Python a part of one too."""
    special, more = [], f", rows={rows}" if rows else ""
    if "strip_special_tokens" in fixes:
        special = ["special = tokenizer_for(recipe).all_special_tokens"]
        more += ", special_tokens=special"
    python = [
        *("import tunebook", "from tunebook.data import apply_fixes, write_rows"),
        *["from tunebook.data.tokenizers import tokenizer_for"][: len(special)],
        *("", *recipe_lines(recipe), *special),
        f"fixed = apply_fixes(recipe, {literal(fixes)}{more})",
        f"write_rows(fixed.table, {literal(out)})",
    ]
    source, model = shlex.quote(recipe.data.source), shlex.quote(recipe.model.name)
    words = ["tunebook check", source, "--model", model, *(f"--fix {fix}" for fix in fixes)]
    shell = " ".join([*words, "--out", shlex.quote(out)])
    if rows or any(path.startswith("data.") and path not in _NAMED for path in differences(recipe)):
        shell = "# A part of a source, or one read in its own way, is fixed in Python."
    return {"python": "\n".join(python), "shell": shell}


def _plain_name(path: str) -> str | None:
    name = path.split(".")[1]
    try:
        resolve_field(name)
    except RecipeInvalid:
        return None
    return None if name in ("model", "data") else name


def _option(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    return "none" if value is None else str(value)
