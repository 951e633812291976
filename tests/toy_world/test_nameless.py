"""Things whose color, or whose shape, has no name: what they look like, and what is said of them."""

import json
import math
import re
from random import Random

import numpy as np
import pytest
from fila_video.toy_world.make_videos import make_videos
from fila_video.toy_world.sets import Settings
from fila_video.toy_world.world import COLORS, SHAPES, Thing, draw_film, draw_thing

EVERY = ("what", "color", "order", "before", "after", "count", "when", "first", "motion", "there")


def drawn(thing: Thing) -> np.ndarray:
    picture = np.zeros((64, 64, 3), np.uint8)
    draw_thing(picture, thing)
    return picture


def test_a_color_without_a_name_is_none_of_the_others() -> None:
    seen = set()
    for look in range(200):
        color = drawn(Thing("", "square", 0.5, 0.5, 0.5, look=look))[32, 32].astype(float)
        seen.add(tuple(color))
        assert all(math.dist(color, named) > 39 for named in COLORS.values())
    assert len(seen) > 190


def test_a_shape_without_a_name_is_none_of_the_others() -> None:
    def outline(thing: Thing) -> np.ndarray:
        return drawn(thing)[..., 0] > 100

    named = [outline(Thing("white", shape, 0.6, 0.5, 0.5)) for shape in SHAPES]
    for look in range(60):
        found = outline(Thing("white", "", 0.6, 0.5, 0.5, look=look))
        assert found.sum() > 150
        for other in named:
            assert (found & other).sum() / (found | other).sum() < 0.85


def test_the_same_seed_draws_the_same_thing() -> None:
    films = [draw_film(Random(3), 8, 4, 32, 3, (1, 2), 1, 1, compositions="shapes") for _ in range(2)]
    for first, second in zip(*(film.frames() for film in films), strict=True):
        assert np.array_equal(first, second)


@pytest.mark.parametrize("kind", ["picture", "picture-questions", "few", "short"])
@pytest.mark.parametrize(("compositions", "never"), [("shapes", COLORS), ("colors", SHAPES)])
def test_what_has_no_name_is_never_named(tmp_path, kind, compositions, never) -> None:
    ask = {} if kind.startswith("picture") else {"ask": EVERY, "questions": 20}
    settings = Settings(kind, side=32, fps=4, compositions=compositions, wordings="train", **ask)
    records = make_videos(tmp_path, settings, count=6).read_text().splitlines()
    kinds, texts = set(), []
    for record in map(json.loads, records):
        kinds |= {question["kind"] for question in record["questions"]}
        texts += [question[name] for question in record["questions"] for name in ("question", "answer")]
    said = " ".join(texts).lower().replace("in a circle", "round")  # a way to move
    assert not set(re.findall("[a-z]+", said)) & {*never, *(f"{word}s" for word in never)}
    assert "  " not in said and " ." not in said and " ?" not in said
    others = SHAPES if compositions == "shapes" else COLORS
    assert any(word in said for word in others)
    assert {"few": {"order", "motion", "count"}, "short": {"order", "when"}}.get(kind, {"caption"}) <= kinds


def test_a_lone_thing_is_asked_for_by_what_can_be_said_of_it(tmp_path) -> None:
    asked = {}
    for compositions in ("shapes", "colors"):
        settings = Settings("picture-questions", side=32, compositions=compositions)
        for line in make_videos(tmp_path / compositions, settings, count=12).read_text().splitlines():
            record = json.loads(line)
            for question in record["questions"]:
                asked.setdefault(question["kind"], set()).add((len(record["things"]), question["question"]))
    assert {number for number, _ in asked["what"] | asked["color"]} == {1}
    assert any(question.startswith("What shape is the colored object?") for _, question in asked["what"])
    assert any(question.startswith("What colour is the thing?") for _, question in asked["color"])


def test_nameless_shapes_have_as_many_colors_as_asked_for(tmp_path) -> None:
    settings = Settings("picture-questions", side=32, compositions="colors", colors=1)
    records = list(map(json.loads, make_videos(tmp_path, settings, count=12).read_text().splitlines()))
    colors = [{thing["color"] for thing in record["things"]} for record in records]
    assert max(map(len, colors)) == 1 and len(set.union(*colors)) > 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "row", "compositions": "shapes"}, "'shapes' has too few of them"),
        ({"kind": "few", "compositions": "colors", "refusals": 1}, "half of what is there has no name"),
    ],
)
def test_what_cannot_be_asked_or_shown_without_names_is_an_error(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**settings)
