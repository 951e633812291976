"""The text that the default checkpoint's tokenizer is trained on: English about what videos show, made by program."""

from random import Random

# Word lists read better as text than as lists of quoted strings.
# ruff: noqa: SIM905

COLORS = "red green blue yellow orange purple pink brown black white grey gray cyan magenta".split()
SHAPES = (
    "circle square triangle star ring cross diamond hexagon ellipse rectangle pentagon heart bar ball cube".split()
)
SIZES = "small large big tiny huge medium short tall long".split()
TEXTURES = "striped checkered dotted plain wooden sandy grassy snowy noisy smooth rough dark bright cloudy".split()
MOTIONS = (
    "moves to the left|moves to the right|moves up|moves down|moves in a circle|stands still|spins|turns|bounces|"
    "grows|shrinks|appears|disappears|blinks|flashes|falls|rises|rolls|zigzags|crosses the screen|stops|starts moving|"
    "changes its colour|speeds up|slows down|leaves the picture|enters the picture|flies away|hides behind another one"
).split("|")
PLACES = (
    "on the left|on the right|at the top|at the bottom|in the middle|in the centre|in the upper left corner|"
    "in the lower right corner|in the background|in the foreground|near the edge|above it|below it|between them"
).split("|")
THINGS = (
    "man woman person boy girl child group crowd dog cat bird fish horse cow whale butterfly car bus train boat ship "
    "plane rocket balloon bicycle ball house building tower bridge street road city town forest tree hill mountain "
    "river lake sea ocean beach desert garden meadow field flower sky cloud sun moon star planet snow rain storm "
    "lightning fire smoke firework window door table chair kitchen room stage screen book phone camera picture clock "
    "cup bottle plate food bread cake apple banana knife bag box hat shirt shoe hand face hair eye head leg arm"
).split()
ACTIONS = (
    "walks runs sits stands jumps dances sings plays talks eats drinks cooks reads writes drives rides swims flies "
    "opens closes holds carries throws catches kicks pushes pulls cuts washes paints builds cleans smiles laughs "
    "looks points waves turns waits sleeps works shows makes takes gives puts picks climbs fixes draws wears"
).split()
NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve".split()
ORDER = "first second third fourth fifth last next previous earlier later".split()
LETTERS = "ABCDE"

