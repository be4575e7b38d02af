"""The closed world of true facts that the embedded model knows, as tables with their phrasings.

It knows nothing of tokens, training or stories: a fact here is two strings and a topic.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from tunebook.models.embedded.build.phrasings import PHRASINGS


@dataclass(frozen=True)
class Topic:
    """One kind of fact: how it is asked, how it is answered, and its table.

    `asks` are the phrasings to train on, `held_asks` those kept for evaluation. Templates use
    `{x}` (the key), `{y}` (the value), `{X}`, `{Y}` (the same, capitalised) and `{s}` (a sum
    written with signs).
    """

    name: str
    asks: tuple[str, ...]
    held_asks: tuple[str, ...]
    answer: str
    short: str
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Fact:
    """One row of a topic's table."""

    topic: Topic
    x: str
    y: str

    def fill(self, template: str) -> str:
        """Put this fact into a template."""
        signs = self.x.replace(" plus ", " + ").replace(" minus ", " - ")
        return template.format(x=self.x, y=self.y, X=upper_first(self.x), Y=upper_first(self.y),
                               s=signs)  # fmt: skip

    @property
    def answer(self) -> str:
        """The one plain sentence that answers every phrasing."""
        return self.fill(self.topic.answer)

    @property
    def short(self) -> str:
        """The answer in a word or two."""
        return self.fill(self.topic.short)


def words(text: str, by: str | None = None) -> list[str]:
    """The entries of a table that is only a list: words, or phrases with a mark between."""
    return text.split(by)


def upper_first(text: str) -> str:
    """Capitalise the first letter and leave the rest alone."""
    return text[:1].upper() + text[1:]


def _pairs(table: str) -> tuple[tuple[str, str], ...]:
    """Read `key = value; key = value` with free line breaks."""
    rows = [row.split("=") for row in " ".join(table.split()).split(";") if row.strip()]
    return tuple((key.strip(), value.strip()) for key, value in rows)


def _groups(table: str) -> tuple[tuple[str, str], ...]:
    """Read `value: key, key, key; value: key` into (key, value) pairs."""
    pairs = []
    for row in " ".join(table.split()).split(";"):
        if row.strip():
            value, keys = row.split(":")
            pairs += [(key.strip(), value.strip()) for key in keys.split(",")]
    return tuple(pairs)


CAPITALS = _pairs("""
France = Paris; Germany = Berlin; Italy = Rome; Spain = Madrid; Portugal = Lisbon;
the Netherlands = Amsterdam; Belgium = Brussels; Austria = Vienna; Switzerland = Bern;
Poland = Warsaw; the Czech Republic = Prague; Slovakia = Bratislava; Hungary = Budapest;
Romania = Bucharest; Bulgaria = Sofia; Greece = Athens; Croatia = Zagreb; Serbia = Belgrade;
Slovenia = Ljubljana; Denmark = Copenhagen; Sweden = Stockholm; Norway = Oslo;
Finland = Helsinki; Iceland = Reykjavik; Ireland = Dublin; the United Kingdom = London;
Estonia = Tallinn; Latvia = Riga; Lithuania = Vilnius; Ukraine = Kyiv; Russia = Moscow;
Albania = Tirana; Malta = Valletta; Turkey = Ankara; China = Beijing; Japan = Tokyo;
South Korea = Seoul; Mongolia = Ulaanbaatar; India = New Delhi; Nepal = Kathmandu;
Pakistan = Islamabad; Bangladesh = Dhaka; Thailand = Bangkok; Vietnam = Hanoi;
Cambodia = Phnom Penh; Laos = Vientiane; the Philippines = Manila; Malaysia = Kuala Lumpur;
Iran = Tehran; Iraq = Baghdad; Saudi Arabia = Riyadh; Jordan = Amman; Lebanon = Beirut;
Qatar = Doha; Oman = Muscat; Egypt = Cairo; Morocco = Rabat; Tunisia = Tunis;
Algeria = Algiers; Libya = Tripoli; Sudan = Khartoum; Ethiopia = Addis Ababa;
Kenya = Nairobi; Uganda = Kampala; Rwanda = Kigali; Ghana = Accra; Nigeria = Abuja;
Senegal = Dakar; Mali = Bamako; Zambia = Lusaka; Zimbabwe = Harare; Namibia = Windhoek;
Angola = Luanda; Madagascar = Antananarivo; Somalia = Mogadishu; Canada = Ottawa;
the United States = Washington; Mexico = Mexico City; Cuba = Havana; Jamaica = Kingston;
Peru = Lima; Chile = Santiago; Argentina = Buenos Aires; Brazil = Brasilia;
Colombia = Bogota; Venezuela = Caracas; Ecuador = Quito; Uruguay = Montevideo;
Paraguay = Asuncion; Costa Rica = San Jose; Panama = Panama City; Australia = Canberra;
New Zealand = Wellington; Fiji = Suva
""")

