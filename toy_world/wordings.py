"""
How the questions of the procedural world are put: by one wording a kind or by many, with the habits of those who type.

A set of training asks by `TRAINED` of the wordings of a kind; the others are kept for tests.
"""

from random import Random

TRAINED = 16  # of the eighteen wordings of a kind; the first is the plain one

WORDINGS = {
    "what": (
        "What shape is the {color} object?",
        "Which shape does the {color} object have?",
        "What is the shape of the {color} object?",
        "The {color} object, what shape is it?",
        "What shape does the {color} thing have?",
        "Which shape is {color}?",
        "Tell me the shape of the {color} thing.",
        "What is the {color} thing that can be seen, by its shape?",
        "What shape is the {color} one?",
        "What does the {color} object look like?",
        "Can you say which shape the {color} object is?",
        "Which kind of object is {color}?",
        "Say what shape the {color} object is.",
        "I see something {color}, which shape is it?",
        "What form does the {color} object take?",
        "Identify the shape that is {color}.",
        "What kind of shape is the {color} one?",
        "Name the shape of the {color} object.",
    ),
    "color": (
        "What colour is the {shape}?",
        "Which colour does the {shape} have?",
        "What is the colour of the {shape}?",
        "The {shape}, what colour is it?",
        "Of which colour is the {shape}?",
        "Tell me the colour of the {shape}.",
        "What colour does the {shape} have?",
        "What is the {shape}'s colour?",
        "Say which colour the {shape} is.",
        "The colour of the {shape}?",
        "What's the colour of the {shape}?",
        "Which colour is the {shape}?",
        "Identify the colour of the {shape}.",
        "I see a {shape}, what colour is it?",
        "How is the {shape} coloured?",
        "What colour is the {shape} in the video?",
        "In what colour is the {shape} shown?",
        "Name the colour of the {shape}.",
    ),
    "order": (
        "Which object appears {place}?",
        "What appears {place}?",
        "What is the {place} object that appears?",
        "Which thing comes {place}?",
        "What object is seen {place}?",
        "Which is the {place} object in the video?",
        "Tell me which thing appears {place}.",
        "What shows up {place}?",
        "Say what comes {place}.",
        "The {place} object, what is it?",
        "What do you see {place}?",
        "Which thing shows up {place}?",
        "Identify the object that appears {place}.",
        "Of all objects, which one appears {place}?",
        "What is shown {place}?",
        "Which object enters {place}?",
        "Which object can be seen {place}?",
        "Name the object that comes {place}.",
    ),
    "before": (
        "Which object appears right before the {thing}?",
        "What appears right before the {thing}?",
        "What comes before the {thing}?",
        "Which thing comes immediately before the {thing}?",
        "What is seen just before the {thing}?",
        "Which object is seen before the {thing} appears?",
        "Tell me what comes right before the {thing}.",
        "Before the {thing}, which object appears?",
        "Which object precedes the {thing}?",
        "What was there right before the {thing}?",
        "What is shown shortly before the {thing}?",
        "Say which object comes before the {thing}.",
        "The {thing} appears after which object?",
        "What shows up before the {thing}?",
        "Identify the object just before the {thing}.",
        "Which object do you see right before the {thing}?",
        "What object directly precedes the {thing}?",
        "Which thing shows up just before the {thing}?",
    ),
    "after": (
        "Which object appears right after the {thing}?",
        "What appears right after the {thing}?",
        "What comes after the {thing}?",
        "Which thing comes immediately after the {thing}?",
        "What is seen just after the {thing}?",
        "Which object is seen once the {thing} has left?",
        "Tell me what comes right after the {thing}.",
        "After the {thing}, which object appears?",
        "Which object follows the {thing}?",
        "What was there right after the {thing}?",
        "What is shown shortly after the {thing}?",
        "Say which object comes after the {thing}.",
        "The {thing} appears before which object?",
        "What shows up after the {thing}?",
        "Identify the object just after the {thing}.",
        "Which object do you see right after the {thing}?",
        "What object directly follows the {thing}?",
        "Which thing shows up just after the {thing}?",
    ),
    "count": (
        "How many {things} appear in the video?",
        "How many {things} are there in the video?",
        "How many {things} can be seen?",
        "What is the number of {things} in the video?",
        "Count the {things}.",
        "How many {things} does the video show?",
        "How many {things} do you see?",
        "Tell me how many {things} there are.",
        "What is the count of {things}?",
        "How many {things} have appeared?",
        "How many {things} are shown in the video?",
        "Say how many {things} can be seen.",
        "The number of {things}?",
        "How many {things} come up in the video?",
        "How often do {things} appear?",
        "How many different {things} are in the video?",
        "In total, how many {things} show up?",
        "Give the number of {things} that appear.",
    ),
    "when": (
        "In which part of the video does the {thing} appear?",
        "When does the {thing} appear, in which quarter of the video?",
        "In which quarter of the video is the {thing}?",
        "Which quarter of the video shows the {thing}?",
        "When is the {thing} seen?",
        "When does the {thing} appear?",
        "Tell me in which part of the video the {thing} is.",
        "In what part of the video can the {thing} be seen?",
        "Say when the {thing} appears.",
        "When can I see the {thing}?",
        "When is the {thing} in the video?",
        "In which quarter does the {thing} come?",
        "Which quarter is the {thing} in?",
        "Which part of the video has the {thing}?",
        "At what time does the {thing} appear, by quarter?",
        "When does the {thing} come into view?",
        "During which quarter does the {thing} show up?",
        "At which point of the video is the {thing} visible?",
    ),
    "first": (
        "Which appears first, {a} or {b}?",
        "Which comes first, {a} or {b}?",
        "What appears first, {a} or {b}?",
        "Which of the two is seen first, {a} or {b}?",
        "Which is earlier, {a} or {b}?",
        "{a} or {b}: which appears first?",
        "Tell me which comes first, {a} or {b}.",
        "Of {a} and {b}, which is shown first?",
        "Say which is first, {a} or {b}.",
        "Which is shown before the other, {a} or {b}?",
        "What is first, {a} or {b}?",
        "Does {a} or {b} appear first?",
        "Which do you see first, {a} or {b}?",
        "Is {a} or {b} seen earlier?",
        "{a} and {b}: which one is first?",
        "Out of {a} and {b}, what appears earlier?",
        "Which one shows up earlier, {a} or {b}?",
        "Between {a} and {b}, which one comes first?",
    ),
    "there": (
        "Is there {a_thing} in the video?",
        "Is there {a_thing}?",
        "Does {a_thing} appear in the video?",
        "Does {a_thing} appear?",
        "Can {a_thing} be seen?",
        "Do you see {a_thing}?",
        "Can you see {a_thing} in the video?",
        "Does the video show {a_thing}?",
        "Tell me whether there is {a_thing}.",
        "Is {a_thing} shown?",
        "Is {a_thing} in the video?",
        "Have you seen {a_thing}?",
        "Say if {a_thing} appears.",
        "Does the video have {a_thing} in it?",
        "Was there {a_thing}?",
        "Did you see {a_thing} anywhere?",
        "Is there any sign of {a_thing}?",
        "Does {a_thing} ever show up?",
    ),
    "side": (
        "Which object is on the {side}?",
        "What is on the {side}?",
        "Which thing is on the {side} side?",
        "What object is on the {side}?",
        "What can be seen on the {side}?",
        "Which object stands on the {side}?",
        "Tell me what is on the {side}.",
        "On the {side}, which object is there?",
        "Say what is on the {side}.",
        "The object on the {side}, what is it?",
        "What do you see on the {side}?",
        "Which thing is to the {side}?",
        "What is at the {side}?",
        "What is located on the {side}?",
        "Identify the object on the {side} side.",
        "Which of the objects is on the {side}?",
        "Name the object on the {side}.",
        "What is shown on the {side} side?",
    ),
    "motion": (
        "How does the {thing} move?",
        "What does the {thing} do?",
        "In which direction does the {thing} move?",
        "What is the motion of the {thing}?",
        "How is the {thing} moving?",
        "The {thing}, how does it move?",
        "Tell me how the {thing} moves.",
        "Which way does the {thing} go?",
        "Say how the {thing} moves.",
        "What movement does the {thing} make?",
        "Where does the {thing} move?",
        "In what way does the {thing} move?",
        "Where is the {thing} going?",
        "How does the {thing} travel?",
        "Does the {thing} move, and how?",
        "Which direction does the {thing} take?",
        "Describe the motion of the {thing}.",
        "What is the {thing} doing?",
    ),
    "caption": (
        "Describe the video.",
        "What happens in this video?",
        "Tell what can be seen, in order.",
        "What can be seen in the video?",
        "What does the video show?",
        "List the objects of the video in their order.",
        "Can you describe this video?",
        "What is this video about?",
        "Say what happens.",
        "What do you see?",
        "Summarize the video.",
        "What is going on in the video?",
        "Tell me what you see in this video.",
        "Please describe what is shown.",
        "Which things are shown, in order?",
        "What is shown in the video?",
        "Give a short description of the video.",
        "Which objects appear in the video, one after another?",
    ),
    "times": (
        "Describe the video with times.",
        "What happens when in this video?",
        "Tell what can be seen, with the times.",
        "Describe what happens in the video and when.",
        "List the events of the video with their times.",
        "What happens in the video, and at which times?",
        "Describe the video and say at what time each thing appears.",
        "Give a description of the video with times.",
        "Say what happens, with times.",
        "Describe the video, with the time of each thing.",
        "When does what appear in the video?",
        "Tell me what appears and at what time.",
        "Summarize the video with times.",
        "What appears at which time?",
        "Note each object of the video with its time.",
        "Describe everything with its time.",
        "At what times does what happen?",
        "Write down what happens, with time stamps.",
    ),
    "picture": (
        "Describe the picture.",
        "What can be seen in the picture?",
        "What is in this picture?",
        "What does the picture show?",
        "Can you describe this picture?",
        "Tell what can be seen.",
        "Which objects are in the picture?",
        "Give a short description of the picture.",
        "Say what is in the picture.",
        "What do you see in the picture?",
        "What is shown here?",
        "Summarize the picture.",
        "Tell me what you see.",
        "Please describe what is shown.",
        "What is there in the picture?",
        "What does this picture have in it?",
        "What is this a picture of?",
        "List what the picture shows.",
    ),
}

