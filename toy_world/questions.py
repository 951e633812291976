"""Questions about the films and pictures of the procedural world, with their answers, free or by multiple choice."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from random import Random

from .world import COLORS, SHAPES, Event, Film, Thing

Made = tuple[str, str, Sequence[str]]  # a question, its answer, and wrong answers to choose from

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
PARTS = ("first quarter", "second quarter", "third quarter", "last quarter")
LETTERS = "ABCD"
CAPTION_REQUESTS = ("Describe the video.", "What happens in this video?", "Tell what can be seen, in order.")


@dataclass(frozen=True)
class Question:
    """
    `kind` is one of what, color, order, before, after, count, when, first, side and caption; `form` is "free" or,
    where the question ends with lettered options and the answer is a letter, "choice".
    """

    kind: str
    form: str
    question: str
    answer: str

    def describe(self) -> dict:
        return asdict(self)

    @property
    def reply(self) -> str:
        """What an assistant is taught to say: the answer, or the text of the option of that letter."""
        if self.form == "free":
            return self.answer
        return re.search(rf"^{self.answer}\. (.+)$", self.question, re.MULTILINE)[1]


def ask_about_film(rng: Random, film: Film, count: int, choice_share: float = 0.3) -> list[Question]:
    """
    `count` different questions at most, the kinds in turn from a random one, so that each is as frequent as its
    subject allows: a color or a shape is only asked for where it names one thing.
    """
    makers = [_what, _color, _order, _before, _after, _count, _when, _first]
    rng.shuffle(makers)
    return _ask(rng, makers, film, count, choice_share)


def ask_about_picture(rng: Random, things: Sequence[Thing], count: int, choice_share: float = 0.3) -> list[Question]:
    """`count` different questions at most about a picture of one or two things."""
    events = tuple(Event(0, 0, thing) for thing in things)
    film = Film(0, 1, (), events)
    makers = [_what, _color, _count] + ([_side] if len(things) > 1 else [])
    rng.shuffle(makers)
    return [
        Question(each.kind, each.form, each.question.replace(" in the video", ""), each.answer)
        for each in _ask(rng, makers, film, count, choice_share)
    ]


def caption_film(film: Film) -> str:
    """All things in their order: "A red circle, then a blue star."."""
    return _sentence(", then ".join(event.thing.a_name for event in film.events))


def caption_film_with_times(film: Film) -> str:
    """What happens and when: "0:03 a red circle moves up. 0:12 a blue star stands still."."""
    return " ".join(f"{_clock(event.start)} {event.caption}." for event in film.events) or "Nothing appears."


def caption_picture(things: Sequence[Thing]) -> str:
    """The things from left to right: "A red circle and a blue star."."""
    return _sentence(" and ".join(thing.a_name for thing in sorted(things, key=lambda thing: thing.x)))


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else "Nothing."


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _ask(rng: Random, makers: list[Callable], film: Film, count: int, choice_share: float) -> list[Question]:
    asked, failures = {}, 0
    while len(asked) < count and failures < 4 * len(makers):
        maker = makers[(len(asked) + failures) % len(makers)]
        made = maker(rng, film)
        if made is None or made[0] in asked:
            failures += 1
            continue
        text, answer, others = made
        kind, form, question = maker.__name__.strip("_"), "free", text
        if rng.random() < choice_share:
            question, answer = _offer(rng, text, answer, others)
            form = "choice"
        asked[text] = Question(kind, form, question, answer)
    return list(asked.values())


def _offer(rng: Random, question: str, answer: str, others: Sequence[str]) -> tuple[str, str]:
    """The question with its options, one a line, and the letter of the right one; of `others` the first are taken."""
    options = [answer, *[other for other in others if other != answer][: len(LETTERS) - 1]]
    rng.shuffle(options)
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
    return "\n".join([question, *lines]), LETTERS[options.index(answer)]


def _shuffled(rng: Random, items: Sequence[str]) -> list[str]:
    return rng.sample(list(items), len(items))


def _rivals(rng: Random, film: Film) -> list[str]:
    """Wrong options for a thing's name: first the other things of the film, so that having seen them is no help."""
    names = _shuffled(rng, [event.thing.a_name for event in film.events])
    others = [Thing(color, shape, 0, 0, 0).a_name for color in COLORS for shape in SHAPES]
    return names + _shuffled(rng, [name for name in others if name not in names])