CONTINENTS = _groups("""
Europe: France, Germany, Italy, Spain, Portugal, the Netherlands, Belgium, Austria, Switzerland,
Poland, the Czech Republic, Slovakia, Hungary, Romania, Bulgaria, Greece, Croatia, Serbia,
Slovenia, Denmark, Sweden, Norway, Finland, Iceland, Ireland, the United Kingdom, Estonia,
Latvia, Lithuania, Ukraine, Albania, Malta;
Asia: China, Japan, South Korea, Mongolia, India, Nepal, Pakistan, Bangladesh, Thailand, Vietnam,
Cambodia, Laos, the Philippines, Malaysia, Iran, Iraq, Saudi Arabia, Jordan, Lebanon, Qatar, Oman;
Africa: Morocco, Tunisia, Algeria, Libya, Sudan, Ethiopia, Kenya, Uganda, Rwanda, Ghana, Nigeria,
Senegal, Mali, Zambia, Zimbabwe, Namibia, Angola, Madagascar, Somalia;
North America: Canada, the United States, Mexico, Cuba, Jamaica, Costa Rica;
South America: Peru, Chile, Argentina, Brazil, Colombia, Venezuela, Ecuador, Uruguay, Paraguay
""")

LANGUAGES = _pairs("""
France = French; Germany = German; Italy = Italian; Spain = Spanish; Portugal = Portuguese;
the Netherlands = Dutch; Austria = German; Poland = Polish; the Czech Republic = Czech;
Slovakia = Slovak; Hungary = Hungarian; Romania = Romanian; Bulgaria = Bulgarian;
Greece = Greek; Croatia = Croatian; Serbia = Serbian; Denmark = Danish; Sweden = Swedish;
Norway = Norwegian; Iceland = Icelandic; the United Kingdom = English; Estonia = Estonian;
Latvia = Latvian; Lithuania = Lithuanian; Ukraine = Ukrainian; Russia = Russian;
Turkey = Turkish; China = Chinese; Japan = Japanese; South Korea = Korean;
Mongolia = Mongolian; Nepal = Nepali; Thailand = Thai; Vietnam = Vietnamese; Laos = Lao;
Iran = Persian; Egypt = Arabic; Jordan = Arabic; Mexico = Spanish; Cuba = Spanish;
Chile = Spanish; Argentina = Spanish; Brazil = Portuguese; Angola = Portuguese;
Australia = English; the United States = English; Jamaica = English
""")

COLOURS = _groups("""
yellow: a banana, a lemon, a chick, butter, a sunflower, corn;
red: a strawberry, a tomato, blood, a fire engine, a ladybird, a cherry, a ruby;
green: grass, a frog, a cucumber, a pea, a lime, spinach, an emerald, broccoli;
blue: the sky, the sea, a blueberry, a sapphire;
white: snow, milk, salt, a swan, a polar bear, rice, a cloud, flour;
black: coal, a raven, the night, a tyre;
orange: a carrot, a pumpkin, a basketball, a tangerine;
brown: chocolate, soil, a chestnut, a potato, coffee, wood;
grey: an elephant, a mouse, a stone, a dolphin;
pink: a flamingo, a pig, bubble gum;
purple: an aubergine, a plum, lavender, a violet
""")

SOUNDS = _pairs("""
a cow = moo; a dog = woof; a cat = meow; a duck = quack; a sheep = baa; a pig = oink;
a horse = neigh; a donkey = hee-haw; a rooster = cock-a-doodle-doo; a hen = cluck;
a chick = cheep; a lion = roar; a frog = ribbit; a bee = buzz; a snake = hiss;
an owl = hoot; a mouse = squeak; a crow = caw; a wolf = howl; a turkey = gobble;
a goose = honk; a dove = coo; a bird = tweet; a bear = growl; a goat = bleat
""")

