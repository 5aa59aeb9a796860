"""Plain facts for the choice skill, as relations: a subject, and its answer among the answers of
the same relation.

Written for this project. A fact is here only if no other answer of its relation is right as well.
Data, nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Relation:
    """`pairs`: "subject = answer; ...". Wordings hold {x}; those for eval are never used in SFT."""

    name: str
    area: str
    sft_wordings: tuple[str, ...]
    eval_wordings: tuple[str, ...]
    pairs: str

    def facts(self) -> tuple[tuple[str, str], ...]:
        rows = (pair.split(" = ") for pair in " ".join(self.pairs.split()).split("; "))
        return tuple((subject.strip(), answer.strip()) for subject, answer in rows)


RELATIONS: tuple[Relation, ...] = (
    Relation(
        "capital",
        "world",
        ("What is the capital of {x}?", "Which city is the capital of {x}?"),
        ("Name the capital city of {x}.", "{x} is governed from which capital?"),
        """France = Paris; Germany = Berlin; Italy = Rome; Spain = Madrid; Portugal = Lisbon; Greece = Athens; Austria = Vienna;
        Poland = Warsaw; Hungary = Budapest; Sweden = Stockholm; Norway = Oslo; Finland = Helsinki; Denmark = Copenhagen;
        Ireland = Dublin; Belgium = Brussels; Russia = Moscow; Turkey = Ankara; Egypt = Cairo; Kenya = Nairobi; Japan = Tokyo;
        China = Beijing; India = New Delhi; Thailand = Bangkok; Vietnam = Hanoi; Iran = Tehran; Iraq = Baghdad; Cuba = Havana;
        Peru = Lima; Chile = Santiago; Argentina = Buenos Aires; Canada = Ottawa; Australia = Canberra; England = London;
        Scotland = Edinburgh; Wales = Cardiff; Ukraine = Kyiv; Romania = Bucharest; Bulgaria = Sofia; Croatia = Zagreb;
        Serbia = Belgrade; Iceland = Reykjavik; Jordan = Amman; Lebanon = Beirut; Syria = Damascus; Nepal = Kathmandu;
        the Philippines = Manila; South Korea = Seoul; Colombia = Bogota; Venezuela = Caracas; Ecuador = Quito;
        Ghana = Accra; Ethiopia = Addis Ababa; Senegal = Dakar; Tunisia = Tunis; Morocco = Rabat""",
    ),
    Relation(
        "continent",
        "world",
        ("On which continent is {x}?", "{x} is a country on which continent?"),
        ("Which continent does the country {x} belong to?",),
        """Brazil = South America; Peru = South America; Chile = South America; Argentina = South America; France = Europe;
        Germany = Europe; Poland = Europe; Sweden = Europe; Italy = Europe; China = Asia; Japan = Asia; India = Asia;
        Vietnam = Asia; Nepal = Asia; Kenya = Africa; Ghana = Africa; Nigeria = Africa; Morocco = Africa; Ethiopia = Africa;
        Canada = North America; Mexico = North America; Cuba = North America; Norway = Europe; Thailand = Asia;
        Senegal = Africa; Bolivia = South America; Spain = Europe; Mongolia = Asia; Zambia = Africa; Uruguay = South America""",
    ),
    Relation(
        "language",
        "world",
        ("Which language do most people in {x} speak?", "What is the main language of {x}?"),
        ("If you grew up in {x}, which language would you most likely speak?",),
        """France = French; Germany = German; Italy = Italian; Portugal = Portuguese; Greece = Greek; Poland = Polish;
        Hungary = Hungarian; Sweden = Swedish; Norway = Norwegian; Finland = Finnish; Denmark = Danish; Russia = Russian;
        Turkey = Turkish; Egypt = Arabic; Japan = Japanese; China = Chinese; Thailand = Thai; Vietnam = Vietnamese;
        Brazil = Portuguese; Mexico = Spanish; Argentina = Spanish; England = English; Australia = English; Austria = German;
        Cuba = Spanish; Iceland = Icelandic; South Korea = Korean; the Netherlands = Dutch; Bulgaria = Bulgarian""",
    ),
    Relation(
        "young_animal",
        "science",
        ("What is a young {x} called?", "What do people call a baby {x}?"),
        ("Which word names the young of a {x}?",),
        """dog = puppy; cat = kitten; cow = calf; horse = foal; sheep = lamb; goat = kid; pig = piglet; bear = cub;
        kangaroo = joey; duck = duckling; goose = gosling; swan = cygnet; frog = tadpole; deer = fawn;
        lion = cub; eagle = eaglet; owl = owlet; butterfly = caterpillar; elephant = calf; whale = calf""",
    ),
    Relation(
        "animal_group",
        "science",
        ("What kind of animal is a {x}?", "To which group of animals does the {x} belong?"),
        ("Which of these groups would you put the {x} in?",),
        """dog = mammal; whale = mammal; bat = mammal; horse = mammal; dolphin = mammal; mouse = mammal; eagle = bird;
        penguin = bird; sparrow = bird; parrot = bird; chicken = bird; owl = bird; salmon = fish; shark = fish; trout = fish;
        tuna = fish; goldfish = fish; snake = reptile; crocodile = reptile; turtle = reptile; lizard = reptile; bee = insect;
        beetle = insect; fly = insect; grasshopper = insect; butterfly = insect; mosquito = insect; frog = amphibian;
        toad = amphibian; cow = mammal; pigeon = bird; herring = fish; moth = insect; elephant = mammal; swan = bird;
        wasp = insect; rabbit = mammal; robin = bird; cod = fish; lion = mammal""",
    ),
    Relation(
        "animal_sound",
        "science",
        ("What sound does a {x} make?", "How does a {x} sound?"),
        ("Which sound would you expect to hear from a {x}?",),
        """dog = bark; cat = meow; cow = moo; sheep = baa; duck = quack; pig = oink; horse = neigh; bee = buzz; snake = hiss;
         lion = roar; frog = croak; owl = hoot; rooster = crow; mouse = squeak; turkey = gobble""",
    ),
    Relation(
        "animal_home",
        "science",
        ("Where does a {x} live?", "What is the home of a {x}?"),
        ("In which place would you look for the home of a {x}?",),
        """bird = nest; bee = hive; spider = web; bear = den; rabbit = burrow; horse = stable; dog = kennel; beaver = lodge;
        pig = sty; goldfish = bowl; ant = anthill""",
    ),
    Relation(
        "opposite",
        "language",
        ("What is the opposite of {x}?", "Which word means the opposite of {x}?"),
        (
            "Find the word that is the reverse in meaning of {x}.",
            "Which word says the very contrary of {x}?",
        ),
        """hot = cold; big = small; fast = slow; high = low; long = short; hard = soft; old = young; light = dark; rich = poor;
        strong = weak; full = empty; open = closed; wet = dry; clean = dirty; happy = sad; early = late; near = far;
        thick = thin; wide = narrow; deep = shallow; loud = quiet; heavy = weightless; sweet = bitter; true = false;
        right = wrong; new = used; first = last; up = down; in = out;  black = white; day = night; start = finish;
        push = pull; give = take; buy = sell; win = lose; laugh = cry; love = hate; remember = forget; arrive = leave;
        friend = enemy; always = never; everything = nothing; inside = outside; above = below; before = after; more = less;
        many = few; brave = cowardly; cheap = expensive; easy = difficult; safe = dangerous; sharp = blunt; smooth = rough;
        tame = wild; tight = loose; ugly = beautiful; awake = asleep; alive = dead; polite = rude; lazy = hardworking;
        success = failure; north = south; east = west; guilty = innocent;  float = sink; build = destroy;
        raise = lower; question = answer; entrance = exit; summer = winter; king = queen; increase = decrease""",
    ),
    Relation(
        "synonym",
        "language",
        ("Which word means nearly the same as {x}?", "What is another word for {x}?"),
        ("Find the word that is closest in meaning to {x}.",),
        """big = large; begin = start; end = finish; quick = fast; glad = happy; angry = mad; smart = clever; sick = ill;
        rock = stone; road = street; shop = store; gift = present; boat = ship; rabbit = bunny; forest = woods; 
        correct = right; simple = easy; difficult = hard; tiny = small; silent = quiet; scared = afraid; shut = close;
        jump = leap; yell = shout; speak = talk; look = see; choose = pick; repair = fix; assist = help; purchase = buy;
        error = mistake; journey = trip; house = home; hat = cap; garbage = trash; sofa = couch; autumn = fall; father = dad;
        mother = mom; physician = doctor; student = pupil; evening = dusk; sunrise = dawn; odor = smell; strange = odd;
        wealthy = rich; weak = feeble; weary = tired; courageous = brave""",
    ),
    Relation(
        "plural",
        "language",
        ("What is the plural of {x}?", "One {x}, two what?"),
        ("Which word do we use for more than one {x}?",),
        """mouse = mice; goose = geese; tooth = teeth; foot = feet; child = children; man = men; woman = women; leaf = leaves;
        knife = knives; wolf = wolves; baby = babies; city = cities; box = boxes; bus = buses; wife = wives; ox = oxen;
        loaf = loaves; story = stories; fox = foxes; shelf = shelves; half = halves; lady = ladies; potato = potatoes""",
    ),
    Relation(
        "past",
        "language",
        ("What is the past form of {x}?", "Today I {x}. Yesterday I what?"),
        ("Which word puts the verb {x} into the past?",),
        """go = went; see = saw; eat = ate; drink = drank; run = ran; sing = sang; swim = swam; write = wrote; give = gave;
        take = took; make = made; come = came; know = knew; grow = grew; fly = flew; fall = fell; find = found; think = thought;
        buy = bought; bring = brought; catch = caught; teach = taught; sleep = slept; keep = kept; leave = left; meet = met;
        win = won; tell = told; sell = sold; break = broke; speak = spoke; choose = chose; drive = drove; ride = rode;
        begin = began; throw = threw; wear = wore; build = built; send = sent; lose = lost; hear = heard; stand = stood""",
    ),
    Relation(
        "colour",
        "science",
        ("What colour is {x}?", "Which colour does {x} have?"),
        ("If you painted {x} true to life, which colour would you use?",),
        """fresh grass = green; clean snow = white; a ripe banana = yellow; fresh blood = red; coal = black; a clear day sky = blue;
        a carrot = orange; chocolate = brown; milk = white; a ripe strawberry = red; a lemon = yellow; a raven = black;
        a flamingo = pink; spinach = green; a polar bear = white; a fire engine = red; a pumpkin = orange; an elephant = grey;
         a cucumber = green; an aubergine = purple""",
    ),
    Relation(
        "count",
        "science",
        ("How many {x}?", "What is the number: how many {x}?"),
        ("Say the right number. How many {x}?",),
        """days are in a week = 7; months are in a year = 12; hours are in a day = 24; minutes are in an hour = 60;
        legs does a spider have = 8; legs does an insect have = 6; sides does a triangle have = 3; sides does a square have = 4;
        wheels does a bicycle have = 2; letters are in the English alphabet = 26; centimetres are in a metre = 100;
        metres are in a kilometre = 1000; players are on a football team on the field = 11; years are in a century = 100;
        years are in a decade = 10; eggs are in a dozen = 12; planets go around our sun = 8; colours are in the rainbow = 7;
        days are in a leap year = 366; fingers are on one hand with the thumb = 5; weeks are in a year = 52;
        seasons are in a year = 4; sides does a hexagon have = 6; cents are in a dollar = 100; strings does a violin have = 4;
        wheels does a tricycle have = 3; seconds are in a minute = 60; months are in half a year = 6; arms does an octopus have = 8""",
    ),
    Relation(
        "after",
        "language",
        ("What comes right after {x}?", "Which one follows {x}?"),
        ("Going forward in order, what is next after {x}?",),
        """Monday = Tuesday; Tuesday = Wednesday; Wednesday = Thursday; Thursday = Friday; Friday = Saturday; Saturday = Sunday;
        Sunday = Monday; January = February; February = March; March = April; April = May; May = June; June = July;
        July = August; August = September; September = October; October = November; November = December; December = January;
        spring = summer; autumn = winter; morning = noon; the letter B = C; the letter G = H; the letter P = Q;
        the number nine = ten; the number twelve = thirteen; the number nineteen = twenty; breakfast = lunch; childhood = youth""",
    ),
    Relation(
        "worker",
        "world",
        ("Who {x}?", "What do we call a person who {x}?"),
        ("Which job does a person have who {x}?",),
        """bakes bread = baker; teaches children = teacher; heals sick people = doctor; puts out fires = firefighter;
        flies a plane = pilot; grows crops = farmer; catches fish = fisherman; cuts hair = barber; fixes water pipes = plumber;
        paints pictures = painter; writes books = author; builds with wood = carpenter; cooks in a restaurant = chef;
        takes photographs = photographer; looks after teeth = dentist; sells meat = butcher; makes clothes = tailor;
        studies the stars = astronomer; brings letters = postman; repairs cars = mechanic; draws plans of houses = architect;
        cares for sick animals = vet; plays in films = actor; digs for coal = miner; works with books for readers = librarian;
        travels into space = astronaut; tells jokes on stage = comedian; serves food to guests = waiter""",
    ),
    Relation(
        "tool",
        "world",
        ("What do you use to {x}?", "Which thing helps you to {x}?"),
        ("Which of these would you take to {x}?",),
        """cut paper = scissors; drive in a nail = hammer; sweep the floor = broom; eat soup = spoon; tell the time = clock;
        open a lock = key; write on paper = pencil; dig a hole = shovel; stay dry in the rain = umbrella; see the stars = telescope;
        see tiny cells = microscope; measure heat = thermometer; cook an egg = pan; sew a dress = needle; brush your hair = comb;
        cut down a tree = axe; dry your hands = towel; find north = compass; climb to the roof = ladder; weigh flour = scale;
        keep food cold = fridge; take a picture = camera; carry water = bucket; clean your teeth = toothbrush; light a room = lamp;
        catch fish = net; sleep at night = bed; hang up a coat = hook; hear music alone = headphones; cross a river = bridge""",
    ),
    Relation(
        "made_of",
        "science",
        ("What is {x} mostly made from?", "From what do people make {x}?"),
        ("Which of these is needed most to make {x}?",),
        """bread = flour; paper = wood; cheese = milk; wine = grapes; a window pane = glass; a car tyre = rubber; a wool coat = sheep hair;
        honey = nectar; a candle = wax; chocolate = cocoa; an omelette = eggs; a nail = iron; a brick = clay; a snowman = snow;
        jeans = cotton; french fries = potatoes; ketchup = tomatoes; an ice cube = water; popcorn = maize""",
    ),
    Relation(
        "science",
        "science",
        ("{x}?", "Think of nature. {x}?"),
        ("Answer this question about nature: {x}?",),
        """Which gas do people need to breathe = oxygen; Which gas do plants take in = carbon dioxide; Which gas fills most of the air = nitrogen;
        Which gas is the lightest of all = hydrogen; Which gas lifts party balloons = helium; Which star is nearest to us = the sun;
        What travels around the earth = the moon; Which planet is the largest = Jupiter; Which planet is called the red one = Mars;
        Which planet is nearest to the sun = Mercury; Which planet is famous for its rings = Saturn; Which planet do we live on = Earth;
        What pumps blood through the body = the heart; What do we think with = the brain; What do we breathe with = the lungs;
        What do we see with = the eyes; What do we smell with = the nose; What do we taste with = the tongue; What do we hear with = the ears;
        Which part of a plant takes in water = the roots; Which part of a plant makes seeds = the flower; What does frozen water become = ice;
        What does boiling water become = steam; What pulls things down to the ground = gravity; Which metal do magnets attract = iron;
        Which metal is liquid in a warm room = mercury metal; Which yellow metal is used in rings = gold; What do bees make = honey;
        Which animal is the tallest = the giraffe; Which animal is the largest = the blue whale; Which land animal runs fastest = the cheetah;
        Which bird cannot fly and lives on ice = the penguin; What do caterpillars turn into = butterflies;
         What shakes the ground = an earthquake; What throws out lava = a volcano;
        Which instrument shows north = a compass; What is the hardest natural stone = diamond; What do fish breathe with = gills""",
    ),
    Relation(
        "kind",
        "language",
        ("What is {x}?", "To which kind of thing does {x} belong?"),
        ("Which word describes best what {x} is?",),
        """an apple = a fruit; a pear = a fruit; a cherry = a fruit; a plum = a fruit; a hammer = a tool; a saw = a tool; a drill = a tool;
        a rose = a flower; a tulip = a flower; a daisy = a flower; a violin = an instrument; a piano = an instrument; a flute = an instrument;
        a chair = furniture; a table = furniture; a wardrobe = furniture; a shirt = clothing; a coat = clothing; a sock = clothing;
        a car = a vehicle; a truck = a vehicle; a bus = a vehicle; red = a colour; purple = a colour; seven = a number; forty = a number;
        a circle = a shape; a triangle = a shape; an oak = a tree; a birch = a tree; a pine = a tree; chess = a game; football = a game;
        a trumpet = an instrument; a grape = a fruit; a jacket = clothing; a sofa = furniture; a willow = a tree; a lily = a flower""",
    ),
)