WORDS = """
able above accident across act action active actor add address admire adult adventure afraid afternoon age ago
agree air airport alarm album alive allow almost alone along already also always amazing among amount ancient
anger angle angry ankle annoy answer any apart appearance area argue army around arrange arrive arrow art
article artist ask asleep assist athlete attach attack attempt attend audience autumn avenue average avoid award
away baby back bake balance band bank bar bark barrel base basic basket bath battle bay bean bear beard beat
beautiful bed bee behave believe bell belong belt bench bend beside best bet better beyond bill birth birthday
bit bite blanket blind block blood blow board body boil bone boot border bored borrow boss bother bowl brain
branch brave break breakfast breath brick bride brief bring broad broken brother brush bucket bug burn bury bush
business busy butter button buy cabin cable call calm camel camera camp can candle cap captain card care careful
carpet cart case cash castle cause cave ceiling celebrate cell century ceremony certain chain chair chalk
champion chance change channel character charge chase chat cheap check cheer cheese chef chest chicken chief
chin chocolate choose church cinema class claw clay clever client cliff climate close cloth clothes club coach
coal coast coat code coffee coin cold collect college comb come comedy comfort common company compare compete
complete computer concert condition confuse connect consider contain contest continue control cook cool copper
copy coral corn corner correct cost cotton couch count country couple courage course court cover crab craft
crane crash crawl crazy cream create creature crew crime crop culture cup curious curl current curtain curve
cushion customer cycle damage dance danger daughter deal dear decide decorate deep deer defend degree delay
deliver demonstrate depend depth desk detail develop device diet difference difficult dig digital dinner direct
direction dirt dirty discover discuss dish distance dive divide doctor documentary doll dolphin dough doubt
dozen dragon drawer dream dress drill drop drum dry duck dust duty each eagle early earn earth ease east easy
edge edit education effect effort egg either elbow electric elephant else empty end enemy energy engine enjoy
enough entire entrance equal escape even event ever evidence exact excited exercise exhibit exist exit expect
expensive experience experiment expert explore express extra eyebrow fabric fact factory fail fair fall false
family famous fan far farm farmer fashion fast fat father favourite fear feather feature feed feel female fence
festival fight figure fill film final find fine finger finish fist fit fix flag flame flat float flood floor
flour flow focus fog fold follow foot football forget fork form fort forward fountain fox fragile frame free
freeze fresh friend frog front frost fruit fry fuel full fun funny fur furniture future gallery game gap garage
gate gather gentle gesture ghost giant gift glad glass glide glove glue goal goat goggles gold golf good goose
grab grain grape grass grave great greet ground grow guard guess guest guide guitar gun gym habit half hall
hammer hang happen happy hard harvest hate hear heart heat heavy heel height hello helmet help hen herd here
hero hide high hike hint hit hobby hockey hold hole holiday home honest honey hook hope horn hospital host hot
hotel hour huge human hungry hunt hurry hurt husband ice idea identify imagine important include increase indoor
industry injure insect inside instead instruct instrument interview introduce invite iron island item jacket jar
jaw jeans job jog join joke journey joy judge juice jungle keep key keyboard kid kind king kiss kitten knee
knock knot know label ladder lady lamb lamp land language lap large laser late laundry law lawn lay lead leaf
learn least leather lecture left lemon lend lens lesson letter level library lid lie lift light like limit lion
lip liquid list live load local lock logo lone lonely loose lose loud love low luck luggage lunch machine
magazine magic mail major make male map marble march mark market marry mask match material matter mayor meal
mean measure meat medal medicine meet melt member memory mention menu mess message metal method microphone
midnight mile milk mind mine mirror miss mistake mix mobile model modern monkey month monument mood moth mother
motor mouse mouth movie mud muscle museum mushroom nail name narrow nation nature nearly neat neck need needle
neighbour neither nest net network never new news nice noise noon north nose note notice now nurse nut oak obey
object observe obvious occur offer office officer often oil old olive once onion only opinion opposite orchestra
ordinary organ origin outdoor outside oven owl own owner pack page pain pair palace pale palm pan panda panel
pants paper parade parent park parrot party pass passenger past pasta paste path patient pattern pause paw pay
peace pear pen pencil penguin pepper perfect perform perhaps period pet photo physical piano picnic pie piece
pig pile pill pillow pilot pin pipe pirate pitch pizza plan plane plant plastic plate platform please plenty
plug pocket poem police polite pond pony pool poor popular port pose position possible post pot potato pour
powder power practice prepare present president press pretty prevent price pride priest prince print prison
prize probably produce product professor program project promise protect proud prove public pump punch puppet
puppy purpose purse puzzle quality quarter queen question quick quiet quite rabbit race radio rail rainbow raise
range rapid rare rat rather raw reach react ready real rear reason recipe record recover reduce referee reflect
refuse region regular relax release remember remind remove rent repair repeat replace reply report rescue rest
restaurant return reveal reward rhythm rice rich ride right rise risk ritual robot rock role roof root rope rose
rough round route row royal rub rubber rude rug ruin rule rush sad saddle safe sail salad salt same sample sand
sauce save saw scale scared scarf school science scissors score scratch scream sculpture seal search season seat
secret section seed seem select sell send sense separate serious serve set several shade shadow shake shallow
shape share shark sharp sheep sheet shelf shell shelter shine shock shoot shop shore shoulder shout shovel
shower shrink shut shy sick side sign signal silent silk silver similar simple since sister site situation skate
ski skill skin skirt slave slice slide slip slope smell smooth snake soap soccer social sock soft soil soldier
solid solve son song soon sore sort soul sound soup source south space spare speak special speech speed spell
spend spice spider spill spin spirit splash spoon sport spot spray spread spring squirrel stable stack stadium
staff stair stamp statue stay steal steam steel steep step stick still stir stomach stone stool store story
stove strange straw stream strength stress stretch strike string strip strong structure struggle student studio
study stuff stupid style subject success sudden suffer sugar suggest suit suitcase summer support suppose sure
surf surface surgery surprise surround survive sweat sweater sweet switch sword symbol system tail talent tank
tape target taste taxi tea teach team tear technique teenager television temperature temple tennis tent terrible
test thank theatre theme thick thin thirsty thread throat throne thumb ticket tide tidy tie tiger tight tile tin
tip tired toast toe together toilet tomato tongue tool tooth top torch total touch tour tourist toward towel toy
track trade tradition traffic train tray treasure treat trick trip trophy trouble trousers truck trumpet trust
try tube tunnel turkey turtle twice twist type ugly umbrella uncle under understand uniform unit universe
university until unusual upset upstairs use useful usual valley value van variety various vase vegetable vehicle
version vest victory view village violin virus visit visitor voice volcano volleyball volume vote wagon wake
wall want war warm warn warrior waste water waterfall weak weapon wedding week weigh weight wet wheat wheel
wheelchair whisper whistle wide wife wild win wind wine wing winner winter wipe wire wise wish wolf wonder wood
wool word worker worry worth wound wrap wrestle wrist wrong yard year yell young youth zebra zone zoo
""".split()
ENDINGS = ("", "", "", "", "s", "ed", "ing", "er", "ly")

