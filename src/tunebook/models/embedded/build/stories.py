"""A small grammar of children's stories: names, places, things and plots with cause and effect.

It knows nothing of tokens or of chat; a plot is lines of text with choices in it, and nothing more.
"""

from __future__ import annotations

import random
import re

from tunebook.models.embedded.build.facts import words

GIRLS = words("""
Anna Lily Mia Ella Zoe Nora Lucy Ruby Ivy Clara Rosa Hana Amina Freya Maya Sofia Emma Alice
Greta Nina Tara Leila Wendy Dora Elsa
""")
BOYS = words("""
Tom Ben Max Sam Leo Finn Jack Theo Noah Hugo Omar Ravi Oscar Felix Adam Peter Paul Luca Ivan
Kofi Jonas Emil Toby Arun Milo
""")
ANIMALS = words("""
fox rabbit bear mouse hedgehog squirrel frog duck owl cat dog pony goat lamb beaver badger
otter sparrow turtle piglet kitten puppy hen donkey mole deer swan elephant lion penguin
""")
CHILD = words("boy girl")
SIZES = words("little small young tiny shy brave cheerful clever kind curious quiet merry")
COLOURS = words("red blue green yellow white brown golden silver purple orange")
THINGS = words("""
ball kite hat boat drum book lamp bell box basket scarf cup button key whistle blanket wagon
shell feather ribbon stone bucket spoon coat flute pencil puppet lantern mitten bag
""")
PLACES = words(
    "forest|garden|park|meadow|village|farm|valley|orchard|market|old mill|harbour|castle|"
    "barn|school|library|field",
    "|",
)
WATERS = words("river lake pond stream sea brook")
FOODS = words(
    "apple|cake|pie|loaf of bread|pear|bowl of soup|pancake|carrot|piece of cheese|plum|"
    "biscuit|jar of honey|sandwich|bun",
    "|",
)
PRONOUNS = {"boy": ("he", "him", "his"), "girl": ("she", "her", "her")}

OPENINGS = (
    "[Once upon a time|Once|Long ago|One day], there was a {size} {kind} [named|called] {N}. ",
    "{N} was a {size} {kind} who lived [near|beside|not far from] the {place}. ",
    "[In|Near|Beside] the {place} there lived a {size} {kind}. {His} name was {N}. ",
    "There was once a {size} {kind} whose name was {N}. {N} lived in a [small|cosy|warm|little]"
    " house [by|near] the {water}. ",
)

SETTINGS = (
    "It was a [sunny|warm|bright|lovely] day and the [birds|bees|children] were"
    " [busy|happy|loud]. ",
    "The [sky|morning air] was [clear|fresh|cool] and {N} felt [happy|full of joy|ready to play]. ",
    "It was a [cold|windy|rainy|grey|cloudy] morning, but {N} did not mind. ",
    "In [spring|summer|autumn|winter], {he} liked to [walk|play|run] in the {place}. ",
    "{N} had a [good|dear|best] friend, a {size2} {kind2} named {F}. ",
    "Every [day|morning|evening], {he} [walked|ran|went] to the {water} to [look at the fish|"
    "throw stones|listen to the water|sit in the sun]. ",
    "",
)

ENDINGS = (
    "From that day on, {N} and {F} were the best of friends.",
    "That night, {N} slept well and dreamed of the {place}.",
    "{N} [smiled|laughed] and went home, [happy|tired but happy|proud and glad].",
    "And {N} never forgot that [day|lesson].",
    "So {N} learned that it is [good|wise] to {moral}.",
    "Then they [ate a {food} together|sang a song|danced in the {place}], and everyone was happy.",
    "{N} told {his} mother all about it, and she was very proud.",
    "The end of the day was [golden|quiet|warm], and all was well.",
)

