"""The events that questions ask about: which are named, and the command with the embedded model on small films."""

import json
from pathlib import Path

import pytest
from fila_video.evaluation import asked_events, train_scorer
from fila_video.evaluation.asked_events import ANSWERED, ASKINGS, CONTRASTIVE, PLAIN, named_event
from fila_video.evaluation.records import Question
from fila_video.toy_world.make_videos import Settings, make_videos

EVENTS = [
    {"color": "red", "shape": "ring"},
    {"color": "blue", "shape": "star"},
    {"color": "red", "shape": "star"},
]


@pytest.mark.parametrize(
    ("kind", "text", "event"),
    [
        ("after", "Which object appears right after the red ring?", 0),
        ("before", "Which object appears right before the blue star?\nA. a red ring\nB. a red star", 1),
        ("when", "In which part of the video does the red star appear?", 2),
        ("what", "What shape is the blue object?", 1),
        ("what", "What shape is the red object?", None),
        ("what", "What kind of shape is the blue one?", 1),
        ("color", "What colour is the ring?\nA. blue\nB. red", 0),
        ("color", "The ring: which color is it?", 0),
        ("after", "After the red ring, which object appears?", 0),
        ("first", "Which appears first, the red ring or the blue star?", None),
        ("count", "How many red objects appear in the video?", None),
    ],
)
def test_the_named_event_is_found_by_the_wording_and_not_by_the_options(kind, text, event) -> None:
    assert named_event(Question(text, "x", kind), EVENTS) == event


def test_the_command_measures_every_way_on_every_film(tmp_path, capsys) -> None:
    settings = Settings("rare", "test", seed=5, duration=(60, 60), questions=12, side=64, fps=2)
    records = make_videos(tmp_path, settings, count=2)
    options = ["--records", str(records), "--num-scenes", "2", "4", "--questions", "2", "--output", str(tmp_path)]
    assert asked_events.main(options) == 0
    text = (tmp_path / "asked_events.md").read_text()
    assert text in capsys.readouterr().out
    results = json.loads((tmp_path / "asked_events.json").read_text())
    (films,) = results["sets"].values()
    assert len(films) == 2 and asked_events.markdown(results) == text
    answered = {*PLAIN, *(way.name for way in ANSWERED)}
    for film in films:
        ways = {*PLAIN, *(way.name for way in ASKINGS)}
        assert {name.rsplit(", ", 1)[0] for name in film["results"]} == ways
        for name, rows in film["results"].items():
            assert len(rows["found"]) == len(film["questions"]) == 2
            limit = int(name.rsplit(", ", 1)[1])
            assert all(1 <= taken <= limit if "min rise" in name else taken == limit for taken in rows["scenes"])
            assert len(rows["right"]) == 2 * (name.rsplit(", ", 1)[0] in answered)


def test_the_published_page_is_that_of_its_results() -> None:
    folder = Path(__file__).parent.parent.parent / "evaluation" / "results"  # which is not installed
    results = json.loads((folder / "asked_events.json").read_text(encoding="utf-8"))
    assert asked_events.markdown(results) == (folder / "asked_events.md").read_text(encoding="utf-8")


def test_a_run_that_breaks_off_leaves_the_results_before_it_as_they_are(tmp_path, capsys) -> None:
    settings = Settings("rare", "test", seed=5, duration=(60, 60), questions=12, side=32, fps=2)
    records = make_videos(tmp_path, settings, count=2)
    options = ["--num-scenes", "2", "--questions", "1", "--ways", "uniform", "--output", str(tmp_path)]
    assert asked_events.main(["--records", str(records), *options]) == 0
    before = [(tmp_path / f"asked_events.{ending}").read_bytes() for ending in ("json", "md")]
    part = tmp_path / "asked_events.part"
    assert not part.exists()
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    (tmp_path / lines[1]["video"]).write_bytes(b"no video")
    assert asked_events.main(["--records", str(records), *options]) == 2
    assert [(tmp_path / f"asked_events.{ending}").read_bytes() for ending in ("json", "md")] == before
    assert [len(films) for films in json.loads(part.read_text()).values()] == [1]


def test_records_without_such_questions_are_refused(tmp_path, capsys) -> None:
    settings = Settings("rare", "test", duration=(60, 60), questions=0, side=32, fps=1)
    records = make_videos(tmp_path, settings, count=1)
    assert asked_events.main(["--records", str(records), "--output", str(tmp_path)]) == 2
    assert "no question that names one event" in capsys.readouterr().err


def test_records_that_do_not_say_what_happens_are_refused(tmp_path, capsys) -> None:
    records = make_videos(tmp_path, Settings("rare", "test", duration=(60, 60), side=32, fps=1), count=1)
    record = json.loads(records.read_text())
    del record["events"]
    for more in ({}, {"events": [{"start": 1.0, "end": 2.0}]}):
        records.write_text(json.dumps(record | more))
        assert asked_events.main(["--records", str(records), "--output", str(tmp_path)]) == 2
        assert "does not say which `events` it shows" in capsys.readouterr().err


def test_a_scorer_is_trained_on_films_and_scores_beside_the_others(tmp_path, capsys) -> None:
    settings = Settings("rare", "train", seed=5, duration=(60, 60), questions=12, side=32, fps=2)
    records = str(make_videos(tmp_path / "films", settings, count=3))
    scorer, results = str(tmp_path / "scorer"), tmp_path / "results"
    assert train_scorer.main([records, "--output", scorer, "--steps", "2", "--batch-size", "4"]) == 0
    assert "held-out questions" in capsys.readouterr().out

    ways = ["kmeans", CONTRASTIVE[0].name]
    options = ["--records", records, "--num-scenes", "2", "--limit", "1", "--questions", "1", "--output", str(results)]
    assert asked_events.main([*options, "--scorer", scorer, "--ways", *ways]) == 0
    (films,) = json.loads((results / "asked_events.json").read_text())["sets"].values()
    assert [list(film["results"]) for film in films] == [[f"{way}, 2" for way in ways]]
    assert all(len(rows["found"]) == len(rows["right"]) == 1 for film in films for rows in film["results"].values())

    assert asked_events.main([*options, "--ways", CONTRASTIVE[0].name]) == 2
    assert "no way 'question: contrastive" in capsys.readouterr().err


def test_a_question_fits_to_the_frames_of_things_with_all_that_it_names() -> None:
    shown = [[], [{"red", "ring"}], [{"red", "star"}, {"blue", "ring"}]]
    named = [{"red"}, {"ring"}, {"red", "ring"}]
    expected = [[False, True, True], [False, True, True], [False, True, False]]
    assert train_scorer.fits(named, shown).tolist() == expected