HOMES = _pairs("""
a bee = a hive; a bird = a nest; a dog = a kennel; a horse = a stable; a spider = a web;
a fox = a den; a rabbit = a burrow; a pig = a sty; a cow = a barn; a hen = a coop;
a bear = a cave; a fish = the water; an ant = an anthill; a beaver = a lodge;
a mole = a tunnel; a camel = the desert; a monkey = the jungle; a penguin = the Antarctic;
a whale = the ocean; a frog = a pond; a squirrel = a hollow tree; a mouse = a hole;
a lion = the savanna; a polar bear = the Arctic; a deer = the forest; a crab = the sea;
a scorpion = the desert; a hippo = a river; a shark = the ocean; a goldfish = a bowl
""")

FOODS = _pairs("""
a cow = grass; a rabbit = carrots; a monkey = bananas; a panda = bamboo; a cat = mice;
a dog = bones; a squirrel = nuts; a horse = hay; a bird = seeds; a frog = flies;
a bear = honey; a lion = meat; a penguin = fish; a giraffe = leaves; a koala = eucalyptus leaves;
a mouse = grain; an anteater = ants; a pig = corn; a caterpillar = leaves; a spider = insects;
a seal = fish; a hen = grain; a butterfly = nectar; a goat = grass; a wolf = meat;
a snail = lettuce; a shark = fish; a mole = worms; a hamster = seeds; an eagle = rabbits
""")

BABIES = _pairs("""
cow = calf; dog = puppy; cat = kitten; horse = foal; sheep = lamb; pig = piglet; goat = kid;
duck = duckling; hen = chick; goose = gosling; lion = cub; bear = cub; wolf = pup; fox = kit;
deer = fawn; frog = tadpole; kangaroo = joey; swan = cygnet; owl = owlet; eagle = eaglet;
rabbit = bunny; butterfly = caterpillar; elephant = calf; whale = calf; seal = pup; tiger = cub;
hare = leveret; giraffe = calf; spider = spiderling; fish = fry
""")

LEGS = _groups("""
no: a snake, a fish, a worm, a whale, a snail, a shark, a dolphin;
two: a bird, a duck, a hen, an ostrich, a penguin, a person, an owl;
four: a cow, a dog, a cat, a horse, a frog, a lion, a sheep, a pig, a mouse, an elephant, a turtle,
a rabbit;
six: an ant, a bee, a beetle, a butterfly, a fly, a ladybird, a grasshopper;
eight: a spider, a scorpion;
ten: a crab
""")

CLASSES = _groups("""
a mammal: a whale, a dog, a cow, a bat, a lion, a mouse, a dolphin, a rabbit, a bear, a horse;
a bird: an eagle, a penguin, an owl, a duck, an ostrich, a parrot, a swan, a robin;
a fish: a shark, a salmon, a trout, a goldfish, a tuna;
a reptile: a snake, a lizard, a crocodile, a turtle, a gecko;
an amphibian: a frog, a toad, a newt, a salamander;
an insect: an ant, a bee, a beetle, a butterfly, a fly, a mosquito, a grasshopper
""")

KINDS = _groups("""
a fruit: an apple, a banana, a pear, a peach, a cherry, a mango, a grape, an orange;
a vegetable: a carrot, a cabbage, an onion, a radish, a turnip, a leek;
a tree: an oak, a pine, a birch, a willow, a maple;
a flower: a rose, a tulip, a daisy, a lily, a poppy;
a musical instrument: a piano, a violin, a drum, a flute, a trumpet, a guitar;
a vehicle: a car, a bus, a lorry, a train, a bicycle;
a metal: iron, gold, silver, copper, tin;
a drink: tea, juice, lemonade, cocoa;
a game: chess, tag, hopscotch, draughts
""")

