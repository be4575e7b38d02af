"""What the embedded model can do: facts asked in new ways, perplexity, samples to read.

It knows the generators and a model folder; it knows nothing of how the model was trained.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tunebook.models.embedded.build import chats, stories
from tunebook.models.embedded.build.corpus import BOS, PAD, documents
from tunebook.models.embedded.build.facts import Fact, all_facts

SAMPLES = (
    "What is the capital of France?",
    "Can you tell me what colour a frog is?",
    "How many legs does a spider have?",
    "What do you call more than one mouse?",
    "Please work out 8 plus 7.",
    "Who are you?",
    "List three fruits.",
    "Write kite in capital letters.",
    "Tell me about a penguin.",
    "Write a story about a fox.",
    "Tell me a story about Anna.",
)


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: list[list[chats.Message]],
    max_new_tokens: int = 48,
    batch: int = 256,
) -> list[str]:
    """The greedy answer to each conversation."""
    texts = [
        str(tokenizer.apply_chat_template(one, tokenize=False, add_generation_prompt=True))
        for one in conversations
    ]
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    answers = [""] * len(texts)
    tokenizer.padding_side = "left"
    for at in range(0, len(order), batch):
        chosen = order[at : at + batch]
        inputs = tokenizer(
            [texts[i] for i in chosen],
            add_special_tokens=False,
            padding=True,
            return_tensors="pt",
        ).to(model.device)
        with torch.no_grad():
            output = model.generate(  # type: ignore[operator]
                **inputs, do_sample=False, max_new_tokens=max_new_tokens
            )
        new = output[:, inputs["input_ids"].shape[1] :]
        decoded = tokenizer.batch_decode(new, skip_special_tokens=True)
        for i, text in zip(chosen, decoded, strict=True):
            answers[i] = text
    return answers


def fact_questions(held: bool) -> list[tuple[Fact, str]]:
    """Every fact in every held-out phrasing, or in one training phrasing."""
    rng = random.Random(0)
    questions = []
    for fact in all_facts():
        asks = fact.topic.held_asks if held else (rng.choice(fact.topic.asks),)
        questions += [(fact, fact.fill(template)) for template in asks]
    return questions


def exact_rates(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    held: bool,
    limit: int | None = None,
) -> tuple[dict[str, float], list[str]]:
    """Exact-answer rate by topic and in `all`, and the misses as text."""
    questions = fact_questions(held)
    if limit is not None:
        questions = random.Random(1).sample(questions, limit)
    answers = generate(model, tokenizer, [chats.turn(ask, "")[:1] for _, ask in questions])
    right: dict[str, list[bool]] = defaultdict(list)
    misses = []
    for (fact, ask), answer in zip(questions, answers, strict=True):
        for name in ("all", fact.topic.name):
            right[name].append(answer == fact.answer)
        if answer != fact.answer:
            misses.append(f"{ask} -> {answer!r}, not {fact.answer!r}")
    return {name: sum(hits) / len(hits) for name, hits in right.items()}, misses


def styled_rate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int, count: int = 500
) -> float:
    """Exact last answers of fact chats of several turns and system prompts (training phrasings)."""
    rng = random.Random(seed)
    wanted = [chats.fact_chat(rng) for _ in range(count)]
    answers = generate(model, tokenizer, [one[:-1] for one in wanted], max_new_tokens=64)
    hits = [a == one[-1]["content"] for a, one in zip(answers, wanted, strict=True)]
    return sum(hits) / count


def perplexity(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str], batch: int = 64
) -> float:
    """Of every token after the first, on documents as the generator writes them."""
    total, count = 0.0, 0
    tokenizer.padding_side = "right"
    for at in range(0, len(texts), batch):
        inputs = tokenizer(
            texts[at : at + batch],
            add_special_tokens=False,
            padding=True,
            return_tensors="pt",
        ).to(model.device)
        labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
        with torch.no_grad():
            logits = model(**inputs).logits.float()
        losses = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum"
        )
        total += losses.item()
        count += int((labels[:, 1:] != -100).sum())
    return math.exp(total / count)


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    limit: int | None = None,
) -> tuple[dict[str, float], dict[str, float], list[str]]:
    """The measures, the held-out rate by topic, and the misses. `seed` must be unseen."""
    model.train(False)
    by_topic, misses = exact_rates(model, tokenizer, held=True, limit=limit)
    trained, _ = exact_rates(model, tokenizer, held=False, limit=limit)
    rng = random.Random(seed)
    count = limit or 2000
    tales = [f"{BOS}{stories.story(rng)}{PAD}" for _ in range(count)]
    measures = {
        "exact_held_out_phrasings": by_topic["all"],
        "exact_training_phrasings": trained["all"],
        "exact_styled_chats": styled_rate(model, tokenizer, seed, min(count, 500)),
        "perplexity_documents": perplexity(model, tokenizer, documents(seed, count)),
        "perplexity_stories": perplexity(model, tokenizer, tales),
    }
    return measures, by_topic, misses


def samples(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[tuple[str, str]]:
    """A few questions and what the model says, greedily."""
    conversations = [chats.turn(question, "")[:1] for question in SAMPLES]
    answers = generate(model, tokenizer, conversations, max_new_tokens=256)
    return list(zip(SAMPLES, answers, strict=True))
