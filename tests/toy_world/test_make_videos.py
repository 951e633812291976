"""The procedural world: what is annotated is what is seen, answers follow from it, and a seed makes it all again."""

import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from random import Random

import av
import numpy as np
import pytest
from fila_video.commands import cli
from fila_video.toy_world.looks import CODECS
from fila_video.toy_world.make_videos import KINDS, Settings, make_one, make_videos
from fila_video.toy_world.questions import (
    FILM_KINDS,
    MORE_KINDS,
    NUMBERS,
    PARTS,
    Question,
    ask_about_film,
    caption_film_with_times,
)
from fila_video.toy_world.world import COLORS, SHAPES, Thing, draw_film, draw_thing
from fila_video.video_reading_fila_video import probe_video, read_frames
from PIL import Image


def records_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return tmp_path_factory.mktemp("world")


@pytest.fixture(scope="module")
def short(world):
    return records_of(make_videos(world, Settings("short", duration=(5, 12), side=64, questions=16), count=8))


def films(count=60, **settings):
    values = {
        "duration": 20.0,
        "fps": 8.0,
        "side": 32,
        "num_events": 4,
        "event_seconds": (1.0, 3.0),
        "num_stretches": 2,
        "num_backgrounds": 2,
    }
    return [draw_film(Random(seed), **{**values, **settings}) for seed in range(count)]


def test_videos_are_real_h264_of_the_annotated_duration(world, short) -> None:
    for record in short:
        with av.open(str(world / record["video"])) as container:
            assert container.streams.video[0].codec_context.name == "h264"
        assert probe_video(world / record["video"]).duration == pytest.approx(record["duration"], abs=0.01)
        assert 5 <= record["duration"] <= 12


def test_things_are_seen_in_their_color_from_their_start_to_their_end_and_not_outside(world, short) -> None:
    for record in short:
        for event in record["events"]:
            frames = read_frames(world / record["video"], fps=8)
            still = event["motion"] in ("stands still", "grows", "shrinks") and event["shape"] not in ("ring",)
            if not still:
                continue
            row, column = round(event["y"] * 64), round(event["x"] * 64)
            color = np.array(COLORS[event["color"]], dtype=float)
            away = np.abs(frames.frames[:, row - 1 : row + 2, column - 1 : column + 2].mean((1, 2)) - color).max(1)
            inside = (frames.timestamps > event["start"] + 0.13) & (frames.timestamps < event["end"] - 0.13)
            outside = (frames.timestamps < event["start"] - 0.13) | (frames.timestamps > event["end"] + 0.13)
            assert (away[inside] < 40).all()
            others = [each for each in record["events"] if each is not event and each["color"] == event["color"]]
            if not others and event["color"] not in ("white", "black"):
                assert (away[outside] > 40).mean() > 0.95


def test_events_are_in_order_apart_and_of_different_things() -> None:
    for film in films():
        for before, after in itertools.pairwise(film.events):
            assert before.end + 0.49 < after.start
        assert film.events[0].start > 0
        assert film.events[-1].end < film.duration
        assert len({event.thing.name for event in film.events}) == len(film.events)


def test_events_begin_anywhere() -> None:
    """No grid that an evenly spread sample could meet."""
    starts = [event.start % 1 for film in films(200) for event in film.events]
    counts, _ = np.histogram(starts, bins=5, range=(0, 1))
    assert counts.min() > 0.7 * counts.mean()


def test_scenes_return_and_backgrounds_move() -> None:
    film = films(1, num_events=1, num_stretches=6, num_backgrounds=2)[0]
    backgrounds = [background for _, background in film.stretches]
    assert len(backgrounds) == 6
    assert len({id(background) for background in backgrounds}) == 2
    assert all(a is not b for a, b in itertools.pairwise(backgrounds))
    assert not np.array_equal(backgrounds[0].at(0), backgrounds[0].at(10))


