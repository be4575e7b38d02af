"""The training text: documents drawn from the generators, tokenised and packed into rows.

It knows the chat format and a tokenizer; it knows nothing of the model or of training.
"""

from __future__ import annotations

import random
from array import array
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from tunebook.models.embedded.build import chats, stories
from tunebook.models.embedded.build.facts import upper_first

PAD, BOS, SYSTEM, USER, ASSISTANT, END = SPECIAL = (
    "<|endoftext|>", "<|bos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>",
)  # fmt: skip
RESERVED = tuple(f"<|reserved_{i}|>" for i in range(4))
ROW = 512


def render(messages: list[chats.Message]) -> str:
    """The chat format, as the chat template writes it."""
    turns = (f"<|{message['role']}|>{message['content']}{END}" for message in messages)
    return BOS + "".join(turns)


def dialogue(rng: random.Random) -> str:
    """Two children talk: about where they go, or about a fact."""
    slots = stories.cast(rng)
    fact, other = chats.random_fact(rng), chats.random_fact(rng)
    slots["a"], slots["b"] = fact.answer[:-1], other.answer[:-1]
    slots["qa"] = fact.fill(rng.choice(fact.topic.asks)).replace(",", ";")
    slots["qb"] = other.fill(rng.choice(other.topic.asks)).replace(",", ";")
    text = rng.choice(
        ('"[Hello|Hi|Good morning], {N}! Where are you going?" asked {F}. "I am going to the'
         " {place} with my {colour} {thing}," '" said {N}. "[May I come too|Can I come along]?"'
         ' "[Yes, of course|Yes, come along]!" said {N}, and they walked [past|along] the {water}.',
         '{N} and {F} sat [in the {place}|by the {water}|in school]. "{qa}" asked {N}.'
         ' "{a}," said {F}. "[And now you|Now I ask you]: {qb}" "{b}," said {N}.',
         'The teacher asked, "{qa}" {N} [put up {his} hand|thought for a while] and said, "{a}."'
         ' "[Very good|That is right|Well done], {N}," said the teacher.',
         'In the {place} there was a {colour} {thing}. It [belonged to {N}|was old and dusty|stood'
         " under a tree|was very small], and {F} the {kind2} [looked at it every day|liked it very"
         " much|wanted to have it]. [It rained|The Sun was warm|The wind blew], so {N} [went home|"
         "sat in the grass|ran to the {water}]."))  # fmt: skip
    return stories.expand(rng, text, slots)


def plain_facts(rng: random.Random) -> str:
    """Facts as running text."""
    if rng.random() < 0.5:
        return chats.about(rng)[1]
    return " ".join(upper_first(chats.random_fact(rng).answer) for _ in range(rng.randint(2, 6)))


def document(rng: random.Random) -> str:
    """One document with its special tokens."""
    roll = rng.random()
    if roll < 0.78:
        return render(chats.chat(rng))
    if roll < 0.92:
        text = stories.story(rng)
    elif roll < 0.96:
        text = dialogue(rng)
    else:
        text = plain_facts(rng)
    return f"{BOS}{text}{PAD}"


def documents(seed: int, count: int) -> list[str]:
    """The same seed gives the same documents."""
    rng = random.Random(seed)
    return [document(rng) for _ in range(count)]


def pack(token_rows: list[list[int]], pad: int) -> array[int]:
    """Whole documents, one after the other, in rows of 512; the rest of a row is padding.

    What is longer than a row is cut. Each row opens with a document's first token.
    """
    packed: array[int] = array("h")
    room = 0
    for ids in token_rows:
        ids = ids[:ROW]
        if len(ids) > room:
            packed.extend([pad] * room)
            room = ROW
        packed.extend(ids)
        room -= len(ids)
    packed.extend([pad] * room)
    return packed


def _shard(job: tuple[int, int, str]) -> bytes:
    """Write, tokenise and pack one shard (in a worker process)."""
    from tokenizers import Tokenizer

    seed, count, path = job
    tokenizer = Tokenizer.from_file(path)
    encoded = tokenizer.encode_batch(documents(seed, count), add_special_tokens=False)
    return pack([one.ids for one in encoded], SPECIAL.index(PAD)).tobytes()


def packed_corpus(
    tokenizer_path: str, seed: int, shards: int, per_shard: int, workers: int
) -> bytearray:
    """Rows of int16 token ids, shard by shard; the same for any number of workers."""
    jobs = [(seed * 100_003 + shard, per_shard, tokenizer_path) for shard in range(shards)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return bytearray(b"".join(pool.map(_shard, jobs)))
