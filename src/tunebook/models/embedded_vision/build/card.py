"""The embedded vision model's card: what it is, how it was made, what was measured.

It knows the measures by name; it measures nothing.
"""

from __future__ import annotations

from typing import Any

CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---

# Tunebook Tiny Vision

A vision-language model small enough to ship inside the package, so that every feature of Tunebook
that concerns pictures can be tried and tested without a download or a GPU. It reads drawn formulas
of the simple half of the project's grammar (sums, scripts, fractions, roots, functions, brackets)
and answers in canonical LaTeX. It knows nothing else and is no use as an assistant.

## Model

Qwen2.5-VL architecture, {parameters:,} parameters in bfloat16. Vision: 4 layers, hidden size 160,
patches of 8 pixels, 4 to an image token, windows of 112 pixels and full attention in turn. Language: 3
layers, hidden size 256, tied embeddings, byte-level BPE learnt from the same text.

## Training

Formulas and pictures are made by the project itself (`tunebook.latex`); no text, picture, model or data
from elsewhere is in it. Again:

    python -m tunebook.models.embedded_vision.build --make-data FILE
    python -m tunebook.models.embedded_vision.build --data FILE --device cuda --minutes 4 --out DIR

{trained_on:,} pictures, jittered in size, margin and ink, seen {pictures_seen:,} times in {steps:,} steps
and {seconds:.0f} seconds.

## Measures

Greedy answers to formulas that are in no training picture, in random fonts, sizes and weights.

| tokens | formulas | exactly right | edit distance |
| --- | --- | --- | --- |
{rows}

## Samples

{samples}

## Limits

Pictures as `tunebook.latex.rendering` draws them: black on white, one line, letters of 18 to 30 pixels to
the em. Handwriting, photographs, other fonts and commands outside of the grammar are misread.
"""


def model_card(report: dict[str, Any]) -> str:
    """The text of the model folder's README.md."""
    measures = {"all": report["held_out"], **report["by_length"]}
    rows = "\n".join(
        f"| {name} | {one['count']} | {one['exact']:.1%} | {one['distance']:.3f} |"
        for name, one in measures.items()
    )
    samples = "\n".join(f"- `{answer}`" for answer, _ in report["right"])
    return CARD.format(**report, rows=rows, samples=samples)
