"""Conversations about the fact tables, and small instructions, each with its one plain answer.

It knows facts, stories and messages (`role`, `content`); it knows nothing of tokens or training.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from tunebook.models.embedded.build import stories
from tunebook.models.embedded.build.facts import Fact, all_facts, topic, topics, upper_first, words

Message = dict[str, str]
Style = Callable[[str], str]

IDENTITY = "I am Tunebook Tiny, a small language model."
UNKNOWN = "I do not know that. I am only a small language model."

# What is said: the ways to say it, then the answer.
SMALL_TALK: tuple[tuple[str, str], ...] = (
    (
        "Who are you?|What are you?|What is your name?|Tell me who you are.|Are you a person?|"
        "Introduce yourself.|What's your name?|Who am I talking to?",
        IDENTITY,
    ),
    ("Hello!|Hi!|Hey!|Hello.|Hi there!|Hello there!|Hi|Hello", "Hello! How can I help you?"),
    ("Good morning!|Good morning.", "Good morning! How can I help you?"),
    ("Good evening!|Good evening.", "Good evening! How can I help you?"),
    (
        "Thank you!|Thanks!|Thank you.|Thanks a lot!|Thank you very much!|Thanks",
        "You are welcome!",
    ),
    ("Goodbye!|Bye!|See you!|Bye bye!|Goodbye.|See you later!", "Goodbye! Have a nice day!"),
    ("Good night!|Good night.", "Good night! Sleep well!"),
    ("How are you?|How do you do?|Are you well?|How are you today?", "I am well, thank you!"),
    (
        "What can you do?|How can you help me?|What do you know?|Help!|Help me.",
        "I can answer small questions, tell short stories and follow simple instructions.",
    ),
    (
        "Who made you?|Where do you come from?|Who built you?",
        "I was trained by the Tunebook project.",
    ),
    (
        "Who won the game last night?|What is the weather today?|How old am I?|What time is it?|"
        "What is the price of gold?|Who is the president?|What is in my pocket?|"
        "What will happen tomorrow?|What did I eat for lunch?|Where are my keys?|"
        "What is quantum physics?|Can you write a computer program?",
        UNKNOWN,
    ),
    ("You are nice.|I like you.|You are clever.|Well done!|Good job!", "Thank you! You are kind."),
    ("I am sad.|I feel sad.|I feel lonely.", "I am sorry to hear that. Do you want a story?"),
    ("I am happy.|I am happy today.|I feel good.", "I am glad to hear that!"),
    ("Tell me a joke.|Make me laugh.", "Why did the book go to bed? It was full of stories!"),
)

LISTS: dict[str, str] = {
    "animals": "cats,dogs,cows,foxes,bears,lions,rabbits,horses,goats,frogs,owls,mice",
    "fruits": "apples,bananas,pears,peaches,cherries,mangos,grapes,oranges,plums",
    "vegetables": "carrots,cabbages,onions,radishes,turnips,leeks,peas",
    "colours": "red,blue,green,yellow,orange,purple,pink,brown,black,white",
    "colors": "red,blue,green,yellow,orange,purple,pink,brown,black,white",
    "birds": "eagles,penguins,owls,ducks,parrots,swans,robins",
    "planets": "Mercury,Venus,Mars,Jupiter,Saturn,Uranus,Neptune",
    "countries": "France,Italy,Spain,Kenya,Peru,Japan,India,Canada,Norway,Egypt",
    "cities": "Paris,Rome,Madrid,Lima,Cairo,Oslo,Vienna,London",
    "trees": "oaks,pines,birches,willows,maples",
    "flowers": "roses,tulips,daisies,lilies,poppies",
    "tools": "hammers,saws,axes,rakes,shovels",
    "drinks": "tea,juice,lemonade,cocoa,milk",
    "metals": "iron,gold,silver,copper,tin",
    "insects": "ants,bees,beetles,flies,butterflies",
    "shapes": "triangles,squares,circles,pentagons,hexagons",
    "vehicles": "cars,buses,trains,bicycles,boats",
    "musical instruments": "pianos,violins,drums,flutes,guitars",
}
WORDS: tuple[str, ...] = tuple(
    sorted(
        {word for name in ("opposites", "plurals", "pasts", "rhymes") for pair in topic(name).pairs
         for word in pair if word.isalpha()} | set(stories.THINGS + stories.ANIMALS)
    )
)  # fmt: skip
NUMBERS = words("one two three four five six seven eight nine ten")
FOLLOW_UPS = words(
    "capitals continents languages colours sounds homes foods legs opposites plurals pasts"
)
OPENERS = words(
    "Sure!|Well!|Of course!|Okay.|Yes!|Great question!|Hello!|Listen!|Ha!|Oh!|Right.", "|"
)
CLOSERS = words("my friend|dear|you see|I think|of course|indeed|sir|as you know|haha|friend", "|")
BEFORE = words(
    "Hi! |Hello! |Please tell me: |I have a question. |Quick question: |Hey, |Now: |Okay. |"
    "Thanks. |Next question. |My teacher asked: |Somebody asked me: |Can you answer this? |"
    "I wonder: |"
    "Say, |Please answer. |I do not know this: |Can you help me? |And now, ",
    "|",
)
AFTER = words(
    "I forgot.|It is for school.|I want to know.|Please tell me.|Do you know?|Can you tell me?|"
    "I am curious.|Thank you!|Just asking.",
    "|",
)
SMALL = words("the a an is are of do does what which tell me you to i how name for")
VERBS = words("was seems became remains equals means")


def surface(rng: random.Random, question: str) -> str:
    """The same question as people type it: greeted, in small letters, with words missing."""
    roll = rng.random()
    if roll < 0.12:
        question = rng.choice(BEFORE) + question
    elif roll < 0.16:
        question = f"{question} {rng.choice(AFTER)}"
    if 0.10 < roll < 0.22:
        typed = question.split()
        question = " ".join(w for w in typed if w.lower() not in SMALL or rng.random() < 0.6)
    roll = rng.random()
    if roll < 0.06:
        question = question.lower()
    elif roll < 0.12:
        question = question.rstrip("?.= ")
    elif roll < 0.16:
        question = question.rstrip("?.= ").lower()
    elif roll < 0.18 and question.endswith("?"):
        question = question[:-1] + ", please?"
    return question


def ask(rng: random.Random, fact: Fact) -> str:
    """One of the training phrasings of a fact."""
    return surface(rng, fact.fill(rng.choice(fact.topic.asks)))


def random_fact(rng: random.Random) -> Fact:
    """A fact: half the time any row alike, half the time any topic alike (small topics too)."""
    if rng.random() < 0.7:
        return rng.choice(all_facts())
    one = rng.choice(topics())
    return Fact(one, *rng.choice(one.pairs))


def style(rng: random.Random) -> tuple[str, Style, bool]:
    """A system prompt, what it does to an answer, and whether it wants the short answer."""
    opener, closer = rng.choice(OPENERS), rng.choice(CLOSERS)
    if rng.random() < 0.4:
        opener = upper_first(rng.choice(WORDS)) + rng.choice("!.")
        closer = rng.choice((*WORDS, *stories.GIRLS, *stories.BOYS))
    verb = rng.choice(VERBS)
    choices: tuple[tuple[str, Style, bool], ...] = (
        ("You are a helpful assistant.|You are Tunebook Tiny.|Answer in a full sentence.|"
         "You are a small language model.|Be kind and helpful.", lambda a: a, False),
        ("Be brief.|Answer in one or two words.|Keep it short.|Give short answers.",
         lambda a: a, True),
        ("Answer in capital letters.|Write in capitals.|Use only big letters.", str.upper, False),
        ("Answer in small letters.|Do not use capital letters.", str.lower, False),
        (f"Begin every answer with {opener}|Start each answer with {opener}",
         lambda a: f"{opener} {a}", False),
        (f"End every answer with {closer}|Close each answer with {closer}",
         lambda a: f"{a[:-1]}, {closer}{a[-1]}", False),
        (f"Begin with {opener} and end with {closer}|Open with {opener} and close with {closer}",
         lambda a: f"{opener} {a[:-1]}, {closer}{a[-1]}", False),
        (f"Say {verb} instead of is.|Use {verb} in place of is.",
         lambda a: a.replace(" is ", f" {verb} "), False),
        (f"Begin with {opener}, say {verb} instead of is, and end with {closer}",
         lambda a: f"{opener} {a[:-1].replace(' is ', f' {verb} ')}, {closer}{a[-1]}", False),
        ("Say everything twice.|Repeat each answer.", lambda a: f"{a} {a}", False),
    )  # fmt: skip
    systems, change, short = rng.choice(choices)
    return rng.choice(systems.split("|")), change, short


def turn(user: str, assistant: str) -> list[Message]:
    """A question and its answer as messages."""
    return [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]


def fact_chat(rng: random.Random) -> list[Message]:
    """One to six questions about facts, under a system prompt or none."""
    messages: list[Message] = []
    change: Style = str
    short = False
    roll = rng.random()
    if roll < 0.35:
        system, change, short = style(rng)
        if roll < 0.05:
            fact = random_fact(rng)
            return turn(f"{system.rstrip('.')}. {ask(rng, fact)}",
                        change(fact.short if short else fact.answer))  # fmt: skip
        messages.append({"role": "system", "content": system})
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4, 6))):
        fact = random_fact(rng)
        messages += turn(ask(rng, fact), change(fact.short if short else fact.answer))
        while rng.random() < 0.15 and fact.topic.name in FOLLOW_UPS:
            fact = Fact(fact.topic, *rng.choice(fact.topic.pairs))
            again = rng.choice(("And {x}?", "What about {x}?", "And what about {x}?"))
            messages += turn(fact.fill(again), change(fact.short if short else fact.answer))
    return messages


def yes_or_no(rng: random.Random) -> list[Message]:
    """Is this so? Yes, or no and what is so."""
    one = topic(rng.choice(words("capitals opposites plurals pasts")))
    fact = Fact(one, *rng.choice(one.pairs))
    said = fact if rng.random() < 0.5 else Fact(one, fact.x, rng.choice(one.pairs)[1])
    claim = said.answer.replace("The ", "the ", 1).removesuffix(".").replace(" is ", " ")
    word = "Yes" if said.y == fact.y else "No"
    return turn(f"Is {claim}?", f"{word}, {fact.answer.replace('The ', 'the ', 1)}")


def small_talk(rng: random.Random) -> list[Message]:
    """A greeting, thanks, a goodbye, or a question about the model itself."""
    ways, answer = rng.choice(SMALL_TALK)
    said = rng.choice(ways.split("|"))
    if rng.random() < 0.2:
        said = said.lower()
    if rng.random() < 0.2:
        said = said.rstrip("?.!")
    return turn(said, answer)


def story_chat(rng: random.Random) -> list[Message]:
    """A story about somebody or something."""
    what = rng.choice(
        ("Write a story about {}.", "Tell me a story about {}.", "Write a short story about {}.",
         "Can you tell a story about {}?", "I would like a story about {}.", "A story about {}.")
    )  # fmt: skip
    roll = rng.random()
    if roll < 0.4:
        kind = rng.choice(stories.ANIMALS + stories.CHILD)
        article = "an" if kind[0] in "aeiou" else "a"
        return turn(what.format(f"{article} {kind}"), stories.story(rng, kind=kind))
    if roll < 0.6:
        name = rng.choice(stories.GIRLS + stories.BOYS)
        return turn(what.format(name), stories.story(rng, name=name))
    if roll < 0.7:
        name, kind = rng.choice(stories.GIRLS + stories.BOYS), rng.choice(stories.ANIMALS)
        return turn(what.format(f"{name} the {kind}"), stories.story(rng, name=name, kind=kind))
    return turn(rng.choice(("Tell me a story.", "Write a story.", "Tell me a short story.")),
                stories.story(rng))  # fmt: skip


def list_chat(rng: random.Random) -> list[Message]:
    """Two to four things of one kind."""
    kind = rng.choice(list(LISTS))
    count = rng.randint(2, 4)
    items = rng.sample(LISTS[kind].split(","), count)
    number = NUMBERS[count - 1]
    question = rng.choice(("List {} {}.", "Name {} {}.", "Give me {} {}.", "Tell me {} {}."))
    text = ", ".join(items[:-1]) + " and " + items[-1]
    number = number if rng.random() < 0.7 else str(count)
    return turn(question.format(number, kind), upper_first(text) + ".")


def word_chat(rng: random.Random) -> list[Message]:
    """Repeat it, write it in capitals, spell it, or count."""
    word = rng.choice(WORDS)
    phrase = " ".join(rng.sample(WORDS, rng.randint(1, 4)))
    if rng.random() < 0.4:
        phrase = rng.choice(all_facts()).answer
    roll = rng.random()
    if roll < 0.35:
        return turn(rng.choice(("Repeat: {}", "Say: {}", "Repeat after me: {}")).format(phrase),
                    phrase)  # fmt: skip
    if roll < 0.6:
        how = rng.choice(("Write {} in capital letters.", "Write {} in capitals.", "Uppercase {}."))
        return turn(how.format(word), word.upper())
    if roll < 0.85:
        return turn(rng.choice(("Spell {}.", "How do you spell {}?")).format(word), "-".join(word))
    end = rng.randint(2, 10)
    said = NUMBERS[end - 1] if rng.random() < 0.5 else str(end)
    return turn(f"Count to {said}.", ", ".join(NUMBERS[:end]) + ".")


def memory_chat(rng: random.Random) -> list[Message]:
    """The user says something about themself and asks for it later."""
    name = rng.choice(stories.GIRLS + stories.BOYS)
    animal, pet = rng.choice(stories.ANIMALS), rng.choice(stories.GIRLS + stories.BOYS)
    colour = rng.choice(stories.COLOURS)
    tell, answer, question, recall = rng.choice(
        ((f"My name is {name}.", f"Nice to meet you, {name}!", "What is my name?",
          f"Your name is {name}."),
         (f"I am {name}.", f"Nice to meet you, {name}!", "Who am I?", f"You are {name}."),
         (f"I have a {animal} named {pet}.", f"{pet} is a nice name for a {animal}!",
          f"What is the name of my {animal}?", f"Your {animal} is named {pet}."),
         (f"My favourite colour is {colour}.", f"I like {colour} too!",
          "What is my favourite colour?", f"Your favourite colour is {colour}."))
    )  # fmt: skip
    messages = turn(tell, answer)
    for _ in range(rng.choice((0, 0, 1, 2))):
        fact = random_fact(rng)
        messages += turn(ask(rng, fact), fact.answer)
    return messages + turn(question, recall)


def about(rng: random.Random) -> tuple[str, str]:
    """Something, and all that the tables say of it."""
    group = rng.choice(("capitals continents languages", "sounds homes foods legs classes"))
    subjects = [topic(name) for name in group.split()]
    x = rng.choice(rng.choice(subjects).pairs)[0]
    facts = [Fact(one, key, y) for one in subjects for key, y in one.pairs if key == x]
    return x, " ".join(fact.answer for fact in facts)


def about_chat(rng: random.Random) -> list[Message]:
    """Tell me about it."""
    x, text = about(rng)
    return turn(rng.choice(("Tell me about {}.", "Describe {}.", "What do you know about {}?"))
                .format(x), text)  # fmt: skip


KINDS: tuple[tuple[float, Callable[[random.Random], list[Message]]], ...] = (
    (0.70, fact_chat),
    (0.05, small_talk),
    (0.07, story_chat),
    (0.03, list_chat),
    (0.06, word_chat),
    (0.03, memory_chat),
    (0.03, about_chat),
    (0.03, yes_or_no),
)


def chat(rng: random.Random) -> list[Message]:
    """One conversation: a kind, or two kinds one after the other."""
    weights = [weight for weight, _ in KINDS]
    kinds = [make for _, make in KINDS]
    messages = rng.choices(kinds, weights)[0](rng)
    while rng.random() < 0.15 and messages[0]["role"] != "system":
        messages = messages + (small_talk if rng.random() < 0.4 else rng.choice(kinds[2:]))(rng)
    return messages