def answer_by_hand(film, question):
    """The answer of a free question, worked out from the film alone."""
    things = [event.thing for event in film.events]
    words = question.question.rstrip("?").split()
    if question.kind == "what":
        return next(thing.shape for thing in things if thing.color == words[4])
    if question.kind == "color":
        return next(thing.color for thing in things if thing.shape == words[-1])
    if question.kind == "order":
        place = ("first", "second", "third", "fourth", "last").index(words[-1])
        return things[-1 if place == 4 else place].a_name
    if question.kind in ("before", "after"):
        at = [thing.name for thing in things].index(" ".join(words[-2:]))
        return things[at + (1 if question.kind == "after" else -1)].a_name
    if question.kind == "count":
        kind = words[2]
        number = sum(
            kind == "objects" or kind == thing.color or kind in (f"{thing.shape}s", f"{thing.shape}es")
            for thing in things
        )
        return NUMBERS[number]
    if question.kind == "when":
        event = next(event for event in film.events if event.thing.name == " ".join(words[-3:-1]))
        return f"the {PARTS[int(2 * (event.start + event.end) / film.duration)]}"
    first, second = " ".join(words[4:6]), " ".join(words[-2:])
    names = [thing.name for thing in things]
    return f"the {first if names.index(first) < names.index(second) else second}"


def test_every_answer_follows_from_the_film() -> None:
    seen = Counter()
    for seed, film in enumerate(films(100)):
        for question in ask_about_film(Random(seed), film, count=16, choice_share=0):
            assert question.answer == answer_by_hand(film, question), question
            seen[question.kind] += 1
    assert set(seen) == {"what", "color", "order", "before", "after", "count", "when", "first"}
    assert min(seen.values()) > 0.5 * max(seen.values())


def test_the_letter_of_a_choice_stands_before_the_right_answer_and_is_any() -> None:
    letters = Counter()
    for seed, film in enumerate(films(150)):
        for question in ask_about_film(Random(seed), film, count=8, choice_share=1):
            text, *lines = question.question.split("\n")
            options = dict(line.split(". ", 1) for line in lines)
            assert len(set(options.values())) == len(options) == (2 if question.kind == "first" else 4)
            free = type(question)(question.kind, "free", text, "")
            assert options[question.answer] == answer_by_hand(film, free) == question.reply
            if question.kind != "first":
                letters[question.answer] += 1
    assert min(letters.values()) > 0.8 * sum(letters.values()) / 4


def test_questions_alone_do_not_tell_the_answer() -> None:
    """For each wording the best constant answer is right about as often as chance."""
    answers = {}
    for seed, film in enumerate(films(400)):
        for question in ask_about_film(Random(seed), film, count=8, choice_share=0):
            if question.kind in ("what", "color", "when"):
                answers.setdefault(question.kind, Counter())[question.answer] += 1
    chance = {"what": 1 / len(SHAPES), "color": 1 / len(COLORS), "when": 1 / len(PARTS)}
    for kind, counts in answers.items():
        assert max(counts.values()) / counts.total() < 1.4 * chance[kind]


def test_a_caption_with_times_names_each_event_at_its_start() -> None:
    film = films(1)[0]
    parts = caption_film_with_times(film).rstrip(".").split(". ")
    for part, event in zip(parts, film.events, strict=True):
        assert part == f"0:{int(event.start):02d} {event.caption}"


def test_the_same_settings_make_the_same_files_and_a_larger_set_begins_with_the_smaller(tmp_path) -> None:
    settings = Settings("clip", side=32, fps=4)
    small = make_videos(tmp_path / "a", settings, count=2)
    large = make_videos(tmp_path / "b", settings, count=3, workers=2)
    assert small.read_text().splitlines() == large.read_text().splitlines()[:2]
    for record in records_of(small):
        assert (tmp_path / "a" / record["video"]).read_bytes() == (tmp_path / "b" / record["video"]).read_bytes()


def test_a_file_does_not_depend_on_what_was_in_memory_before(tmp_path) -> None:
    program = "import sys; from fila_video.commands import cli; sys.exit(cli.main(sys.argv[1:]))"
    looks = ["--side", "64", "--moving", "0.2", "--rates", "6", "8", "12", "--codecs", *CODECS]
    made = []
    for byte in ("1", "85", "170"):  # what glibc fills new memory with; elsewhere this says less
        folder = tmp_path / byte
        arguments = ["make-videos", "--output", str(folder), "--kind", "few", "--count", "20", *looks, "--no-progress"]
        subprocess.run(
            [sys.executable, "-c", program, *arguments], env={**os.environ, "MALLOC_PERTURB_": byte}, check=True
        )
        made.append([path.read_bytes() for path in sorted((folder / "videos").iterdir())])
    assert len(made[0]) == 20 and made[0] == made[1] == made[2]