SENTENCES = """\
You are a helpful assistant.
What happens in this video? Describe the video in detail. Summarize the video in one sentence.
What is shown in this picture? What can you see in the image? Describe the image.
Select the best answer to the following multiple-choice question based on the video.
Answer with the option's letter from the given choices directly. The best answer is: Answer: Option
Answer the question using a single word or phrase. Please answer yes or no. Explain your answer.
Carefully watch the video and pay attention to the cause and sequence of events, and the details of objects.
Which of the following events happens first? In which order do these events happen? What is the correct order?
What happens after that? What happens before this? What happens at the end? What happens at the beginning?
How many different scenes are there? How often does it appear? How long does it last? When does it happen?
At what time does the scene change? How many seconds does the video last? What is the main topic of this video?
Why does the person do this? Who is in the video? Where does it take place? Whose is it? What is the weather like?
What is the mood of the video? What is the relationship between them? What will probably happen next?
The video begins with a view of the sky, and then the camera moves slowly to the right and shows the whole place.
In the next scene, several people are walking along the street while the cars are driving past them at night.
There is no such object in the video. It does not appear at any time. Nothing changes. I cannot tell from the video.
The two objects move at the same time, but only one of them reaches the other side before the scene is over.
Both of them are there during the whole video. None of them is there. All of the above. None of the above.
After a short while it comes back again, although it was not there in the scene before. Finally, it goes away.
It is about the same size as the other one, but it is faster, slower, brighter, darker, larger or smaller.
This is a short film about nature, animals, people, sports, cooking, music, travel, science, history and daily life.
The text on the screen says welcome. The title is shown at the top of the frame. A sign can be seen on the wall.
Through the window we see the sun going down over the hills. It is early in the morning. It is late in the evening.
First, it shows how the food is made; second, how it is cooked; third, how it looks when it is finished and ready.
The speaker explains the problem, gives an example and shows the result. Everyone in the room listens and claps.
Yes, it does. No, it doesn't. Yes, there is. No, there isn't. It's the first one. They're the same. I don't know.
We've seen that they have different colours. You'll find that she'd like it. He's there, isn't he? Let's look.
From this we can conclude that the event took place about half a minute after the start of the video.
Because of this, people think that something must have happened to it, so they should look for it everywhere.
However, there were many more of these than those, which would make it quite hard to say what could be wrong.
Although most things remain as they are, some parts of the world become very different within a few minutes or hours.
""".splitlines()