def _unique(film: Film, field: str) -> list[Thing]:
    counts = Counter(getattr(event.thing, field) for event in film.events)
    return [event.thing for event in film.events if counts[getattr(event.thing, field)] == 1]


def _what(rng: Random, film: Film) -> Made | None:
    things = _unique(film, "color")
    if not things:
        return None
    thing = rng.choice(things)
    return f"What shape is the {thing.color} object?", thing.shape, _shuffled(rng, SHAPES)


def _color(rng: Random, film: Film) -> Made | None:
    things = _unique(film, "shape")
    if not things:
        return None
    thing = rng.choice(things)
    return f"What colour is the {thing.shape}?", thing.color, _shuffled(rng, tuple(COLORS))


def _order(rng: Random, film: Film) -> Made | None:
    if len(film.events) < 2:
        return None
    place = rng.randrange(min(len(film.events), len(ORDINALS)))
    last = place == len(film.events) - 1 and rng.random() < 0.5
    name = film.events[place].thing.a_name
    return f"Which object appears {'last' if last else ORDINALS[place]}?", name, _rivals(rng, film)


def _before(rng: Random, film: Film) -> Made | None:
    return _neighbor(rng, film, "before", -1)


def _after(rng: Random, film: Film) -> Made | None:
    return _neighbor(rng, film, "after", 1)


def _neighbor(rng: Random, film: Film, word: str, step: int) -> Made | None:
    if len(film.events) < 2:
        return None
    place = rng.randrange(max(step, 0), len(film.events) + min(step, 0))
    answer, known = film.events[place].thing, film.events[place - step].thing
    return f"Which object appears right {word} the {known.name}?", answer.a_name, _rivals(rng, film)


def _count(rng: Random, film: Film) -> Made | None:
    """All things, or those of a color or shape; of these, first how many is drawn, so that no number is rare."""
    if rng.random() < 0.4:
        number, things = len(film.events), "objects"
    else:
        field, names, form = rng.choice((("color", tuple(COLORS), "{} objects"), ("shape", SHAPES, "{}s")))
        counts = Counter(dict.fromkeys(names, 0))
        counts.update(getattr(event.thing, field) for event in film.events)
        number = rng.choice(sorted(set(counts.values())))
        things = form.format(rng.choice([name for name in names if counts[name] == number])).replace(
            "crosss", "crosses"
        )
    if number >= len(NUMBERS):
        return None
    near = [name for other, name in enumerate(NUMBERS) if 0 < abs(other - number) <= 3]
    return f"How many {things} appear in the video?", NUMBERS[number], _shuffled(rng, near)


def _when(rng: Random, film: Film) -> Made | None:
    """Of events that lie within one quarter of the video, at least a hundredth of the duration from its ends."""
    inside = []
    for event in film.events:
        first, last = (4 * (event.start / film.duration - 0.01), 4 * (event.end / film.duration + 0.01))
        if int(first) == int(last) and first >= 0 and last <= 4:
            inside.append((event, int(first)))
    if not inside:
        return None
    event, part = rng.choice(inside)
    return (
        f"In which part of the video does the {event.thing.name} appear?",
        f"the {PARTS[part]}",
        _shuffled(rng, [f"the {name}" for name in PARTS]),
    )


def _first(rng: Random, film: Film) -> Made | None:
    if len(film.events) < 2:
        return None
    places = rng.sample(range(len(film.events)), 2)
    names = [f"the {film.events[place].thing.name}" for place in places]
    answer = names[places.index(min(places))]
    return f"Which appears first, {names[0]} or {names[1]}?", answer, names


def _side(rng: Random, film: Film) -> Made | None:
    side = rng.choice(("left", "right"))
    ordered = sorted((event.thing for event in film.events), key=lambda thing: thing.x)
    answer = ordered[0 if side == "left" else -1]
    return f"Which object is on the {side}?", answer.a_name, _rivals(rng, film)


__all__ = [
    "CAPTION_REQUESTS",
    "Question",
    "ask_about_film",
    "ask_about_picture",
    "caption_film",
    "caption_film_with_times",
    "caption_picture",
]
