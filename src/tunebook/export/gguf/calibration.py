"""Text to measure importance and divergence on: the user's own rows, and conversations and stories.

What is general comes from the generators of the embedded model's training text, which ship with the
package. Knows tokenizers; no model.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunebook.errors import NothingToLearn, TunebookError

if TYPE_CHECKING:
    from tunebook.recipe import Recipe

logger = logging.getLogger(__name__)
_LENGTH = 512  # tokens of a row, at most
_MOST_ROWS = 2048  # of a dataset that are looked at
_EVERY = 5  # one row in so many is held out

Rows = list[list[int]]


@dataclass(frozen=True)
class Calibration:
    """Token ids to measure on.

    Attributes:
        rows: that importance is measured on.
        held_out: other rows, for the divergence that is reported.
        datasets: where they are from.
    """

    rows: Rows
    held_out: Rows
    datasets: tuple[str, ...]


def calibration(
    tokenizer: Any, own: Sequence[Sequence[int]] = (), *, tokens: int, seed: int = 0
) -> Calibration:
    """Half the user's own rows, as far as there are enough, and half general text.

    A fifth of it is held out; rows that occur twice are taken once.

    Args:
        own: token ids as the model is trained or used on them, chat template and all.
        tokens: of all rows together, about; rows are cut to 512.

    Raises:
        NothingToLearn: the tokenizer makes nothing of the text.
    """
    mine = _some(iter(own), tokens // 2)
    spent = sum(map(len, mine))
    general = _some(_general(tokenizer, seed), tokens - spent)
    rows = mine + general
    held_out = [row for kind in (mine, general) for row in kind[_EVERY - 1 :: _EVERY]]
    kept = [row for kind in (mine, general) for n, row in enumerate(kind) if (n + 1) % _EVERY]
    if not held_out:
        raise NothingToLearn(
            "There is nothing to measure the model on.",
            f"the tokenizer makes {len(rows)} rows of the calibration text.",
            "check the tokenizer, or give more `calibration` rows.",
        )
    names = [name for name, kind in (("own rows", mine), ("tunebook general", general)) if kind]
    return Calibration(kept, held_out, tuple(names))


def rows_of(recipe: Recipe, tokenizer: Any) -> Rows:
    """Rows of a recipe's training data as the model learns them; none if the data are gone."""
    from tunebook.data import prepare_data

    most = min(_MOST_ROWS, recipe.data.max_rows or _MOST_ROWS)
    try:
        few = recipe.with_values({"data.max_rows": most, "data.eval_fraction": 0.0})
        rows: Rows = prepare_data(few, tokenizer).train["input_ids"]
    except TunebookError as error:
        logger.warning("Calibrating on general text alone: %s %s", error.what, error.why)
        return []
    return rows


def _some(rows: Iterator[Sequence[int]], tokens: int) -> Rows:
    """The first rows, cut, until they have so many tokens; none twice."""
    found: Rows = []
    seen: set[tuple[int, ...]] = set()
    for row in rows:
        if tokens <= 0:
            break
        cut = list(row[: min(_LENGTH, tokens)])
        if len(cut) < 2 or tuple(cut) in seen:
            continue
        seen.add(tuple(cut))
        found.append(cut)
        tokens -= len(cut)
    return found


def _general(tokenizer: Any, seed: int) -> Iterator[list[int]]:
    """Conversations by the chat template, where there is one, and every eighth row a story."""
    from tunebook.models.embedded.build import chats, stories

    rng = random.Random(seed)
    for number in range(100_000):
        messages: list[dict[str, str]] = [dict(message) for message in chats.chat(rng)]
        if tokenizer.chat_template is not None and number % 8 != 7:
            yield _conversation(tokenizer, messages)
            continue
        text = stories.story(rng) if number % 2 else "\n".join(m["content"] for m in messages)
        ids: list[int] = tokenizer(text)["input_ids"]
        start = tokenizer.bos_token_id
        yield ids if start is None or ids[:1] == [start] else [start, *ids]


def _conversation(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    from jinja2 import TemplateError

    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
    except TemplateError:  # some take no system message
        turns = [message for message in messages if message["role"] != "system"]
        text = tokenizer.apply_chat_template(turns, tokenize=False)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