def corpus(seed: int = 42, rounds: int = 1500) -> list[str]:
    """The lines of text, equal for equal arguments: `SENTENCES` with `rounds` of each kind of made-up line."""
    rng = Random(seed)
    lines = SENTENCES * 40
    for _ in range(rounds):
        lines += [_shapes(rng), _people(rng), _times(rng), _question(rng), _choices(rng), _counts(rng), _words(rng)]
    return lines


def _shape(rng: Random) -> str:
    return f"{rng.choice([*SIZES, ''])} {rng.choice(COLORS)} {rng.choice(SHAPES)}".strip()


def _shapes(rng: Random) -> str:
    link = rng.choice(["then", "and", "while", "before"])
    return (
        f"A {_shape(rng)} {rng.choice(MOTIONS)} {rng.choice(PLACES)}, {link} the {_shape(rng)} {rng.choice(MOTIONS)}. "
        f"The background is {rng.choice(TEXTURES)} and {rng.choice(COLORS)}."
    )


def _people(rng: Random) -> str:
    one, two, three = rng.sample(THINGS, 3)
    where = rng.choice(["near", "with", "in front of", "behind", "under", "over"])
    other = rng.choice(["a", "another", "some", "this", "that", "every"])
    return (
        f"The {one} {rng.choice(ACTIONS)} {where} the {two}, and {other} {three} {rng.choice(ACTIONS)}. "
        f"There are {rng.choice(NUMBERS)} {one}s {rng.choice(PLACES)}."
    )


def _times(rng: Random) -> str:
    times = ", ".join(f"{rng.uniform(0, 600):.1f}" for _ in range(rng.randint(2, 6)))
    return (
        f"This video samples {rng.randint(1, 64)} frames of a {rng.uniform(1, 3600):.1f}-second video at {times} "
        f"seconds. It {rng.choice(['starts', 'ends', 'happens'])} at {rng.randint(0, 59)}:{rng.randint(0, 59):02d}, "
        f"from second {rng.randint(0, 99)} to second {rng.randint(0, 99)}, in minute {rng.randint(1, 60)}."
    )


def _question(rng: Random) -> str:
    return rng.choice(
        [
            f"What colour is the {rng.choice(SHAPES)}? It is {rng.choice(COLORS)}.",
            f"What is the color of the {rng.choice(THINGS)}? The {rng.choice(THINGS)} is {rng.choice(COLORS)}.",
            f"Which shape {rng.choice(MOTIONS)}? The {_shape(rng)}.",
            f"What does the {_shape(rng)} do? It {rng.choice(MOTIONS)}.",
            f"What appears {rng.choice(['before', 'after', 'between'])} the {_shape(rng)}? A {_shape(rng)}.",
            f"Which appears {rng.choice(ORDER)}, the {_shape(rng)} or the {_shape(rng)}? The {rng.choice(ORDER)} one.",
            f"When does the {_shape(rng)} appear? At about {rng.randint(0, 600)} seconds.",
            f"Where is the {rng.choice(THINGS)}? It is {rng.choice(PLACES)}.",
            f"Is there a {_shape(rng)} in the video? {rng.choice(['Yes', 'No'])}.",
            f"Does the {rng.choice(THINGS)} move? {rng.choice(['Yes', 'No'])}, it {rng.choice(MOTIONS)}.",
        ]
    )


def _choices(rng: Random) -> str:
    options = rng.choice([SHAPES, COLORS, THINGS, NUMBERS, MOTIONS])
    return "\n".join(
        f"{rng.choice(['', '('])}{letter}{rng.choice(['.', ')'])} {option}"
        for letter, option in zip(LETTERS, rng.sample(options, 4), strict=False)
    )


def _counts(rng: Random) -> str:
    return (
        f"How many {rng.choice(COLORS)} {rng.choice(SHAPES)}s are there? {rng.choice(NUMBERS).capitalize()}. "
        f"How many times does the {rng.choice(THINGS)} appear? {rng.randint(1, 20)} times."
    )


def _words(rng: Random) -> str:
    return " ".join(rng.choice(WORDS) + rng.choice(ENDINGS) for _ in range(6))


__all__ = ["corpus"]