# One plot a paragraph: its moral, then its sentences. A line that opens with `?` may be left out.
PLOTS = """
look after your things
One [day|morning], {N} lost {his} {colour} {thing}. [It was {his} favourite {thing}|It had been a gift from {his} grandmother].
{He} looked [under the bed|behind the door|in the grass] and [under the table|in the {place}|near the {water}], but it was not there.
?{N} was so sad that {he} began to cry.
{F} the {kind2} [came by|heard {him}|saw {him}] and asked, "[What is wrong|Why are you sad|What happened], {N}?"
"I have lost my {thing}," said {N}. "[Can you help me|Will you help me look for it]?"
"[Of course|Yes|I will help you]," said {F}. [They looked everywhere|They walked back along the path|Together they searched the {place}].
At last {F} [saw|found] something {colour} [in a tree|under a bush|beside the {water}]. It was the {thing}!
"Thank you!" [said|cried] {N}, and [hugged {F}|jumped for joy|gave {F} a {food}].

share with others
{N} had a [big|fresh|sweet] {food}. {He} wanted to eat it all alone.
Then {F} the {kind2} came [to the {place}|along the path]. {F} [was hungry|had nothing to eat|looked thin and tired].
"[May I have a bit|Can I have some|Will you share it with me]?" asked {F}.
?{N} [thought for a while|looked at the {food}|did not know what to say]. "[It is mine|I am hungry too]," {he} thought.
But {N} saw that {F} was sad, so {he} [cut the {food} in two|gave {F} half].
"Thank you, {N}! [You are kind|You are a good friend]," said {F}.
They sat [in the sun|by the {water}|under a tree] and ate. The {food} tasted [better|sweeter] because they shared it.

ask for help
{N} wanted to [cross|get over] the {water}, because {his} [friend|grandmother|home] was on the other side.
But the water was [deep|fast|cold], and {N} could not swim.
?"[Oh no|Oh dear]! [What can I do|How will I get across]?" said {N}.
First, {he} tried to [jump|walk on the stones], but {he} [fell in and got wet|slipped and got wet].
Then {F} the {kind2} said, "[Let us build a bridge|We can make a boat|I have a rope]. [I will help you|It will be easy together]."
They [gathered wood|worked all day|worked hard], and [soon|before night] they were done.
{N} went across the {water} and was [safe and dry|very happy]. "[Two are stronger than one|I could not do it alone]," {he} said.

be brave
One night, {N} heard a [strange|loud|odd] noise. [Bump, bump, bump|Tap, tap, tap|Whoo, whoo]! It came from the {place}.
{N} was afraid and [hid under the blanket|hid behind the door|held {his} {thing} tight].
But the noise did not stop, so {N} took a [lamp|lantern|candle] and went to look.
?{His} heart beat fast, and the wind was cold.
In the {place}, {he} found {F}, a {size2} {kind2}, [who was stuck under a branch|who was caught in a net|who had fallen into a hole].
"[Please help me|Help|I cannot get out]!" said {F}.
{N} [pulled and pulled|worked hard|lifted the branch] until {F} was free. "[You are so brave|Thank you, brave {N}]," said {F}.
{N} laughed. "I was afraid," {he} said, "but [I am glad that I came|now I am not]."

tell the truth
{N} [played with|threw|ran with] a {colour} {thing} in the house, and it hit {his} mother's [best|favourite|blue|old] plate.
[The plate fell to the floor and broke|Crash! The plate was in pieces|It fell down and broke].
?{N} was [scared|worried] and wanted to hide the pieces.
When {his} mother came home, she asked, "Who did this?"
At first, {N} [said nothing|looked at the floor|wanted to say that {F} did it].
But then {he} felt bad. "[It was me|I did it]. I am sorry," said {N}.
{His} mother was not angry. "[Thank you for telling the truth|I am glad that you told me]," she said. "[We can fix it with glue|Let us clean it up together]."

keep trying
{N} wanted to learn to [swim|ride a bicycle|play the flute|fly a kite|climb a tree|dance].
The first time, {he} [could not do it|failed]. The second time, {he} [fell down|got it wrong again].
"[I cannot do it|It is too hard|I give up]!" said {N}, and {he} [sat down|kicked a stone|began to cry].
?{F} laughed at first, but then {F} felt sorry.
"Do not give up," said {F} the {kind2}. "[Try again tomorrow|I had to try many times too|Start slowly]."
So {N} tried again, [day after day|every morning|a little each day]. [It was hard work|{He} got a little better each time].
And one day, {he} could do it! "[Look at me|I did it|Look, {F}]!" {he} shouted.

be careful with strangers' things
{N} found a {colour} {thing} [on the path|in the {place}|beside the {water}]. It was [shiny|pretty|new].
"[Can I keep it|How lovely|I like it]," said {N}. But {he} knew that [someone had lost it|it was not {his} own].
So {N} asked [the baker|the farmer|the teacher], but it was not theirs.
?{N} asked a hen, a goat and a cow, but they only looked at {him}.
Then {he} met {F} the {kind2}, who was [crying|looking for something]. "I have lost my {colour} {thing}!" said {F}.
"Here it is," said {N}. {F} was so [happy|glad] that {he2} [gave {N} a {food}|sang a song|danced].

be kind to animals
[On the way home|In the {place}], {N} saw a [small|hurt|tiny] bird on the ground. Its wing was [broken|hurt].
{N} felt sorry for the bird, so {he} [put it in a basket|carried it home|made a warm nest for it].
Every day, {N} gave it [seeds|water and seeds|crumbs of bread]. {F} [came to help|brought a blanket].
?"Will it fly again?" asked {F}. "[I hope so|Yes, if we take good care of it]," said {N}.
After [a week|many days|two weeks], the bird was [well|strong] again. It [opened its wings|hopped to the window] and flew away.
{N} was [sad and happy at the same time|sad to see it go]. But [in spring|the next day] the bird came back and sang [at the window|a song for {him}].

get ready in time
The [summer|autumn] was long and warm. {F} the {kind2} gathered [nuts|apples|wood|food] every day.
But {N} only [played|slept in the sun|sang songs]. "Winter is far away," {he} said.
?"You should work too," said {F}. "[No, not today|Tomorrow, maybe]," said {N}.
Then the snow came, and it was [very cold|white everywhere]. {N} had nothing to eat and was [hungry|cold and hungry].
{He} went to {F} and [knocked at the door|asked for help]. "[Please, may I come in|I should have listened to you]," said {N}.
"[Come in|Come and get warm]," said {F}, and gave {him} a {food}. "Next year, we will work together."

listen to your mother
"Do not go [into the {place}|near the {water}] alone," said {N}'s mother. "[It is not safe|You may get lost]."
But {N} saw a [butterfly|{colour} bird|rabbit] and ran after it, [further and further|deeper and deeper].
Soon it was dark, and {N} did not know the way home. {He} was [lost|cold|afraid].
?The wind blew, and the trees looked like giants.
"[Mother|Help]!" {he} called, but nobody came.
Then {F} the {kind2} saw {him} and said, "[I know the way|Do not be afraid|Follow me]." They walked [under the moon|through the dark] until they saw a light.
{N}'s mother ran out and hugged {him}. "I am sorry, mother," said {N}. "[I will listen next time|I will not do it again]."

make new friends
{N} was new in the {place} and had no friends. {He} felt [lonely|sad|shy].
[The others played with a {thing}|The other children played], but nobody asked {him} to join.
One day it [rained|snowed|was very hot], and {N} saw {F} the {kind2}, who [was wet and cold|sat alone too].
?{N} was too shy to speak, but {he} smiled.
"[Do you want to come under my umbrella|Would you like a {food}|Do you want to see my {colour} {thing}]?" asked {N}.
"Yes, please!" said {F}. They [talked and laughed|played all day|told each other stories].
"[Will you come back tomorrow|Shall we play again]?" asked {F}. "Yes," said {N}, "every day!"

plant and be patient
{N} had a seed. {He} dug a hole in the [garden|soil], put the seed in, and gave it water.
The next day {he} looked, but there was nothing. "[Why does it not grow|Where is my flower]?" {he} asked.
"[Wait|Be patient]," said {F}. "A seed needs [water, sun and time|time]."
?{N} wanted to dig it up, but {F} said no.
So {N} gave it water every day. It rained, and the Sun was warm.
Then, one morning, there was a [tiny|small] green leaf! It grew and grew, and [soon|in summer] it was a [tall sunflower|{colour} flower|little apple tree].
"[It was worth the wait|Look how tall it is]!" said {N}, and {F} [clapped|smiled].

work together
[There was a big storm|A strong wind came], and it [broke the roof|blew away the roof] of {F}'s house.
"[Where will I sleep|Now I have no home]!" said {F} the {kind2}, and cried.
{N} had an idea. "[Let us build it again|We will build a new one]," {he} said. "I will ask everyone to help."
The [beaver|bear] brought wood, the [birds|mice] brought [straw|grass], and {N} [brought nails and a hammer|cooked soup for all].
?"This is heavy!" said one. "Then we lift it together," said {N}.
When the Sun went down, the house was [done|finished]. It was [stronger|nicer] than before.
{F} thanked them all, and they had a [party|feast] with [songs and {food_s}|music and {food_s}].

give from the heart
It was {F}'s birthday, but {N} had no money for a gift.
?{N} counted {his} coins. There was only one, and it was not enough.
{He} walked to the market, but a {thing} cost too much.
So {N} went home and [made a {thing}|painted a picture|baked a {food}] with {his} own hands. [It took all day|It was not easy].
At the party, {F} got many [big|fine] gifts. {N} was [shy|worried] because {his} gift was so small.
But when {F} saw it, {he2} [smiled|was very happy]. "[You made this for me|This is the best gift of all]!" said {F}.

do not be too proud
{N} could run very fast. "[I am the fastest|Nobody is as fast as me]!" {he} said every day.
{F} the {kind2} said, "Let us have a race [to the {water}|to the {place}|around the {water}]."
{N} laughed. "You are so slow! [I will win|It will be easy]."
The race began, and {N} was [soon far ahead|so fast that {he} could not see {F}]. So {he} [sat down to eat a {food}|lay down to sleep|stopped to play with a {thing}].
?The Sun was warm, and the grass was soft.
But {F} did not stop. Step by step, {F} went on. When {N} [woke up|looked up], {F} was already there!
"[Well done|You won], {F}," said {N}. "I was too proud."

be curious
[In an old house|In the {place}|Behind the barn], {N} found a [small|secret|dusty] door.
"What is behind it?" asked {N}. {He} [looked through the hole|pushed hard], but the door was locked.
{F} the {kind2} said, "[I have seen a key|We need a key]. [Look in the {thing}|Look under the stone]!"
There was the key, and it was {colour}. {N} turned it, and the door opened with a [creak|click].
?"You go first," said {F}. "No, you," said {N}.
Behind the door there was a [garden full of flowers|room full of books|stair that went down to the {water}|box with a {colour} {thing} in it].
"[This will be our secret place|What a wonderful place]," said {N}.
"""  # noqa: E501

