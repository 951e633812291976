"""What cannot be answered: questions about something else than shapes, and what the procedural world does not have."""

# Word lists read better as text than as lists of quoted strings.
# ruff: noqa: SIM905

# Questions of one form, so that what stands in a slot does not tell them.
_FORMS = {
    "What is the capital of {}?|Who rules {}?|How big is {}?|Which language is spoken in {}?|How do I get to {}?": (
        "Italy Germany Japan Canada Brazil Egypt India Norway Kenya Peru Poland Greece China Mexico Chile Ireland"
    ),
    "Who is the {}?|What is the {} doing?|Is the {} tired?|What does the {} say?|Where is the {} going?": (
        "teacher singer driver baker farmer nurse soldier lawyer queen mayor chef pilot judge coach dancer painter"
    ),
    "Can you {} for me?|How do I {}?|Please {}.|Will you {} tomorrow?|Why should I {}?|When do people {}?": (
        "cook|sleep better|count to ten|learn to swim|write a letter|save money|grow tomatoes|tie a knot|read faster|"
        "paint a wall|lose weight|make coffee|clean a carpet|plan a trip|play chess|repair a tap"
    ),
    "What is {}?|Tell me about {}.|Do you like {}?|Explain {} to me.|Who invented {}?|How does {} work?": (
        "football|jazz|history|algebra|chocolate|the internet|electricity|a volcano|money|friendship|winter|"
        "a computer|the law|a recipe for soup|photosynthesis|the stock market"
    ),
    "How {} are you?|How {} is the Nile?|How {} is a whale?|How {} is your house?": (
        "tall long heavy fast wide strong deep expensive loud warm"
    ),
}
ELSEWHERE = (
    "What is the capital of France?",
    "Who are you?",
    "Hello",
    "Tell me a joke.",
    "What is two plus two?",
    "How is the weather today?",
    "Who made this video?",
    "What music is playing?",
    "Write a poem.",
    "How old are you?",
    "What time is it?",
    "Can you help me with my homework?",
    "What is your name?",
    "Translate this into German.",
    "Is there a person in the room?",
    "Which car is the fastest?",
    "What did the man say?",
    "Where was this filmed?",
    "Thank you!",
    "How do I bake bread?",
    "Who won the game?",
    "What is the meaning of life?",
    "Do you like dogs?",
    "Why is the sky so high?",
    "What language do you speak?",
    "Are you a human?",
    "Good morning",
    "How much does it cost?",
    "Sing a song.",
    "What should I eat tonight?",
    "What is the biggest city in Europe?",
    "Who wrote this?",
    "Hey",
    "Tell me a story.",
    "How many days has a year?",
    "Is it raining?",
    "Who is speaking?",
    "Which song is this?",
    "Write me an email.",
    "When were you made?",
    "What day is today?",
    "Can you sing?",
    "Do you have a brother?",
    "How do you say hello in Spanish?",
    "Is somebody in the kitchen?",
    "Which team is better?",
    "What is the girl holding?",
    "In which country is this?",
    "Goodbye",
    "How do I fix my computer?",
    "Who is the best player?",
    "Why do people dream?",
    "Do you prefer tea or coffee?",
    "How deep is the sea?",
    "Which languages are there?",
    "Are you happy?",
    "Good evening",
    "Where can I buy this?",
    "Play some music.",
    "What should I wear?",
    "Recommend a movie.",
    "Explain how a motor works.",
    "Is the man angry?",
    "What is the doctor saying?",
    "Where do I find a doctor?",
    "Who is the king of Spain?",
    "Can you draw a picture?",
    "How heavy is an elephant?",
    "What is the name of the dog?",
    "Does the boy look happy?",
    *(
        form.format(word)
        for forms, words in _FORMS.items()
        for form in forms.split("|")
        for word in words.split("|" if "|" in words else None)
    ),
)
ELSEWHERE_IN_TESTS = (
    "What is the highest mountain in the world?",
    "Hi there",
    "Who is the president?",
    "Do you know a good book?",
    "How far away is the moon?",
    "Can you write some code?",
    "What is the woman wearing?",
    "Is the street wet?",
    "Where do you live?",
    "Explain gravity.",
)
# What the world does not have: (colors, things). A set of tests asks for others than a set of training. There are
# many, so that what is learned is to refuse a name that means nothing here, and not these names.
OUTSIDE = (
    tuple(
        """
        pink brown turquoise golden silver beige olive peach lilac copper khaki transparent colorless wooden metallic
        glowing hairy amber apricot bronze burgundy buff cherry chestnut chocolate coral cream ebony emerald fuchsia
        ginger hazel indigo ivory jade lavender lemon lime maroon mauve mint mustard navy ochre pearl plum rose ruby
        rusty salmon sandy sapphire sepia tan teal umber vanilla striped spotted dotted checkered furry fluffy hollow
        wet dry dirty clean plastic rubber paper leather woolen marble stony sweet cotton frozen burning bearded
        wrinkled knitted foggy starry cloudless muddy
        """.split()
    ),
    tuple(
        """
        dog car house tree ball heart hexagon flower person boat arrow moon chair rabbit horse fish man woman child
        hand face road river mountain train plane book cup phone door window lamp bottle shoe hat apple banana cake
        spoon elephant tiger spider snake butterfly robot rocket bridge castle clock guitar kite balloon bicycle truck
        ship umbrella key knife candle carrot leaf stone octagon trapezoid cylinder spiral ant anchor angel ape arch
        axe baby bag bank barn barrel basket bat beach bead bean bear bed bee beetle bell belt bench boot bow bowl box
        boy branch bread brick broom brush bucket bug bush button cabin cage camel camera candy cannon canoe cap card
        carpet cart cave chain cherry chest chicken chimney church city clown coat coin comb cone cookie corn couch cow
        crab crane crown cube curtain cushion deer desk dice dish doll dolphin donkey dragon drawer dress drum duck
        eagle ear egg ellipse engine envelope eraser eye fan farm feather fence field finger fire flag flame foot
        forest fork fountain fox frog fruit garden gate ghost giraffe girl glass globe glove goat gorilla grape guard
        gun hammer hammock harp hawk hedge helmet hen heptagon hill hole hook horn hospital hotel ice iron island
        jacket jar jeep jewel jug kangaroo kettle king kitchen kitten kiwi knight knot ladder lake lamb lemon letter
        lighthouse line lion lizard lobster lock log magnet mailbox map mask match medal melon mirror monkey monster
        motor mouse mouth mug mushroom nail necklace needle nest net newspaper nose nurse nut oak ocean onion orchid
        oval oven owl oyster page palace palm pan panda parachute parallelogram park parrot path peach pear pen pencil
        penguin piano pie pig pillow pin pipe pirate pizza plant plate plum pond pony potato prism puppy puzzle pyramid
        queen rainbow rat razor rhombus ribbon roof rope rose ruler sail sandwich saw scarf school scissors sea seal
        shark sheep shelf shell shirt shovel skirt skull sled sock sofa soldier sparrow sphere squirrel stairs statue
        stool stove street submarine suitcase sun swan sweater sword tail tank taxi teapot teddy telephone tent thumb
        ticket tie tire toaster tomato tooth torch towel tower toy tractor trailer tray trumpet tub tulip tunnel turkey
        turtle van vase violin volcano wagon wall wallet watch waterfall wave whale wheel whistle wing wolf worm wreath
        yacht zebra zipper animal arm building corner crowd desert explosion firework food grass group hair head insect
        keyboard leg light lightning meadow picture planet puppet rain rectangle room scene screen shadow sign sky
        smoke snow stage storm text title town wood word world
        """.split()
    ),
)
OUTSIDE_IN_TESTS = (("cyan", "gray", "magenta"), ("cat", "bus", "diamond", "pentagon", "bird", "table", "cloud"))

__all__ = ["ELSEWHERE", "ELSEWHERE_IN_TESTS", "OUTSIDE", "OUTSIDE_IN_TESTS"]
