"""Wordings, typing habits, motion, and questions that cannot be answered: what is asked stays what the film shows."""

import itertools
import json
import re
from random import Random

import pytest
from fila_video.toy_world.make_videos import make_videos
from fila_video.toy_world.questions import FILM_KINDS, ONLY_SHAPES, ask_about_film, ask_in_vain
from fila_video.toy_world.sets import Settings
from fila_video.toy_world.unanswerable import ELSEWHERE, ELSEWHERE_IN_TESTS, OUTSIDE, OUTSIDE_IN_TESTS
from fila_video.toy_world.wordings import TRAINED, WORDINGS, Wordings, mistype
from fila_video.toy_world.world import COLORS, COMPOSITIONS, MOTIONS, SHAPES, draw_film

SLOTS = {
    "color": "red",
    "shape": "star",
    "place": "second",
    "thing": "red star",
    "a_thing": "a red star",
    "things": "stars",
    "a": "the red star",
    "b": "the blue ring",
    "side": "left",
}


def films(count=60, **settings):
    values = {"duration": 20.0, "fps": 8.0, "side": 32, "num_events": 4, "event_seconds": (1.0, 3.0)}
    values |= {"num_stretches": 2, "num_backgrounds": 2, **settings}
    return [draw_film(Random(seed), **values) for seed in range(count)]


