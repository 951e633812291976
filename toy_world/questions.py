"""Questions about the films and pictures of the procedural world, with their answers, free or by multiple choice."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from random import Random

from .unanswerable import ELSEWHERE, ELSEWHERE_IN_TESTS, OUTSIDE, OUTSIDE_IN_TESTS
from .wordings import WORDINGS, Wordings
from .world import COLORS, MOTIONS, SHAPES, Event, Film, Thing

# What a question names, by the slots of its wordings, its answer, and wrong answers to choose from.
Made = tuple[dict[str, str], str, Sequence[str]]

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
PARTS = ("first quarter", "second quarter", "third quarter", "last quarter")
LETTERS = "ABCD"
CAPTION_REQUESTS = WORDINGS["caption"][:3]
FILM_KINDS = ("what", "color", "order", "before", "after", "count", "when", "first")
MORE_KINDS = ("motion", "there")  # which are asked where they are named
IN_VAIN = "absent"  # the kind of a question about something that is not there
OFF_TOPIC = "elsewhere"  # and of one about something else than shapes
REFUSALS = (IN_VAIN, OFF_TOPIC)
ONLY_SHAPES = "I can only talk about the shapes in this video."


@dataclass(frozen=True)
class Question:
    """
    `kind` is one of what, color, order, before, after, count, when, first, motion, there, side, caption, absent
    and elsewhere; `form` is "free" or, where the question ends with lettered options and the answer is a letter,
    "choice".
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


def ask_about_film(
    rng: Random,
    film: Film,
    count: int,
    choice_share: float = 0.3,
    kinds: Sequence[str] = FILM_KINDS,
    wordings: Wordings | None = None,
    test: bool = False,
) -> list[Question]:
    """
    `count` different questions at most, the `kinds` in turn from a random one, so that each is as frequent as its
    subject allows: a color or a shape is only asked for where it names one thing. Whether something is there is asked
    in a `test` about other things that the world does not have.
    """
    makers = {kind: _MAKERS[kind] for kind in kinds}
    if "there" in makers:
        makers["there"] = partial(_there, outside=(OUTSIDE_IN_TESTS if test else OUTSIDE)[1])
    return _ask(rng, makers, film, count, choice_share, wordings or Wordings())


def ask_about_picture(
    rng: Random,
    things: Sequence[Thing],
    count: int,
    choice_share: float = 0.3,
    wordings: Wordings | None = None,
    nameable: Sequence[tuple[str, str]] | None = None,
) -> list[Question]:
    """`count` different questions at most about a picture of one or two things; `nameable` as in [`Film`]."""
    makers = {"what": _what, "color": _color, "count": _count} | ({"side": _side} if len(things) > 1 else {})
    return _ask(rng, makers, still(things, nameable), count, choice_share, wordings or Wordings(medium="picture"))


def still(things: Sequence[Thing], nameable: Sequence[tuple[str, str]] | None = None) -> Film:
    """A picture's things as a film in which nothing happens."""
    return Film(0, 1, (), tuple(Event(0, 0, thing) for thing in things), *([] if nameable is None else [nameable]))


