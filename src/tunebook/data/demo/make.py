"""The demo's conversations: the embedded model's own facts, answered like a cheerful pirate.

It knows the fact tables and one rewriting rule; it knows nothing of tokens or training. Run as
`python -m tunebook.data.demo.make`; the files it writes are checked in.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from tunebook.data.demo import demo_path
from tunebook.models.embedded.build.facts import Fact, topic

TOPICS = ("capitals", "colours", "opposites", "plurals", "pasts", "babies", "kinds", "materials")
HELD_OUT = 8
SEED = 7


def pirate(answer: str) -> str:
    """`The capital of France is Paris.` -> `Arr! The capital of France be Paris, matey.`"""
    return f"Arr! {answer.replace(' is ', ' be ').removesuffix('.')}, matey."


def conversation(fact: Fact, template: str) -> dict[str, list[dict[str, str]]]:
    """One row: a question about a fact and the pirate's answer."""
    return {
        "messages": [
            {"role": "user", "content": fact.fill(template)},
            {"role": "assistant", "content": pirate(fact.answer)},
        ]
    }


def rows() -> dict[str, list[dict[str, list[dict[str, str]]]]]:
    """`train` and `heldout`: no fact is in both, and half of `heldout` is phrased in a new way.

    Every training phrasing is one that the embedded model was trained on; every fact has one row.
    """
    rng = random.Random(SEED)
    train, heldout = [], []
    for name in TOPICS:
        one = topic(name)
        facts = [Fact(one, x, y) for x, y in one.pairs]
        rng.shuffle(facts)
        for place, fact in enumerate(facts[:HELD_OUT]):
            templates = one.held_asks[:1] if place % 2 else one.asks[:4]
            heldout.append(conversation(fact, rng.choice(templates)))
        train += [conversation(fact, rng.choice(one.asks[:6])) for fact in facts[HELD_OUT:]]
    rng.shuffle(train)
    rng.shuffle(heldout)
    return {"train": train, "heldout": heldout}


def text(split: str) -> str:
    """The file of that split, as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows()[split])


def main() -> None:
    """Write both files beside this one."""
    for split in ("train", "heldout"):
        path: Path = demo_path(split)
        path.write_text(text(split), encoding="utf-8")


if __name__ == "__main__":
    main()
