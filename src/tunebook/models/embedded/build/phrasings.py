"""How each topic of facts is answered and asked: the sentence, the short answer, the questions.

It knows the names of the tables in `facts` and nothing of their rows.
"""

from __future__ import annotations

# topic: (answer, short answer, questions to train on, questions held back for evaluation)
PHRASINGS: dict[str, tuple[str, str, str, str]] = {
    "capitals": (
        "The capital of {x} is {y}.",
        "{Y}.",
        """What is the capital of {x}?
        Which city is the capital of {x}?
        What's the capital city of {x}?
        Tell me the capital of {x}.
        Do you know the capital of {x}?
        {X} has which capital?
        Name the capital of {x}.
        What is {x}'s capital?""",
        """Can you tell me what the capital of {x} is?
        What city is the capital of {x}?""",
    ),
    "continents": (
        "{X} is in {y}.",
        "{Y}.",
        """Where is {x}?
        On which continent is {x}?
        What continent is {x} in?
        Which continent is {x} part of?
        In what part of the world is {x}?
        Tell me where {x} is.
        Name the continent of {x}.""",
        """Do you know which continent {x} is on?
        Where in the world is {x}?""",
    ),
    "languages": (
        "People in {x} speak {y}.",
        "{Y}.",
        """What language do people speak in {x}?
        Which language is spoken in {x}?
        What do people in {x} speak?
        Tell me the language of {x}.
        What is the language of {x}?
        How do people talk in {x}?
        In {x}, which language do they speak?""",
        """Which language do people in {x} speak?
        Can you tell me what language they speak in {x}?""",
    ),
    "colours": (
        "{X} is {y}.",
        "{Y}.",
        """What colour is {x}?
        What color is {x}?
        Which colour is {x}?
        Tell me the colour of {x}.
        What is the colour of {x}?
        Do you know the color of {x}?
        Is there a colour for {x}?
        What colour does {x} have?""",
        """Can you tell me what colour {x} is?
        Which color is {x}?""",
    ),
    "sounds": (
        "{X} says {y}.",
        "{Y}.",
        """What does {x} say?
        What sound does {x} make?
        Which sound does {x} make?
        What noise does {x} make?
        How does {x} sound?
        Tell me what {x} says.
        What is the sound of {x}?""",
        """Do you know what sound {x} makes?
        Which noise does {x} make?""",
    ),
    "homes": (
        "{X} lives in {y}.",
        "{Y}.",
        """Where does {x} live?
        In what place does {x} live?
        What is the home of {x}?
        Tell me where {x} lives.
        What does {x} live in?
        Where is the home of {x}?
        Where can I find {x} at home?""",
        """Do you know where {x} lives?
        Which home does {x} have?""",
    ),
    "foods": (
        "{X} eats {y}.",
        "{Y}.",
        """What does {x} eat?
        What food does {x} like?
        Tell me what {x} eats.
        What is the food of {x}?
        What do I feed {x}?
        Which food does {x} eat?
        What is good food for {x}?""",
        """Do you know what {x} eats?
        What kind of food does {x} eat?""",
    ),
    "babies": (
        "A baby {x} is called a {y}.",
        "A {y}.",
        """What is a baby {x} called?
        What do you call a baby {x}?
        What's the name for a baby {x}?
        Tell me what a baby {x} is called.
        What is the word for a young {x}?
        How is a baby {x} called?
        What do people call a young {x}?""",
        """Do you know what a baby {x} is called?
        What is the name of a baby {x}?""",
    ),
    "legs": (
        "{X} has {y} legs.",
        "{Y} legs.",
        """How many legs does {x} have?
        How many legs has {x} got?
        What number of legs does {x} have?
        Tell me how many legs {x} has.
        Count the legs of {x}.
        {X} has how many legs?""",
        """Do you know how many legs {x} has?
        Can you count the legs of {x}?""",
    ),
    "classes": (
        "{X} is {y}.",
        "{Y}.",
        """What kind of animal is {x}?
        What type of animal is {x}?
        Which kind of animal is {x}?
        What animal group is {x} in?
        Tell me what kind of animal {x} is.
        Is {x} a mammal, a bird, a fish or something else?
        To which animal group does {x} belong?""",
        """What sort of animal is {x}?
        Do you know what kind of animal {x} is?""",
    ),
    "kinds": (
        "{X} is {y}.",
        "{Y}.",
        """What is {x}?
        What kind of thing is {x}?
        What sort of thing is {x}?
        Tell me what {x} is.
        What type of thing is {x}?
        Explain what {x} is.
        Please say what {x} is.""",
        """Do you know what {x} is?
        Which kind of thing is {x}?""",
    ),
    "opposites": (
        "The opposite of {x} is {y}.",
        "{Y}.",
        """What is the opposite of {x}?
        What's the opposite of {x}?
        Tell me the opposite of {x}.
        Which word is the opposite of {x}?
        Give me the opposite of {x}.
        What word means the opposite of {x}?
        {X} is the opposite of what?
        Name the opposite of {x}.""",
        """Do you know the opposite of {x}?
        Can you give me the opposite of {x}?""",
    ),
    "plurals": (
        "The plural of {x} is {y}.",
        "{Y}.",
        """What is the plural of {x}?
        What's the plural of {x}?
        Tell me the plural of {x}.
        Give me the plural of {x}.
        How do you write the plural of {x}?
        One {x}, two what?
        If there is more than one {x}, what is the word?
        What is the word for many, when one is {x}?
        What is the plural form of {x}?""",
        """Do you know the plural of {x}?
        What do you call more than one {x}?""",
    ),
    "pasts": (
        "The past tense of {x} is {y}.",
        "{Y}.",
        """What is the past tense of {x}?
        What's the past tense of {x}?
        Tell me the past tense of {x}.
        Give me the past of {x}.
        How do you say {x} in the past?
        Put {x} into the past tense.
        Today I {x}, but what is the past tense?""",
        """Do you know the past tense of {x}?
        What is the past form of {x}?""",
    ),
    "uses": (
        "You use {x} to {y}.",
        "To {y}.",
        """What is {x} for?
        What do you do with {x}?
        What can I do with {x}?
        What do people use {x} for?
        What's the use of {x}?
        Tell me what {x} is for.
        Why do people have {x}?
        How do you use {x}?""",
        """What would I use {x} for?
        Do you know what {x} is for?""",
    ),
    "jobs": (
        "{X} {y}.",
        "{X} {y}.",
        """What does {x} do?
        What is the job of {x}?
        What is the work of {x}?
        Tell me what {x} does.
        What kind of work does {x} do?
        Explain the job of {x}.
        What does {x} do all day?""",
        """Do you know what {x} does?
        What work does {x} do?""",
    ),
    "materials": (
        "{X} is made of {y}.",
        "{Y}.",
        """What is {x} made of?
        What's {x} made of?
        What is {x} made from?
        Tell me what {x} is made of.
        Which material is {x} made of?
        What do you need to make {x}?
        Of what is {x} made?""",
        """Do you know what {x} is made of?
        What material is {x} made of?""",
    ),
    "places": (
        "You go to {x} to {y}.",
        "To {y}.",
        """Why do you go to {x}?
        What do people do at {x}?
        What can I do in {x}?
        Why do people go to {x}?
        Tell me why people go to {x}.
        What do you do in {x}?
        What is the purpose of {x}?""",
        """Why would I go to {x}?
        What do people do in {x}?""",
    ),
    "body": (
        "You {x} with {y}.",
        "{Y}.",
        """What do you {x} with?
        Which part of the body do you use to {x}?
        With what do you {x}?
        How do people {x}?
        What do I need to {x}?
        Tell me what you {x} with.""",
        """What part of the body do you {x} with?
        Do you know what people use to {x}?""",
    ),
    "bigger": (
        "{X} is bigger than {y}.",
        "{X}.",
        """Which is bigger, {x} or {y}?
        Which is bigger, {y} or {x}?
        What is bigger, {x} or {y}?
        What is bigger, {y} or {x}?
        Is {x} bigger than {y}?
        Tell me which is bigger: {y} or {x}.
        Tell me which is bigger: {x} or {y}.
        Compare the size of {x} and {y}.
        Compare the size of {y} and {x}.""",
        """Which one is bigger, {x} or {y}?
        Which one is bigger, {y} or {x}?""",
    ),
    "rhymes": (
        "{X} rhymes with {y}.",
        "{Y}.",
        """What rhymes with {x}?
        Which word rhymes with {x}?
        Tell me a word that rhymes with {x}.
        Give me a rhyme for {x}.
        Find a rhyme for {x}.
        I need a word that rhymes with {x}.
        What is a rhyme for {x}?""",
        """Do you know a rhyme for {x}?
        Can you give me a word that rhymes with {x}?""",
    ),
    "shapes": (
        "{X} has {y} sides.",
        "{Y}.",
        """How many sides does {x} have?
        How many sides has {x} got?
        Tell me how many sides {x} has.
        What number of sides does {x} have?
        Count the sides of {x}.
        {X} has how many sides?""",
        """Do you know how many sides {x} has?
        Can you count the sides of {x}?""",
    ),
    "planets": (
        "{X} is the {y} planet from the Sun.",
        "The {y}.",
        """Which planet from the Sun is {x}?
        What number planet from the Sun is {x}?
        Tell me the place of {x} from the Sun.
        Which planet is {x}, counted from the Sun?
        Is {x} near the Sun?
        Where among the planets is {x}?
        What place does {x} have among the planets?""",
        """Do you know which planet from the Sun {x} is?
        Counted from the Sun, which planet is {x}?""",
    ),
    "seasons": (
        "{X} is in {y}.",
        "{Y}.",
        """In which season is {x}?
        What season is {x} in?
        Which season does {x} belong to?
        Tell me the season of {x}.
        What season is it in {x}?
        {X} is in which season?""",
        """Do you know which season {x} is in?
        Which season is {x} in?""",
    ),
    "ordinals": (
        "The {x} month of the year is {y}.",
        "{Y}.",
        """What is the {x} month of the year?
        Which month is the {x} one?
        Which month is the {x} of the year?
        Tell me the {x} month.
        Name the {x} month of the year.
        Which month comes {x} in the year?""",
        """Do you know the {x} month of the year?
        What month is the {x} one?""",
    ),
    "next": (
        "{Y} comes after {x}.",
        "{Y}.",
        """What comes after {x}?
        Which one comes after {x}?
        Tell me what comes after {x}.
        What follows {x}?
        What comes next after {x}?
        After {x} comes what?
        What is after {x}?""",
        """Do you know what comes after {x}?
        After {x}, what comes next?""",
    ),
    "previous": (
        "{Y} comes before {x}.",
        "{Y}.",
        """What comes before {x}?
        Which one comes before {x}?
        Tell me what comes before {x}.
        What is before {x}?
        What comes just before {x}?
        Before {x} there is what?
        What was there before {x}?""",
        """Do you know what comes before {x}?
        Before {x}, what comes?""",
    ),
    "counts": (
        "{Y} {x}.",
        "{Y}.",
        """How many {x}?
        Tell me, how many {x}?
        What is the answer: how many {x}?
        Do you know how many {x}?
        Say how many {x}.""",
        """Can you tell me how many {x}?
        I would like to know how many {x}.""",
    ),
    "reasons": (
        "{Y}.",
        "{Y}.",
        """Why {x}?
        Tell me, why {x}?
        Please explain: why {x}?
        Why exactly {x}?
        Do you know the reason? Why {x}?
        For what reason {x}?""",
        """Can you explain this? Why {x}?
        I wonder, why {x}?""",
    ),
    "sums": (
        "{x} is {y}.",
        "{y}.",
        """What is {x}?
        How much is {x}?
        What is {s}?
        {s} = ?
        How much is {s}?
        Tell me what {x} is.
        Add up {x}.
        What do you get from {x}?""",
        """Please work out {x}.
        Do you know what {x} is?""",
    ),
    "differences": (
        "{x} is {y}.",
        "{y}.",
        """What is {x}?
        How much is {x}?
        What is {s}?
        {s} = ?
        How much is {s}?
        Tell me what {x} is.
        Take away: {x}.
        What do you get from {x}?""",
        """Please work out {x}.
        Do you know what {x} is?""",
    ),
}
