"""The embedded model's card: what it is, how it was made, what was measured.

It knows the measures by name; it measures nothing.
"""

from __future__ import annotations

from tunebook.models.embedded.build.facts import all_facts, topics

CARD = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# Tunebook Tiny

A chat model small enough to ship inside the package, so that every feature of Tunebook (loading
in 4 bits, fine-tuning, chat, export) can be tried and tested without a download or a GPU.
It answers questions about a closed world of {facts} facts in {topics} topics, follows a few simple
instructions, and tells short children's stories. It knows nothing else and is no use as an
assistant.

## Model

Llama architecture, {parameters:,} parameters in bfloat16: 6 layers, hidden size 256, MLP size
768, 4 heads of 64 with 2 key-value heads, tied embeddings, vocabulary 2048 (byte-level BPE learnt
from the same text), trained on rows of 512 tokens. Every matrix row is a multiple of 256 long, so
that 4-bit and K-quant formats apply. Format of a chat:
`<|bos|><|user|>question<|end|><|assistant|>answer<|end|>`, with `<|system|>text<|end|>` first if
wanted. Decoding is greedy by default.

## Training

All text is made by the project's own generator from hand-written tables and a grammar
(`src/tunebook/models/embedded/build/`); no text, model or data from elsewhere is in it. Again:

    python -m tunebook.models.embedded.build --out DIR --device cuda --compile --steps {steps}

The corpus and the tokenizer are the same for the same seed; the weights are the same up to the
arithmetic of the card and the rounding of the schedule, which was bent to a limit of time.

AdamW, 65,536 tokens a step, cosine schedule from 2e-3, {steps:,} steps ({tokens:,} tokens drawn
from a corpus of {corpus_tokens:,}), {seconds:.0f} seconds on one H200 GPU. In the second half every
other step runs with the layers' matrices rounded to NF4, so that the model keeps its abilities in
4 bits.

## Measures

| what | figure |
| --- | --- |
| exact answers, every fact in phrasings never trained on | {exact_held_out_phrasings:.1%} |
| exact answers, every fact in a phrasing trained on | {exact_training_phrasings:.1%} |
| exact last answers in chats with system prompts and several turns | {exact_styled_chats:.1%} |
| perplexity a token, unseen documents of all kinds | {perplexity_documents:.2f} |
| perplexity a token, unseen stories | {perplexity_stories:.2f} |

"Exact" is the whole greedy answer, letter by letter, in bfloat16.

## Samples

{samples}

## Limits

Facts are a child's: simple, and some are conventions (the seasons are those of the north). Names
are common first names and mean nobody. Outside of its world the model makes things up.
"""


def model_card(parameters: int, measures: dict[str, float], spoken: list[tuple[str, str]]) -> str:
    """The text of the model folder's README.md."""
    samples = "\n".join(f"- **{question}** {answer}" for question, answer in spoken)
    return CARD.format(
        facts=len(all_facts()),
        topics=len(topics()),
        parameters=parameters,
        samples=samples,
        **measures,
    )
