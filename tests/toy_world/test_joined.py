"""Questions about joined films: they follow from the films, and training takes them with the joined videos."""

import json
import re
import shutil

import pytest
from fila_video.commands import cli
from fila_video.toy_world.joined import ask_about_joined
from fila_video.toy_world.make_videos import Settings, make_videos
from fila_video.toy_world.questions import PARTS
from fila_video.toy_world.unanswerable import OUTSIDE, OUTSIDE_IN_TESTS
from fila_video.toy_world.world import COLORS, SHAPES
from fila_video.training.data import RecordSet
from fila_video.training.samples import read_chat
from fila_video.training.settings import DataSet, TrainingError
from fila_video.video_reading_fila_video import read_frames


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Clips and films without things, the videos that are joined from them, and the questions about these."""
    folder = tmp_path_factory.mktemp("joined")
    make_videos(folder, Settings("clip", side=32, fps=4), count=30)
    make_videos(folder, Settings("empty", side=32, fps=4, duration=(5, 8), questions=0), count=6)
    annotations = [str(folder / f"train_{kind}.jsonl") for kind in ("clip", "empty")]
    options = ["--count", "6", "--min-duration", "90", "--max-duration", "140", "--workers", "1", "--no-progress"]
    built = ["--videos", str(folder), "--output", str(folder / "long"), *options]
    assert cli.main(["build-dataset", "--annotations", *annotations, *built]) == 0
    asked = ["--joined", str(folder / "long"), "--count", "5", "--questions", "40", "--choice-share", "0"]
    assert cli.main(["make-videos", "--output", str(folder), *asked, "--seed", "3"]) == 0
    return folder


def test_events_are_those_of_the_joined_films_where_they_are_played(folder) -> None:
    records = lines_of(folder / "train_joined.jsonl")
    assert [record["id"] for record in records] == [f"train_joined_{number:06d}" for number in range(5)]
    clips = {record["id"]: record["events"][0] for record in lines_of(folder / "train_clip.jsonl")}
    for record in records:
        played = [segment for segment in record["segments"] if segment["id"] in clips]
        assert len(played) < len(record["segments"]) or len(played) == len(record["events"])
        for segment, event in zip(played, record["events"], strict=True):
            clip = clips[segment["id"]]
            assert event["caption"] == clip["caption"]
            assert event["start"] == pytest.approx(segment["scene_start"] + clip["start"], abs=1e-3)
            assert segment["scene_start"] <= event["start"] < event["end"] <= segment["scene_end"]


def test_answers_follow_from_the_events_and_name_no_thing_that_is_there_twice(folder) -> None:
    twice, kinds = 0, set()
    for record in lines_of(folder / "train_joined.jsonl"):
        events = record["events"]
        names = [f"{event['color']} {event['shape']}" for event in events]
        twice += len(names) - len(set(names))
        for question in record["questions"]:
            kind, text, answer = (question[name] for name in ("kind", "question", "answer"))
            kinds.add(kind)
            words = text.strip("?").split(" ")
            named = f"{words[-2]} {words[-1]}"
            if kind in ("before", "after"):
                assert names.count(named) == 1
                place = names.index(named) + (1 if kind == "after" else -1)
                assert answer.split(" ", 1)[1] == names[place]
            elif kind == "when":
                named = text.removeprefix("In which part of the video does the ").removesuffix(" appear?")
                assert names.count(named) == 1
                middle = sum(events[names.index(named)][end] for end in ("start", "end")) / 2
                assert answer == f"the {PARTS[int(4 * middle / record['duration'])]}"
            elif kind == "first":
                pair = [name.removeprefix("the ") for name in text.split(", ")[1].strip("?").split(" or ")]
                assert all(names.count(name) == 1 for name in pair)
                assert answer == f"the {min(pair, key=names.index)}"
            elif kind in ("what", "color"):
                word = next(word for word in words if word in (COLORS if kind == "what" else SHAPES))
                field, other = ("color", "shape") if kind == "what" else ("shape", "color")
                assert [event[other] for event in events if event[field] == word] == [answer]
    assert twice > 0 and kinds >= {"before", "after", "when", "first", "order", "count", "caption"}


def test_training_takes_them_with_the_joined_video_and_its_caption(folder) -> None:
    records = RecordSet(DataSet(path=str(folder / "train_joined.jsonl"), questions={"kind": ["order", "caption"]}))
    built = lines_of(next((folder / "long" / "data").iterdir()))
    for number in range(2):
        chat, images, (video,) = read_chat(records[number], records)
        assert images == [] and read_frames(video, num_frames=3).frames.shape == (3, 32, 32, 3)
        assert [message["content"][0]["type"] for message in chat[::2]] == ["video"] + ["text"] * (len(chat) // 2 - 1)
        assert chat[-1]["content"][0]["text"] == built[number]["conversations"][1]["value"]
        assert "<time_instruction>" not in json.dumps(chat)


def test_the_same_seed_asks_the_same_and_another_one_else(folder, tmp_path) -> None:
    for file in folder.glob("train_clip.jsonl"), folder.glob("train_empty.jsonl"):
        for path in file:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    asked = []
    for seed in (3, 3, 4):
        settings = Settings("short", questions=40, choice_share=0, seed=seed)
        path = ask_about_joined(tmp_path, folder / "long", settings, 5)
        asked.append(path.read_bytes())
        path.unlink()
    assert asked[0] == asked[1] == (folder / "train_joined.jsonl").read_bytes() != asked[2]


def test_what_cannot_be_asked_about_is_named(folder, tmp_path, capsys) -> None:
    def ask(output, *options):
        return cli.main(["make-videos", "--output", str(output), "--joined", str(folder / "long"), *options])

    assert ask(tmp_path, "--count", "2", "--kind", "rare", "--moving", "0.5", "--refusals", "1") == 2
    assert "can be set: leave out kind, refusals, moving." in capsys.readouterr().err
    assert ask(tmp_path, "--count", "2", "--min-duration", "9") == 2
    assert "can be set: leave out duration." in capsys.readouterr().err
    assert cli.main(["make-videos", "--output", str(tmp_path), "--joined", str(tmp_path), "--count", "2"]) == 2
    assert f"{tmp_path} holds no videos of build-dataset: name the folder" in capsys.readouterr().err
    assert ask(tmp_path, "--count", "7") == 2
    assert "`count` must be from 1 to the 6 videos of" in capsys.readouterr().err
    assert ask(tmp_path, "--count", "2") == 2
    assert "the records of the films that were joined must lie in the output" in capsys.readouterr().err
    for kind in ("clip", "empty"):
        (tmp_path / f"train_{kind}.jsonl").write_text("not JSON\n")
    assert ask(tmp_path, "--count", "2") == 2
    assert "has no film 'train_" in capsys.readouterr().err
    assert not list(tmp_path.glob("*joined*"))
    assert ask(folder, "--count", "2") == 2
    assert "train_joined.jsonl is there already" in capsys.readouterr().err


def test_no_option_is_offered_twice_where_a_thing_is_in_several_films(folder, tmp_path) -> None:
    for name in ("train_clip.jsonl", "train_empty.jsonl"):
        (tmp_path / name).symlink_to(folder / name)
    settings = Settings("short", seed=3, questions=60, choice_share=1, ask=("order", "before", "after"))
    offered = 0
    for record in lines_of(ask_about_joined(tmp_path, folder / "long", settings, count=6)):
        for question in (each for each in record["questions"] if each["form"] == "choice"):
            options = [line.split(". ", 1)[1] for line in question["question"].split("\n")[1:]]
            assert len(set(options)) == len(options) == 4, question
            offered += 1
    assert offered > 20


def test_joined_films_of_a_test_are_asked_about_other_things_that_do_not_exist(folder, tmp_path) -> None:
    for name in ("train_clip.jsonl", "train_empty.jsonl"):
        (tmp_path / name).symlink_to(folder / name)
    settings = Settings("short", "test", questions=20, choice_share=0, ask=("there",))
    asked = " ".join(
        question["question"].replace("?", " ")
        for record in lines_of(ask_about_joined(tmp_path, folder / "long", settings, count=6))
        for question in record["questions"]
    )
    assert any(re.search(rf" an? {thing} ", asked) for thing in OUTSIDE_IN_TESTS[1])
    assert not any(re.search(rf" an? {thing} ", asked) for thing in OUTSIDE[1])


def test_an_unfinished_build_is_neither_asked_about_nor_trained_on(folder, tmp_path) -> None:
    shutil.copytree(folder / "long", tmp_path / "long")
    assert len(RecordSet(DataSet(str(tmp_path / "long"), media=str(folder)))) == 6
    (tmp_path / "long" / "README.md").unlink()
    message = "has not finished.*`fila-video build-dataset ... --output .*long` again"
    with pytest.raises(TrainingError, match=message):
        RecordSet(DataSet(str(tmp_path / "long"), media=str(folder)))
    with pytest.raises(ValueError, match=message):
        ask_about_joined(tmp_path, tmp_path / "long", Settings("short"), count=1)
    assert not (tmp_path / "train_joined.jsonl").exists()