_CHOICE = re.compile(r"\[([^\[\]]*)\]")


def expand(rng: random.Random, text: str, slots: dict[str, str]) -> str:
    """Take one of each `[a|b|c]` and fill in each `{slot}`."""
    text = _CHOICE.sub(lambda match: rng.choice(match.group(1).split("|")), text)
    return text.format_map(slots)


def _plots() -> list[tuple[str, list[str]]]:
    paragraphs = [part.splitlines() for part in PLOTS.strip().split("\n\n")]
    return [(lines[0], lines[1:]) for lines in paragraphs]


_PLOT_LIST = _plots()


def cast(rng: random.Random, kind: str = "", name: str = "", thing: str = "") -> dict[str, str]:
    """The people, places and things of one story; what is given is used."""
    girl = name in GIRLS if name else rng.random() < 0.5
    name = name or rng.choice(GIRLS if girl else BOYS)
    friend_girl = rng.random() < 0.5
    friend = rng.choice([n for n in (GIRLS if friend_girl else BOYS) if n != name])
    child = "girl" if girl else "boy"
    kind = kind or (child if rng.random() < 0.45 else rng.choice(ANIMALS))
    he, him, his = PRONOUNS[child]
    food = rng.choice(FOODS)
    return {
        "N": name, "F": friend, "kind": kind, "size": rng.choice(SIZES),
        "kind2": rng.choice([animal for animal in ANIMALS if animal != kind]),
        "size2": rng.choice(SIZES), "he": he, "him": him, "his": his,
        "He": he.capitalize(), "His": his.capitalize(), "he2": "she" if friend_girl else "he",
        "thing": thing or rng.choice(THINGS), "colour": rng.choice(COLOURS),
        "place": rng.choice(PLACES), "water": rng.choice(WATERS),
        "food": food, "food_s": rng.choice(("cake", "honey", "bread", "apples", "soup")),
    }  # fmt: skip


_AN = re.compile(r"\b([Aa]) (?=[aeiou])")


def story(rng: random.Random, kind: str = "", name: str = "", thing: str = "") -> str:
    """One short story, of some 60 to 200 words."""
    slots = cast(rng, kind, name, thing)
    moral, lines = rng.choice(_PLOT_LIST)
    slots["moral"] = moral
    body = [line for line in lines if not line.startswith("?") or rng.random() < 0.5]
    text = rng.choice(OPENINGS) + rng.choice(SETTINGS)
    text += " ".join(line.lstrip("?") for line in body) + " " + rng.choice(ENDINGS)
    return _AN.sub(r"\1n ", expand(rng, text, slots))