OPPOSITES = _pairs("""
hot = cold; big = small; up = down; day = night; fast = slow; old = new; tall = short;
happy = sad; light = dark; open = closed; wet = dry; full = empty; hard = soft; loud = quiet;
early = late; rich = poor; strong = weak; clean = dirty; good = bad; black = white; high = low;
left = right; near = far; inside = outside; thick = thin; wide = narrow; sweet = sour;
true = false; first = last; win = lose; buy = sell; push = pull; start = stop; give = take;
love = hate; laugh = cry; arrive = leave; ask = answer; awake = asleep; alive = dead;
brave = afraid; sharp = blunt; smooth = rough; deep = shallow; heavy = light; always = never;
above = below; before = after; many = few; same = different; easy = difficult; safe = dangerous;
summer = winter; north = south; east = west; friend = enemy; question = answer; begin = end;
remember = forget; float = sink; young = old; warm = cool; in = out; on = off; yes = no
""")

PLURALS = _pairs("""
child = children; mouse = mice; foot = feet; tooth = teeth; goose = geese; man = men;
woman = women; ox = oxen; sheep = sheep; fish = fish; deer = deer; leaf = leaves; wolf = wolves;
knife = knives; life = lives; loaf = loaves; half = halves; wife = wives; shelf = shelves;
thief = thieves; calf = calves; baby = babies; city = cities; lady = ladies; story = stories;
puppy = puppies; berry = berries; cherry = cherries; fox = foxes; box = boxes; bus = buses;
dish = dishes; brush = brushes; watch = watches; peach = peaches; glass = glasses;
potato = potatoes; tomato = tomatoes; hero = heroes; cat = cats; dog = dogs; book = books;
tree = trees; house = houses; bird = birds; car = cars; king = kings; boat = boats; hand = hands;
star = stars; apple = apples; key = keys; toy = toys; person = people
""")

PASTS = _pairs("""
go = went; eat = ate; see = saw; run = ran; come = came; give = gave; take = took; make = made;
find = found; think = thought; bring = brought; buy = bought; catch = caught; teach = taught;
fly = flew; swim = swam; sing = sang; drink = drank; begin = began; ring = rang; write = wrote;
ride = rode; drive = drove; break = broke; speak = spoke; steal = stole; wake = woke; win = won;
sleep = slept; keep = kept; feel = felt; leave = left; meet = met; lose = lost; say = said;
tell = told; sell = sold; hold = held; stand = stood; sit = sat; know = knew; grow = grew;
throw = threw; draw = drew; build = built; send = sent; spend = spent; hear = heard; fall = fell;
hide = hid; bite = bit; dig = dug; walk = walked; play = played; jump = jumped; help = helped;
look = looked; wash = washed; cry = cried; carry = carried
""")

USES = _pairs("""
a hammer = drive nails; a saw = cut wood; a knife = cut food; a spoon = eat soup;
a pen = write; a brush = paint; a broom = sweep the floor; a key = open a lock;
an umbrella = stay dry; a clock = tell the time; a needle = sew cloth; an oven = bake bread;
a bed = sleep; a lamp = give light; a shovel = dig holes; a ladder = climb up; a boat = sail;
a kettle = boil water; a comb = tidy hair; a towel = dry things; soap = wash hands;
a cup = drink tea; scissors = cut paper; glue = stick things together; a ruler = measure length;
a telescope = look at stars; a map = find the way; a net = catch fish; a rope = tie things;
a fridge = keep food cold; a bell = ring; a camera = take pictures; a candle = light a room;
a wheelbarrow = carry soil; a rake = gather leaves; a bucket = carry water; a pot = cook food;
an axe = chop wood; a thermometer = measure heat; a scale = measure weight; a mirror = see yourself;
a rubber = remove pencil marks; a pillow = rest your head; a helmet = protect your head;
a compass = find north; an anchor = hold a ship
""")

JOBS = _pairs("""
a baker = bakes bread; a farmer = grows food; a teacher = teaches children;
a doctor = helps sick people; a pilot = flies planes; a sailor = sails ships;
a painter = paints pictures; a gardener = looks after plants; a tailor = makes clothes;
a firefighter = puts out fires; a fisher = catches fish; a cook = makes meals;
a carpenter = makes things from wood; a dentist = looks after teeth; a vet = helps sick animals;
a postman = brings letters; a singer = sings songs; a dancer = dances; a writer = writes books;
a driver = drives a bus; a judge = decides what is fair; a plumber = mends pipes;
an astronaut = travels into space; a librarian = looks after books; a miner = digs for coal;
a shepherd = looks after sheep; a potter = makes pots; a butcher = sells meat;
a nurse = cares for patients; a builder = builds houses; a mechanic = repairs cars;
a florist = sells flowers; a barber = cuts hair; a clown = makes people laugh;
a beekeeper = keeps bees; an actor = plays in a theatre; a weaver = weaves cloth;
a blacksmith = works with iron; a miller = grinds grain; an optician = sells glasses
""")