def test_all_kinds_are_asked_where_that_is_said(tmp_path) -> None:
    arguments = ["--kind", "few", "--count", "3", "--side", "32", "--questions", "16", "--no-progress"]
    for name, kinds in (("all", ["all"]), ("named", [*FILM_KINDS, *MORE_KINDS])):
        assert cli.main(["make-videos", "--output", str(tmp_path / name), *arguments, "--ask", *kinds]) == 0
    every, named = ((tmp_path / name / "train_few.jsonl").read_text() for name in ("all", "named"))
    assert every == named and '"there"' in every and '"motion"' in every


def test_splits_and_seeds_share_no_video(tmp_path) -> None:
    sets = [Settings("picture", split, seed, side=32) for split in ("train", "test") for seed in (1, 2)]
    made = []
    for number, settings in enumerate(sets):
        records = records_of(make_videos(tmp_path / str(number), settings, count=20))
        made += [(tmp_path / str(number) / record["image"]).read_bytes() for record in records]
    assert len(set(made)) == len(made) == 80


def test_rare_events_are_short_in_long_videos(tmp_path) -> None:
    (record,) = records_of(make_videos(tmp_path, Settings("rare", duration=(300, 301), side=32, fps=2), count=1))
    assert 300 <= record["duration"] <= 301
    assert 4 <= len(record["events"]) <= 6
    assert all(2 <= event["end"] - event["start"] <= 3.001 for event in record["events"])


def test_a_crowded_film_shows_thirty_things_one_at_a_time(tmp_path) -> None:
    settings = Settings("crowded", duration=(125, 125), side=32, fps=2, questions=40)
    (record,) = records_of(make_videos(tmp_path, settings, count=1))
    events = record["events"]
    assert len({(event["color"], event["shape"]) for event in events}) == len(events) == 30
    assert all(earlier["end"] < later["start"] for earlier, later in itertools.pairwise(events))
    kinds = {question["kind"] for question in record["questions"]}
    assert {"before", "after", "first"} <= kinds and len(record["questions"]) > 30


def test_pictures_carry_captions_and_questions(tmp_path) -> None:
    settings = Settings("picture-questions", side=64)
    for record in records_of(make_videos(tmp_path, settings, count=10)):
        assert Image.open(tmp_path / record["image"]).size == (64, 64)
        caption = record["conversations"][1]["value"]
        assert caption.count(" and ") == (record["questions"][0]["answer"].count(" and ")) <= 1
        assert record["conversations"][0]["value"].startswith("<image>\n")
        assert "<image>" not in "".join(turn["value"] for turn in record["conversations"][1:])
        replies = [turn["value"] for turn in record["conversations"][1::2]]
        assert replies == [Question(**question).reply for question in record["questions"]]


def test_things_in_a_row_come_one_soon_after_another(tmp_path) -> None:
    counts = set()
    for record in records_of(make_videos(tmp_path, Settings("row", side=32, fps=4), count=12)):
        events = record["events"]
        counts.add(len(events))
        length = events[0]["end"] - events[0]["start"]
        assert all(length / 2 <= b["start"] - a["end"] + 2e-3 < 1.6 * length for a, b in itertools.pairwise(events))
        assert len(events) * length > 0.58 * record["duration"]
    assert counts <= set(range(3, 9)) and len(counts) > 2


@pytest.mark.parametrize("count", (1, 2))
def test_the_things_of_one_video_have_as_many_colors_as_asked_for_and_those_of_others_have_others(
    tmp_path, count
) -> None:
    for kind, duration in (("short", (5, 8)), ("picture-questions", None)):
        records = records_of(make_videos(tmp_path, Settings(kind, duration=duration, side=32, colors=count), count=12))
        captions = [turn["answer"] for record in records for turn in record["questions"] if turn["kind"] == "caption"]
        colors = [{color for color in COLORS if color in caption.lower()} for caption in captions]
        assert max(map(len, colors)) == count
        assert len(set.union(*colors)) > 3