def ask_in_vain(rng: Random, film: Film, count: int, wordings: Wordings, test: bool = False) -> list[Question]:
    """
    Questions that cannot be answered, and what is said instead: four in five about something that is not there, the
    others about something else than shapes. Half of what is missed are colors and shapes of the world, the other half
    things that it does not have; tests ask for other ones and about other subjects than training.
    """
    colors, nouns = OUTSIDE_IN_TESTS if test else OUTSIDE
    seen = {(event.thing.color, event.thing.shape) for event in film.events}
    seen_colors, seen_shapes = ({thing[place] for thing in seen} for place in (0, 1))
    missing = {
        "color": ([color for color in COLORS if color not in seen_colors], colors),
        "shape": ([shape for shape in SHAPES if shape not in seen_shapes], nouns),
    }
    # Of two things that are there, one's color with the other's shape is what must be looked at most closely.
    mixed = [pair for pair in film.nameable if pair not in seen and pair[0] in seen_colors and pair[1] in seen_shapes]
    absent = [pair for pair in film.nameable if pair not in seen]

    def draw(slot: str) -> str | None:
        if slot in missing:
            inside, outside = missing[slot]
            return rng.choice(inside) if inside and rng.random() < 0.5 else rng.choice(outside)
        if rng.random() < 0.5:
            pairs = mixed if mixed and rng.random() < 0.5 else absent
            return " ".join(rng.choice(pairs)) if pairs else None
        if rng.random() < 0.5:
            return f"{rng.choice(list(COLORS))} {rng.choice(nouns)}"
        return f"{rng.choice(colors)} {rng.choice((*SHAPES, *nouns))}"

    kinds = [*("what", "color"), *(("before", "after", "motion", "when", "first", "order") if film.duration else ())]
    questions = {}
    for _ in range(4 * count):
        if len(questions) == count:
            break
        if rng.random() < 0.2:
            text = rng.choice(ELSEWHERE_IN_TESTS if test else ELSEWHERE)
            answer = ONLY_SHAPES.replace("video", wordings.medium)
            questions[text] = Question(OFF_TOPIC, "free", wordings.say(text), answer)
            continue
        kind = rng.choice(kinds)
        if kind == "order":
            if len(film.events) >= len(ORDINALS):
                continue
            slots = {"place": rng.choice(ORDINALS[len(film.events) :])}
            answer = _only(len(film.events))
        else:
            slot = {"what": "color", "color": "shape"}.get(kind, "thing")
            name = draw(slot)
            if name is None:
                continue
            slots = {slot: name}
            answer = f"There is no {name}{' object' if kind == 'what' else ''} in the {wordings.medium}."
            if kind == "first":
                if not film.events:
                    continue
                names = [f"the {name}", f"the {rng.choice(film.events).thing.name}"]
                rng.shuffle(names)
                slots = {"a": names[0], "b": names[1]}
        plain = WORDINGS[kind][0].format(**slots)
        questions.setdefault(plain, Question(IN_VAIN, "free", wordings.ask(kind, **slots), answer))
    return list(questions.values())


def _only(number: int) -> str:
    if number < 2:
        return "There is only one object in the video." if number else "There is no object in the video."
    return f"There are only {NUMBERS[number]} objects in the video."


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


def _ask(
    rng: Random, makers: dict[str, Callable], film: Film, count: int, choice_share: float, wordings: Wordings
) -> list[Question]:
    asked, failures = {}, 0
    kinds = list(makers)
    rng.shuffle(kinds)
    while len(asked) < count and failures < 4 * len(kinds):
        kind = kinds[(len(asked) + failures) % len(kinds)]
        made = makers[kind](rng, film)
        plain = None if made is None else WORDINGS[kind][0].format(**made[0])
        if plain is None or plain in asked:
            failures += 1
            continue
        slots, answer, others = made
        form, question = "free", wordings.ask(kind, **slots)
        if rng.random() < choice_share:
            question, answer = _offer(rng, question, answer, others)
            form = "choice"
        asked[plain] = Question(kind, form, question, answer)
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
    """
    Wrong options for a thing's name, each once: first the other things of the film, so that having seen them is no
    help.
    """
    # Shuffled with those of one name, so that what is drawn next does not depend on them.
    names = list(dict.fromkeys(_shuffled(rng, [event.thing.a_name for event in film.events])))
    others = [Thing(color, shape, 0, 0, 0).a_name for color, shape in film.nameable]
    return names + _shuffled(rng, [name for name in others if name not in names])


def _named(film: Film) -> list[int]:
    """The places of events that their thing's name tells apart: of joined films, the same thing may be in several."""
    counts = Counter(event.thing.name for event in film.events)
    return [place for place, event in enumerate(film.events) if counts[event.thing.name] == 1]


def _unique(film: Film, field: str) -> list[Thing]:
    counts = Counter(getattr(event.thing, field) for event in film.events)
    return [event.thing for event in film.events if counts[getattr(event.thing, field)] == 1]


def _what(rng: Random, film: Film) -> Made | None:
    things = [thing for thing in _unique(film, "color") if thing.shape]
    if not things:
        return None
    thing = rng.choice(things)
    return {"color": thing.color or "colored"}, thing.shape, _shuffled(rng, SHAPES)


def _color(rng: Random, film: Film) -> Made | None:
    things = [thing for thing in _unique(film, "shape") if thing.color]
    if not things:
        return None
    thing = rng.choice(things)
    return {"shape": thing.shape or "thing"}, thing.color, _shuffled(rng, tuple(COLORS))


def _order(rng: Random, film: Film) -> Made | None:
    if len(film.events) < 2:
        return None
    place = rng.randrange(min(len(film.events), len(ORDINALS)))
    last = place == len(film.events) - 1 and rng.random() < 0.5
    name = film.events[place].thing.a_name
    return {"place": "last" if last else ORDINALS[place]}, name, _rivals(rng, film)


def _before(rng: Random, film: Film) -> Made | None:
    return _neighbor(rng, film, -1)