MATERIALS = _groups("""
glass: a window, a bottle, a mirror, a light bulb;
wood: a log cabin, a pencil, a plank, a canoe;
paper: a book, a newspaper, a letter, a paper plane;
wool: a jumper, a scarf, a mitten;
metal: a nail, a coin, a spanner, a bell, an anchor;
leather: a saddle, a belt, a boot;
clay: a brick, a flowerpot;
cotton: a T-shirt, a bed sheet, a towel;
milk: butter, cheese, yoghurt;
flour: bread, pasta;
wax: a candle, a crayon;
rubber: a tyre, a wellington boot;
ice: an igloo, an icicle;
snow: a snowman, a snowball
""")

PLACES = _pairs("""
a library = borrow books; a school = learn things; a bakery = buy bread; a hospital = get well;
a station = catch a train; an airport = catch a plane; a museum = see old things;
a zoo = see animals; a theatre = watch a play; a cinema = watch a film; a park = play outside;
a swimming pool = swim; a farm = see cows and pigs; a post office = send letters;
a restaurant = eat a meal; a bank = keep money; a market = buy vegetables; a harbour = see ships;
a kitchen = cook food; a bedroom = sleep; a bathroom = wash; a garden = grow flowers;
a pharmacy = buy medicine; a playground = go down a slide; a hotel = stay for a night
""")

BODY = _pairs("""
see = your eyes; hear = your ears; smell = your nose; taste = your tongue; walk = your legs;
think = your brain; chew = your teeth; breathe = your lungs; write = your hand; kick = your foot;
point = your finger; kneel = your knees; wave = your hand
""")

BIGGER = _pairs("""
an elephant = a mouse; a horse = a dog; a whale = a shark; a tree = a flower; a house = a car;
a mountain = a hill; the Sun = the Moon; a bus = a bicycle; a lion = a cat; a cow = a hen;
a melon = a cherry; a city = a village; a lake = a puddle; the ocean = a lake; a bear = a fox;
a goose = a sparrow; a pumpkin = a pea; a castle = a hut; a ship = a rowing boat; a boot = a button;
a giraffe = a goat; the Earth = the Moon; a river = a stream; a wolf = a rabbit; a table = a cup;
a truck = a scooter; an eagle = a bee; a crocodile = a frog; a piano = a flute; a rat = an ant;
an orange = a grape; a planet = a pebble; a camel = a squirrel; a tiger = a hedgehog;
a forest = a garden; a pillow = a coin; a rock = a grain of sand; a hippo = a duck
""")

RHYMES = _pairs("""
cat = hat; dog = log; sun = fun; house = mouse; tree = bee; moon = spoon; star = car;
light = night; rain = train; boat = goat; bear = chair; cake = lake; ring = king; bed = red;
ball = wall; fish = dish; frog = fog; pen = hen; sky = fly; sheep = sleep; nose = rose;
book = hook; fox = box; bell = shell; duck = truck; snow = crow; corn = horn; bat = mat;
pig = wig; snake = rake; mice = rice; clock = sock; feet = street; door = floor
""")

SHAPES = _pairs("""
a triangle = three; a square = four; a rectangle = four; a pentagon = five; a hexagon = six;
a heptagon = seven; an octagon = eight; a nonagon = nine; a decagon = ten; a rhombus = four
""")

PLANETS = _pairs("""
Mercury = first; Venus = second; the Earth = third; Mars = fourth; Jupiter = fifth;
Saturn = sixth; Uranus = seventh; Neptune = eighth
""")

SEASONS = _pairs("""
December = winter; January = winter; February = winter; March = spring; April = spring;
May = spring; June = summer; July = summer; August = summer; September = autumn;
October = autumn; November = autumn
""")