def questions_of(path) -> list[list[dict]]:
    return [json.loads(line)["questions"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("kind", WORDINGS)
def test_a_kind_has_sixteen_wordings_for_training_and_two_for_tests_that_all_name_the_same(kind) -> None:
    wordings = WORDINGS[kind]
    assert len(set(wordings)) == len(wordings) == TRAINED + 2 == 18
    slots = {name for name in SLOTS if f"{{{name}}}" in wordings[0]}
    for wording in wordings:
        assert set(re.findall(r"{(\w+)}", wording)) == slots
        assert wording.format(**SLOTS)[-1] in "?."


def test_training_and_tests_share_no_wording() -> None:
    def drawn(which):
        wordings = Wordings(Random(1), which)
        return {wordings.ask("after", **SLOTS) for _ in range(300)}

    assert len(drawn("train")) == TRAINED and len(drawn("held-out")) == 2
    assert not drawn("train") & drawn("held-out")
    assert drawn("all") == drawn("train") | drawn("held-out")


@pytest.mark.parametrize("pools", [(ELSEWHERE, ELSEWHERE_IN_TESTS), *zip(OUTSIDE, OUTSIDE_IN_TESTS, strict=True)])
def test_what_tests_refuse_is_never_refused_in_training(pools) -> None:
    trained, tested = (set(map(str.lower, pool)) for pool in pools)
    assert trained and tested and not trained & tested
    assert not (trained | tested) & ({*COLORS, *SHAPES})


def test_habits_of_typing_leave_what_is_asked() -> None:
    wordings = Wordings(Random(3), "plain", "varied")
    seen = [wordings.ask("color", shape="star") for _ in range(800)]
    plain = "What colour is the star?"
    for right in (plain, plain.lower(), plain.upper(), plain.replace("colour", "color"), plain[:-1]):
        assert right in seen
    assert any(text.startswith("Please tell me") for text in seen) and any(text.endswith("briefly.") for text in seen)
    mistyped = [text for text in seen if "star" not in text.lower()]
    assert 0 < len(mistyped) < 0.06 * len(seen)
    assert Wordings(style="lower").ask("color", shape="star") == plain.lower()
    assert Wordings(style="upper").ask("color", shape="star") == plain.upper()


def test_a_typo_changes_one_word_by_one_letter() -> None:
    text = "Which object appears right after the green ring?"
    for seed in range(100):
        typo = mistype(Random(seed), text)
        pairs = [(a, b) for a, b in zip(text.split(), typo.split(), strict=True) if a != b]
        assert len(pairs) <= 1
        for right, wrong in pairs:
            assert abs(len(right) - len(wrong)) <= 1 and not set(wrong) - set(right) and right[0] == wrong[0]


def test_other_wordings_and_looks_ask_the_same_of_the_same_films(tmp_path) -> None:
    changes = {
        "plain": {},
        "held-out": {"wordings": "held-out"},
        "typed": {"wordings": "train", "style": "varied"},
        "boxed": {"boxed": 1.0, "light": (0.5, 0.7), "codecs": ("mpeg4",)},
    }
    made = {}
    for name, changed in changes.items():
        settings = Settings("short", duration=(5, 6), side=32, fps=4, **changed)
        path = make_videos(tmp_path / name, settings, count=4)
        records = [json.loads(line) for line in path.read_text().splitlines()]
        assert [record["id"] for record in records] == [f"train_short_00000{number}" for number in range(4)]
        made[name] = [(record["events"], [turn["answer"] for turn in record["questions"]]) for record in records]
        texts = {turn["question"].split("\n")[0] for record in records for turn in record["questions"]}
        made[name, "texts"] = texts
    assert made["plain"] == made["held-out"] == made["typed"] == made["boxed"]
    assert made["plain", "texts"] == made["boxed", "texts"]
    assert not made["plain", "texts"] & made["held-out", "texts"]


def test_how_a_thing_moves_is_asked_and_answered() -> None:
    motions = set()
    for seed, film in enumerate(films()):
        for question in ask_about_film(Random(seed), film, 4, choice_share=0, kinds=("motion",)):
            assert question.kind == "motion"
            name = re.fullmatch(r"How does the (\w+ \w+) move\?", question.question)[1]
            (event,) = [event for event in film.events if event.thing.name == name]
            assert question.answer == f"it {event.thing.motion}"
            motions.add(event.thing.motion)
    assert motions == set(MOTIONS)
    assert "motion" not in FILM_KINDS


@pytest.mark.parametrize("test", [False, True])
def test_whether_something_is_there_is_asked_of_what_is_and_of_what_is_not(test) -> None:
    forms, yes, total = set(), 0, 0
    for seed, film in enumerate(films(200)):
        shown = {event.thing.name for event in film.events}
        shown |= {name.split()[1] for name in shown} | {f"{name.split()[0]} object" for name in shown}
        for question in ask_about_film(Random(seed), film, 4, choice_share=0.3, kinds=("there",), test=test):
            name = re.match(r"Is there an? (.+) in the video\?", question.question)[1]
            assert question.kind == "there"
            assert question.reply == ("Yes." if name in shown else f"There is no {name} in the video.")
            assert f" {'an' if name[0] in 'aeiou' else 'a'} {name}" in question.question
            forms.add(
                " ".join("color" if word in COLORS else "shape" if word in SHAPES else word for word in name.split())
            )
            yes, total = yes + (name in shown), total + 1
    assert {"color shape", "shape", "color object"} < forms
    outside, kept = (set(nouns[1]) for nouns in ((OUTSIDE_IN_TESTS, OUTSIDE) if test else (OUTSIDE, OUTSIDE_IN_TESTS)))
    assert len(outside & forms) > 5 and not kept & forms
    assert 0.4 < yes / total < 0.6
    assert "there" not in FILM_KINDS


def names_in(text: str) -> tuple[str, str] | None:
    """The color and shape of the world that a text names last, where it names both."""
    found = re.findall(rf"({'|'.join(COLORS)}) ({'|'.join(SHAPES)})\b", text)
    return found[-1] if found else None


@pytest.mark.parametrize("test", (False, True))
def test_a_question_in_vain_is_about_what_no_film_shows(test) -> None:
    kinds, mixed, total = set(), 0, 0
    for seed, film in enumerate(films(80)):
        things = {(event.thing.color, event.thing.shape) for event in film.events}
        colors, shapes = ({thing[place] for thing in things} for place in (0, 1))
        for question in ask_in_vain(Random(seed), film, 6, Wordings(), test):
            if question.kind == "elsewhere":
                assert question.question in (ELSEWHERE_IN_TESTS if test else ELSEWHERE)
                assert question.answer == ONLY_SHAPES
                continue
            if place := re.search(r"appears (\w+)\?$", question.question):
                assert place[1] in ("fifth", "sixth", "seventh", "eighth")
                assert question.answer == "There are only four objects in the video."
                continue
            missing = re.fullmatch(r"There is no (.+) in the video\.", question.answer)[1]
            assert missing.removesuffix(" object") in question.question
            kinds.add(question.question.split()[0] + question.question.split()[1])
            pair = names_in(question.answer)
            if pair:
                assert pair not in things
                mixed += pair[0] in colors and pair[1] in shapes
                total += 1
            elif missing.endswith(" object"):
                assert missing.removesuffix(" object") not in colors
            else:
                assert missing not in shapes
    assert len(kinds) >= 5
    assert 0.3 < mixed / total < 0.8


def test_about_a_film_without_things_everything_is_in_vain(tmp_path) -> None:
    path = make_videos(tmp_path, Settings("empty", side=32, fps=2, duration=(5, 6), refusals=6), count=4)
    for questions in questions_of(path):
        kinds = [question["kind"] for question in questions]
        assert kinds.count("absent") + kinds.count("elsewhere") == 6
        assert all(question["answer"] == "zero" for question in questions if question["kind"] == "count")
        assert questions[-1]["answer"] in ("Nothing.", "Nothing appears.")


def test_pictures_are_asked_in_vain_as_pictures(tmp_path) -> None:
    settings = Settings("picture-questions", side=32, wordings="all", refusals=4)
    texts = [
        turn[name]
        for questions in questions_of(make_videos(tmp_path, settings, count=30))
        for turn in questions
        for name in ("question", "answer")
    ]
    assert any(re.fullmatch(r"There is no .* in the picture\.", text) for text in texts)
    assert "I can only talk about the shapes in this picture." in texts
    assert not [text for text in texts if "video" in text and text not in ELSEWHERE]


@pytest.mark.parametrize("kind", ("short", "row", "picture-questions"))
def test_kept_out_pairs_are_neither_shown_nor_named_in_training(tmp_path, kind) -> None:
    looks = {"side": 32} if kind == "picture-questions" else {"side": 32, "fps": 4, "duration": (5, 6)}
    settings = Settings(kind, compositions="train", refusals=8, choice_share=0.5, **looks)
    path = make_videos(tmp_path, settings, count=12)
    text = path.read_text()
    assert not any(f"{color} {shape}" in text for color, shape in COMPOSITIONS["held-out"])
    assert sum(f"{color} {shape}" in text for color, shape in COMPOSITIONS["train"]) > 20


def test_a_set_of_kept_out_pairs_shows_nothing_else(tmp_path) -> None:
    settings = Settings("short", side=32, fps=4, duration=(5, 6), compositions="held-out")
    records = [json.loads(line) for line in make_videos(tmp_path, settings, count=8).read_text().splitlines()]
    shown = {(event["color"], event["shape"]) for record in records for event in record["events"]}
    assert shown <= set(COMPOSITIONS["held-out"]) and len(shown) > 5
    colors, shapes = zip(*COMPOSITIONS["held-out"], strict=True)
    assert sorted(colors) == sorted(COLORS) and set(shapes) == set(SHAPES)
    assert len(COMPOSITIONS["train"]) + len(COMPOSITIONS["held-out"]) == len(COLORS) * len(SHAPES)


def test_the_same_seed_asks_the_same_and_another_film_something_else(tmp_path) -> None:
    settings = Settings("short", side=32, fps=4, duration=(5, 6), wordings="train", style="varied", refusals=3)
    made = [make_videos(tmp_path / name, settings, count=3).read_text() for name in ("a", "b")]
    assert made[0] == made[1]
    (first, second, third) = (
        [turn["question"] for turn in questions] for questions in questions_of(tmp_path / "a" / "train_short.jsonl")
    )
    assert all(set(a) != set(b) for a, b in itertools.combinations((first, second, third), 2))