SETS = ("plain", "train", "held-out", "all")
STYLES = ("plain", "varied", "lower", "upper")
PREFIXES = ("Please tell me: ", "Please tell me, ", "Can you tell me: ", "Question: ", "Tell me: ", "Hi! ", "Please: ")
SUFFIXES = (" Answer briefly.", " Please answer briefly.", " Be brief.", " Answer in one word or two.", " Thanks!")


class Wordings:
    """
    Puts questions into words.

    Args:
        rng (`Random`, *optional*):
            Draws wordings and habits; what is asked does not depend on it. `"plain"` needs none.
        which (`str`, *optional*, defaults to `"plain"`):
            Of a kind's wordings the first (`"plain"`), those of training (`"train"`), the two that are kept out of it
            (`"held-out"`) or `"all"`.
        style (`str`, *optional*, defaults to `"plain"`):
            As written (`"plain"`), all in `"lower"` or `"upper"` case, or `"varied"`: any of these, and at times
            American, with words before or behind, a wrong letter, or no question mark. The options of a choice stay.
        medium (`str`, *optional*, defaults to `"video"`):
            What a question calls its medium.
    """

    def __init__(
        self, rng: Random | None = None, which: str = "plain", style: str = "plain", medium: str = "video"
    ) -> None:
        self.rng, self.which, self.style, self.medium = rng, which, style, medium

    def ask(self, kind: str, **slots: str) -> str:
        """A question of that kind about what the slots name."""
        wordings = WORDINGS[kind]
        if self.which == "plain":
            wording = wordings[0]
        else:
            first, last = {"train": (0, TRAINED), "held-out": (TRAINED, None), "all": (0, None)}[self.which]
            wording = self.rng.choice(wordings[first:last])
        text = wording.format(**slots)
        if self.medium != "video":
            text = text.replace(" in the video", "").replace(" of the video", "").replace("video", self.medium)
        return self.say(f"{text[0].upper()}{text[1:]}")

    def say(self, text: str) -> str:
        """A text in the style."""
        if self.style == "lower":
            return text.lower()
        if self.style == "upper":
            return text.upper()
        return self._vary(text) if self.style == "varied" else text

    def _vary(self, text: str) -> str:
        rng = self.rng
        if rng.random() < 0.5:
            text = text.replace("colour", "color")
        if rng.random() < 0.15:
            text = rng.choice(PREFIXES) + (text[0].lower() + text[1:] if rng.random() < 0.5 else text)
        if rng.random() < 0.15:
            text += rng.choice(SUFFIXES)
        if rng.random() < 0.12:
            text = mistype(rng, text)
        if rng.random() < 0.15:
            text = text.rstrip("?.")
        case = rng.random()
        return text.lower() if case < 0.25 else text.upper() if case > 0.85 else text


def mistype(rng: Random, text: str) -> str:
    """The text with a letter of one of its longer words swapped with the next, doubled or left out."""
    words = text.split(" ")
    places = [place for place, word in enumerate(words) if len(_core(word)) > 3 and _core(word).isalpha()]
    if places:
        place = rng.choice(places)
        word = words[place]
        at = rng.randrange(1, len(_core(word)) - 1)
        words[place] = rng.choice(
            (
                word[:at] + word[at + 1] + word[at] + word[at + 2 :],
                word[:at] + word[at] + word[at:],
                word[:at] + word[at + 1 :],
            )
        )
    return " ".join(words)


def _core(word: str) -> str:
    return word.rstrip("?.,:!")


__all__ = [
    "SETS",
    "STYLES",
    "TRAINED",
    "WORDINGS",
    "Wordings",
    "mistype",
]