def test_things_that_travel_are_each_seen_by_three_even_frames_in_a_row_and_by_one_of_a_third_as_many(world) -> None:
    settings = Settings("travel", "test", side=32, ask=("motion", "order"), choice_share=0, rates=(4.0, 8.0))
    motions = Counter()
    for record in records_of(make_videos(world / "travel", settings, count=12)):
        assert 12 <= record["duration"] <= 18 and 3 <= len(record["events"]) <= 4
        video = world / "travel" / record["video"]
        every, single = (read_frames(video, num_frames=count).timestamps for count in (24, 8))
        assert 0.5 < np.diff(every).mean() < 0.8
        for event in record["events"]:
            seen = np.flatnonzero((every >= event["start"]) & (every < event["end"]))
            assert seen.tolist() == [3 * (seen[0] // 3) + place for place in range(3)]
            assert ((single >= event["start"]) & (single < event["end"])).sum() == 1
            motions[event["motion"]] += 1
        asked = {question["kind"]: question["answer"] for question in record["questions"]}
        assert asked["motion"].removeprefix("it ") in {event["motion"] for event in record["events"]}
    assert set(motions) == {"moves to the left", "moves to the right", "moves up", "moves down"}


def test_more_things_than_runs_of_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="5 events do not fit into 4 runs of frames"):
        films(1, num_events=5, grid=4)


def test_a_drawn_thing_covers_its_place_and_nothing_else() -> None:
    picture = np.full((64, 64, 3), 100, np.uint8)
    draw_thing(picture, Thing("red", "square", 0.5, 0.5, 0.5))
    assert tuple(picture[32, 32]) == COLORS["red"]
    assert (picture[:15] == 100).all()
    assert (picture[:, 49:] == 100).all()


def test_the_command_line_makes_every_kind(tmp_path) -> None:
    for kind in KINDS:
        seconds = {"rare": "40", "crowded": "125"}.get(kind)
        short = ["--min-duration", seconds, "--max-duration", seconds] if seconds else []
        arguments = ["--output", str(tmp_path), "--kind", kind, "--count", "1", "--side", "32", "--no-progress"]
        assert cli.main(["make-videos", *arguments, *short]) == 0
        assert len(records_of(tmp_path / f"train_{kind}.jsonl")) == 1


@pytest.mark.parametrize(
    "settings, problem",
    [
        ({"kind": "opera"}, "`kind` must be one of"),
        ({"kind": "short", "split": "exam"}, "`split` must be one of"),
        ({"kind": "short", "duration": (9, 8)}, r"got \(9, 8\)"),
        ({"kind": "short", "duration": (9, float("inf"))}, r"got \(9, inf\)"),
        ({"kind": "short", "light": (1.0, float("inf"))}, r"got \(1.0, inf\)"),
        ({"kind": "short", "side": 33}, "got 33"),
        ({"kind": "short", "fps": 0}, "got 0"),
        ({"kind": "short", "colors": 0}, "must be from 1 to 8, got 0"),
        ({"kind": "short", "colors": 9}, "must be from 1 to 8, got 9"),
        ({"kind": "row", "colors": 1}, "needs `colors` 2 or more, got 1"),
        ({"kind": "crowded", "colors": 4}, "needs `colors` 5 or more, got 4"),
        ({"kind": "short", "choice_share": 2}, "got 8 and 2"),
        ({"kind": "picture-questions", "ask": ("motion",)}, "motion, but for the kind picture-questions none can"),
        ({"kind": "clip", "ask": ("what", "there")}, "`ask` names what, there, but for the kind clip none can be"),
        ({"kind": "clip", "questions": 9}, "`questions` has no effect for the kind clip, .* got 9: leave it out"),
        ({"kind": "picture", "refusals": 2}, "`refusals` has no effect for the kind picture, .* got 2: leave it out"),
        ({"kind": "few", "colors": 3, "compositions": "shapes"}, "`colors` has no effect .* got 3: leave it out"),
        ({"kind": "empty", "ask": ("count", "order")}, "`ask` names order, .* only count and there can be chosen"),
        (
            {"kind": "clip", "choice_share": 0.5},
            "`choice_share` has no effect for the kind clip, .* got 0.5: leave",
        ),
        ({"kind": "picture", "duration": (5, 8)}, r"`duration` has no effect for the kind picture, got \(5, 8\)"),
        (
            {"kind": "travel", "fps": 1},
            "must have at least 48: of films of 12 s, .* must be 4 or more, got 1",
        ),
        ({"kind": "travel", "rates": (8, 3.5)}, "must be 4 or more, got 3.5"),
        ({"kind": "travel", "duration": (5, 8)}, "of films of 5 s, `fps` and `rates` must be 9.6 or more, got 8"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, problem) -> None:
    with pytest.raises(ValueError, match=problem):
        Settings(**settings)


def test_a_set_that_is_there_is_not_overwritten(tmp_path, capsys) -> None:
    arguments = ["make-videos", "--output", str(tmp_path), "--kind", "picture", "--count", "1", "--no-progress"]
    assert cli.main(arguments) == 0
    assert cli.main(arguments) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such locks")
def test_two_runs_do_not_film_the_same_set_into_one_folder(tmp_path) -> None:
    one, other = (Settings("picture", seed=seed, side=32) for seed in (1, 2))
    film = make_one

    def while_another_begins(*args, **kwargs):
        with pytest.raises(ValueError, match=r"Another run is writing to .*train_picture\.jsonl"):
            make_videos(tmp_path / "world", other, count=1)
        return film(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fila_video.toy_world.make_videos.make_one", while_another_begins)
        make_videos(tmp_path / "world", one, count=2)
    make_videos(tmp_path / "alone", one, count=2)
    world, alone = ({f.name: f.read_bytes() for f in (tmp_path / name).rglob("*.*")} for name in ("world", "alone"))
    assert world == alone and len(world) == 3


def test_a_set_that_is_broken_off_twice_keeps_no_video_of_another(tmp_path, monkeypatch) -> None:
    old, new = (Settings("pair", seed=seed, side=32, fps=4, questions=1) for seed in (1, 2))
    make_videos(tmp_path / "world", old, count=3).unlink()
    film = make_one

    def film_one_and_stop(output, settings, index, keep=False):
        if index == 1:
            raise KeyboardInterrupt
        return film(output, settings, index, keep)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("fila_video.toy_world.make_videos.make_one", film_one_and_stop)
        make_videos(tmp_path / "world", new, count=3)
    for record in records_of(make_videos(tmp_path / "world", new, count=3)):
        assert probe_video(tmp_path / "world" / record["video"]).duration == pytest.approx(record["duration"], abs=0.3)
    make_videos(tmp_path / "fresh", new, count=3)
    files = [sorted((tmp_path / name / "videos").iterdir()) for name in ("world", "fresh")]
    assert [file.read_bytes() for file in files[0]] == [file.read_bytes() for file in files[1]]


def test_a_rate_beside_those_that_take_its_place_is_refused(tmp_path, capsys) -> None:
    command = ["make-videos", "--count", "1", "--side", "32", "--no-progress", "--max-duration", "5"]
    for rate in ("30", "8"):  # also the default, where it is named
        given = ["--kind", "clip", "--fps", rate, "--rates", "4", "6"]
        assert cli.main([*command, *given, "--output", str(tmp_path / "both")]) == 2
        assert f"--fps {rate} has no effect beside --rates 4 6: leave out one" in capsys.readouterr().err
    assert not (tmp_path / "both").exists()
    for number, (given, rate) in enumerate(((["--fps", "4"], 4), (["--rates", "6"], 6), ([], 8))):
        output = tmp_path / str(number)
        assert cli.main([*command, "--kind", "clip", *given, "--output", str(output)]) == 0
        assert probe_video(output / "videos" / "train_clip_000000.mp4").fps == pytest.approx(rate)
    # A recipe gives one list of options to all its sets.
    given = ["--kind", "picture", "--rates", "6", "8", "--moving", "0.2", "--codecs", "h264", "hevc"]
    assert cli.main([*command[:-2], *given, "--output", str(tmp_path / "pictures")]) == 0


@pytest.mark.parametrize("options", [["--min-duration", "6"], ["--max-duration", "9"], ["--fps", "8"]])
@pytest.mark.parametrize("kind", ["picture", "picture-questions"])
def test_what_has_no_effect_on_pictures_is_refused(tmp_path, capsys, kind, options) -> None:
    given = ["--output", str(tmp_path / "pictures"), "--kind", kind, "--count", "1", *options]
    assert cli.main(["make-videos", *given]) == 2
    assert f"has no effect for the kind {kind}" in capsys.readouterr().err
    assert not (tmp_path / "pictures").exists()


def test_events_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"do not fit into 5\.0 s"):
        films(1, duration=5.0, num_events=5)
    with pytest.raises(ValueError, match="got num_events 49"):
        films(1, num_events=49)
    with pytest.raises(ValueError, match="6 kinds of things in 1 colors, got num_events 7"):
        films(1, num_events=7, num_colors=1)