def _after(rng: Random, film: Film) -> Made | None:
    return _neighbor(rng, film, 1)


def _neighbor(rng: Random, film: Film, step: int) -> Made | None:
    places = [place + step for place in _named(film) if 0 <= place + step < len(film.events)]
    if not places:
        return None
    place = rng.choice(places)
    answer, known = film.events[place].thing, film.events[place - step].thing
    return {"thing": known.name}, answer.a_name, _rivals(rng, film)


def _count(rng: Random, film: Film) -> Made | None:
    """All things, or those of a color or shape; of these, first how many is drawn, so that no number is rare."""
    if rng.random() < 0.4:
        number, things = len(film.events), "objects"
    else:
        fields = [("color", tuple(COLORS), "{} objects"), ("shape", SHAPES, "{}s")]
        named = [each for each in fields if all(getattr(event.thing, each[0]) for event in film.events)]
        field, names, form = rng.choice(named)
        counts = Counter(dict.fromkeys(names, 0))
        counts.update(getattr(event.thing, field) for event in film.events)
        number = rng.choice(sorted(set(counts.values())))
        things = form.format(rng.choice([name for name in names if counts[name] == number])).replace(
            "crosss", "crosses"
        )
    if number >= len(NUMBERS):
        return None
    near = [name for other, name in enumerate(NUMBERS) if 0 < abs(other - number) <= 3]
    return {"things": things}, NUMBERS[number], _shuffled(rng, near)


def _when(rng: Random, film: Film) -> Made | None:
    """Of events that lie within one quarter of the video, at least a hundredth of the duration from its ends."""
    inside = []
    for event in (film.events[place] for place in _named(film)):
        first, last = (4 * (event.start / film.duration - 0.01), 4 * (event.end / film.duration + 0.01))
        if int(first) == int(last) and first >= 0 and last <= 4:
            inside.append((event, int(first)))
    if not inside:
        return None
    event, part = rng.choice(inside)
    return {"thing": event.thing.name}, f"the {PARTS[part]}", _shuffled(rng, [f"the {name}" for name in PARTS])


def _first(rng: Random, film: Film) -> Made | None:
    named = _named(film)
    if len(named) < 2:
        return None
    places = rng.sample(named, 2)
    names = [f"the {film.events[place].thing.name}" for place in places]
    answer = names[places.index(min(places))]
    return {"a": names[0], "b": names[1]}, answer, names


def _motion(rng: Random, film: Film) -> Made | None:
    named = _named(film)
    if not named:
        return None
    thing = film.events[rng.choice(named)].thing
    return {"thing": thing.name}, f"it {thing.motion}", _shuffled(rng, [f"it {motion}" for motion in MOTIONS])


def _there(rng: Random, film: Film, outside: Sequence[str]) -> Made | None:
    """
    Whether something is there, by its name, its shape or its color; in half of the questions it is not. Of the shapes
    that are not, half are of `outside`, what the world does not have.
    """
    forms = ("{0} {1}", "{1}", "{0} object")
    form = rng.choice(forms) if all(film.nameable[0]) else forms[1 if film.nameable[0][1] else 2]
    seen = {form.format(event.thing.color, event.thing.shape) for event in film.events}
    missing = {form.format(*pair) for pair in film.nameable} - seen
    if form == "{1}" and rng.random() < 0.5:
        missing = set(outside)
    names = seen if seen and rng.random() < 0.5 else missing
    if not names:
        return None
    name = rng.choice(sorted(names))
    yes, no = "Yes.", f"There is no {name} in the video."
    return {"a_thing": f"{'an' if name[0] in 'aeiou' else 'a'} {name}"}, yes if name in seen else no, (yes, no)


def _side(rng: Random, film: Film) -> Made | None:
    side = rng.choice(("left", "right"))
    ordered = sorted((event.thing for event in film.events), key=lambda thing: thing.x)
    answer = ordered[0 if side == "left" else -1]
    return {"side": side}, answer.a_name, _rivals(rng, film)


_MAKERS = {
    "what": _what,
    "color": _color,
    "order": _order,
    "before": _before,
    "after": _after,
    "count": _count,
    "when": _when,
    "first": _first,
    "motion": _motion,
    "there": _there,
}

__all__ = [
    "CAPTION_REQUESTS",
    "FILM_KINDS",
    "REFUSALS",
    "Question",
    "ask_about_film",
    "ask_about_picture",
    "ask_in_vain",
    "caption_film",
    "caption_film_with_times",
    "caption_picture",
    "still",
]