ORDINALS = _pairs("""
first = January; second = February; third = March; fourth = April; fifth = May; sixth = June;
seventh = July; eighth = August; ninth = September; tenth = October; eleventh = November;
twelfth = December
""")

COUNTS = _pairs("""
days are in a week = seven; months are in a year = twelve; seasons are in a year = four;
hours are in a day = twenty-four; minutes are in an hour = sixty; fingers are on a hand = five;
seconds are in a minute = sixty; wheels are on a car = four; wheels are on a bicycle = two;
letters are in the alphabet = twenty-six; planets are in the solar system = eight;
eggs are in a dozen = twelve; arms are on an octopus = eight; wheels are on a tricycle = three;
strings are on a violin = four; colours are in a rainbow = seven; legs are on a chair = four;
legs are on a stool = three; pages are on a sheet of paper = two; years are in a century = one hundred;
cents are in a dollar = one hundred; toes are on a foot = five; sides are on a coin = two;
years are in a decade = ten; weeks are in a year = fifty-two; eyes are on a face = two
""")

REASONS = _pairs("""
does ice melt = ice melts because it gets warm;
do leaves fall = leaves fall because autumn is cold;
do we sleep = we sleep because our bodies need rest;
do we eat = we eat because food gives us energy;
do plants need water = plants need water because it helps them grow;
does it get dark at night = it gets dark at night because the Sun is on the other side of the Earth;
do birds fly south = birds fly south because winter is cold;
do boats float = boats float because they push water away;
do we wear coats = we wear coats because they keep us warm;
do dogs bark = dogs bark because they want to tell us something;
do bees visit flowers = bees visit flowers because they need nectar;
does bread rise = bread rises because yeast makes gas;
does rain fall = rain falls because clouds get heavy;
does a ball fall down = a ball falls down because the Earth pulls it;
does a kettle whistle = a kettle whistles because steam pushes out;
do puddles dry up = puddles dry up because the Sun warms the water;
do we wash our hands = we wash our hands because soap removes germs;
do cats purr = cats purr because they are happy;
does a shadow appear = a shadow appears because light is blocked;
does wood float = wood floats because it is lighter than water;
does iron rust = iron rusts because of water and air;
do stars twinkle = stars twinkle because air moves their light;
do we brush our teeth = we brush our teeth because it keeps them healthy;
does the wind blow = the wind blows because warm air rises;
do fish have gills = fish have gills because they breathe in water;
do bears sleep in winter = bears sleep in winter because there is little food;
do people wear hats in summer = people wear hats in summer because the Sun is strong;
does a candle go out under a glass = a candle goes out under a glass because it needs air
""")

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = tuple(month for month, _ in SEASONS[1:] + SEASONS[:1])

_CIRCLES = (DAYS, MONTHS)
NEXT = tuple((c[i], c[(i + 1) % len(c)]) for c in _CIRCLES for i in range(len(c)))
PREVIOUS = tuple((y, x) for x, y in NEXT)
SUMS = tuple((f"{a} plus {b}", str(a + b)) for a in range(1, 11) for b in range(1, 11))
DIFFERENCES = tuple((f"{a} minus {b}", str(a - b)) for a in range(1, 11) for b in range(1, a + 1))


def _topic(
    name: str, pairs: tuple[tuple[str, str], ...], answer: str, short: str, asks: str, held: str
) -> Topic:
    """A topic from its phrasings, one a line."""
    lines = tuple(line.strip() for line in asks.strip().splitlines())
    held_lines = tuple(line.strip() for line in held.strip().splitlines())
    return Topic(name, lines, held_lines, answer, short, pairs)


@cache
def topics() -> tuple[Topic, ...]:
    """Every topic, with its table and phrasings."""
    tables = {name.lower(): value for name, value in globals().items() if name.isupper()}
    return tuple(
        _topic(name, tables[name], answer, short, asks, held)
        for name, (answer, short, asks, held) in PHRASINGS.items()
    )


def topic(name: str) -> Topic:
    """The topic of that name."""
    return next(one for one in topics() if one.name == name)


@cache
def all_facts() -> tuple[Fact, ...]:
    """Every fact of every topic, in a fixed order."""
    return tuple(Fact(one, x, y) for one in topics() for x, y in one.pairs)
