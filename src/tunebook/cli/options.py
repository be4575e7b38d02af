"""Command-line options made from the recipe's fields, and a recipe made from the options.

Knows argparse and the recipe, nothing else.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tunebook.errors import RecipeInvalid
from tunebook.fields import FieldInfo, fields_of, recipe_fields
from tunebook.recipe import Recipe
from tunebook.sampling import Sampling

_PREFIX = "field:"
_MOST_SHOWN = 12
"""Choices that an option shows in its place; more are listed in its help."""


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """Add a positional recipe file and one option for each field, grouped by part."""
    parser.add_argument(
        "recipe", nargs="?", help="recipe file (.yaml or .json); without one, the defaults"
    )
    fields = recipe_fields()
    plain = [field.path.split(".")[1] for field in fields]
    groups: dict[str, argparse._ArgumentGroup] = {}
    for field in fields:
        part, name = field.path.split(".")
        if part not in groups:
            groups[part] = parser.add_argument_group(f"{part} (in the recipe: `{part}`)")
        flags = [f"--{field.path}"]
        if plain.count(name) == 1:
            flags.append(f"--{name.replace('_', '-')}")
        if field.path == "model.name":
            flags.append("--model")
        if field.path == "data.source":
            flags.append("--data")
        groups[part].add_argument(
            *flags,
            dest=_PREFIX + field.path,
            metavar=_metavar(field),
            default=argparse.SUPPRESS,
            help=_help(field),
        )


def recipe_from(arguments: argparse.Namespace) -> Recipe:
    """The recipe file, if one is named, changed by the options that are given.

    Raises:
        RecipeInvalid, SourceMissing: see `Recipe.load`.
    """
    recipe = Recipe.load(Path(arguments.recipe)) if arguments.recipe else Recipe()
    given = {
        key.removeprefix(_PREFIX): value
        for key, value in vars(arguments).items()
        if key.startswith(_PREFIX)
    }
    kinds = {field.path: field for field in recipe_fields()}
    return recipe.with_values({path: _value(kinds[path], text) for path, text in given.items()})


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """Add one option for each way of drawing an answer."""
    group = parser.add_argument_group("sampling")
    for field in fields_of(Sampling, "sampling"):
        name = field.path.split(".")[1]
        group.add_argument(
            f"--{name.replace('_', '-')}",
            dest=_PREFIX + field.path,
            metavar=_metavar(field),
            default=argparse.SUPPRESS,
            help=_help(field),
        )


def sampling_from(arguments: argparse.Namespace) -> Sampling:
    """The sampling that the options say.

    Raises:
        RecipeInvalid: a value is out of its range.
    """
    prefix = f"{_PREFIX}sampling."
    kinds = {field.path: field for field in fields_of(Sampling, "sampling")}
    return Sampling.of(
        **{
            key.removeprefix(prefix): _value(kinds[key.removeprefix(_PREFIX)], text)
            for key, text in vars(arguments).items()
            if key.startswith(prefix)
        }
    )


def _value(field: FieldInfo, text: str) -> Any:
    if field.optional and text.lower() in ("none", "null", ""):
        return None
    if field.type == "boolean":
        if text.lower() not in ("true", "false", "yes", "no", "on", "off", "1", "0"):
            raise RecipeInvalid(
                f"--{field.path} cannot be {text!r}.", "it is a switch.", "write true or false."
            )
        return text.lower() in ("true", "yes", "on", "1")
    if field.type == "list":
        if text == "all-linear":
            return text
        return json.loads(text) if text.startswith("[") else [t for t in text.split(",") if t]
    if field.type == "choice" and field.choices:
        return next((choice for choice in field.choices if str(choice) == text), text)
    return text  # pydantic turns "16" into 16 and refuses what is no number


def _metavar(field: FieldInfo) -> str:
    if field.choices and field.type == "choice" and len(field.choices) <= _MOST_SHOWN:
        return "{" + ",".join(str(choice) for choice in field.choices) + "}"
    return {
        "integer": "N",
        "number": "X",
        "boolean": "true|false",
        "list": "A,B",
        "choice": "NAME",
    }.get(field.type, "TEXT")


def _help(field: FieldInfo) -> str:
    default = ",".join(field.default) if isinstance(field.default, list) else field.default
    names = ""
    if len(field.choices or []) > _MOST_SHOWN:
        names = f" One of {', '.join(str(choice) for choice in field.choices or [])}."
    return f"{field.description}{names} [default: {default}]".replace("%", "%%")
