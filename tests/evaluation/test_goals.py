"""The table of goals: what each row counts, whether it is met, and a whole small run that is kept."""

import json
import re
from pathlib import Path

import pytest
import torch
from fila_video.evaluation import goals
from fila_video.evaluation.answering import Answerer
from fila_video.evaluation.goals import REFUSED, ROWS, SETS, answer_sets, by_kind, is_refusal, main, set_of, table
from fila_video.evaluation.results import explained
from fila_video.evaluation.tables import unpack
from helpers.tiny_processor import model_for, tiny_processor

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "evaluation" / "results"


def question(kind: str, right: bool, answer: str = "red", video: str = "a") -> dict:
    answers = {"kmeans": answer, "uniform": answer}
    given = {"id": video, "number": 0, "kind": kind, "form": "free", "expected": "red"}
    refused = {name + REFUSED: int(is_refusal(answer)) for name in answers}
    return {**given, "right": dict.fromkeys(answers, int(right)) | refused, "answers": answers}


def result(*questions: dict) -> dict:
    return {"questions": list(questions), "recall": {"kmeans": {}, "uniform": {}}}


def cells(text: str) -> dict[str, list[str]]:
    """The rows of a Markdown table by their first cell."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]
    return {row[0]: row[1:] for row in rows}


RIGHT = question("color", True)
NO_STAR = "There is no star in the video."


def made(short: dict, **sets: dict) -> dict[str, dict]:
    """Results of all sets; those that are not given are the short films'."""
    return {name: sets.get(name, short) for name in SETS}


def test_false_premises_and_true_questions_are_counted_apart() -> None:
    short = result(
        question("absent", True, NO_STAR),
        question("absent", False, "There is no ring in the video."),  # of something else, but refused
        question("elsewhere", True, "I can only talk about the shapes in this video."),
        question("absent", False, "white"),
        question("color", False, NO_STAR),
        *[RIGHT] * 8,
        question("color", False, "blue"),
        question("caption", False, NO_STAR),
    )
    rows = cells(table(made(short=short), "kmeans"))
    assert rows["false premises that are refused"][0] == "4"
    assert rows["false premises that are refused"][1].startswith("75.0 ")
    assert rows["false premises that are refused"][2:] == ["90", "no"]
    assert rows["false premises that are refused with the right words"][0] == "4"
    assert rows["false premises that are refused with the right words"][1].startswith("50.0 ")
    assert rows["true questions that are refused"][0] == "10"
    assert rows["true questions that are refused"][1].startswith("10.0 ")
    assert rows["true questions that are refused"][2:] == ["under 3", "no"]
    assert rows["short films"][1].startswith("80.0 ")  # neither captions nor false premises
    assert cells(by_kind(made(short=short), "kmeans"))["absent"][0] == "33.3 (33.3 to 33.3)"
    other = made(short=short, motion=result(RIGHT))
    assert cells(by_kind(other, "kmeans"))["absent"][-1] == "-"


def test_changes_are_those_of_the_same_questions_about_the_same_films() -> None:
    films = [question("color", True, video=name) for name in "abcd"]
    worse = [*films[:3], question("color", False, video="d")]
    films.append(question("absent", True, NO_STAR))
    rows = cells(table(made(short=result(*films), lower=result(*worse), upper=result(*films)), "kmeans"))
    assert rows["lower case, change"][1].startswith("-25.0 (") and rows["lower case, change"][-1] == "no"
    assert rows["upper case, change"][1:] == ["0.0 (0.0 to 0.0)", "-10 or better", "yes"]
    with pytest.raises(ValueError, match="asked different questions"):
        table(made(short=result(*films), lower=result(*films[:3])), "kmeans")


@pytest.mark.parametrize(
    "answer, refuses",
    [
        (NO_STAR, True),
        ("there is no red object in the video", True),
        ("There are only three objects in the video.", True),
        ("I can only talk about the shapes in this video.", True),
        ("There is a star.", False),
        ("a red star", False),
        ("", False),
    ],
)
def test_a_refusal_is_known_by_how_it_begins(answer, refuses) -> None:
    assert is_refusal(answer) is refuses


def test_sets_ask_the_same_but_for_what_they_are_about() -> None:
    settings = {name: set_of(name, "test", 7) for name in SETS}
    assert {row.name for row in ROWS} == set(SETS)
    assert settings["long"].duration == (600, 600) and settings["long"].kind == "rare"
    assert {each.seed for each in settings.values()} == {7} and {each.split for each in settings.values()} == {"test"}
    assert [name for name, each in settings.items() if each.compositions == "held-out"] == ["unseen"]
    free = ["false premises that are refused with the right words", "whether something is there", "how things move"]
    assert [row.label for row in ROWS if row.goal is None] == free


def test_a_whole_small_run_is_kept_and_another_model_needs_another_folder(tmp_path, monkeypatch, capsys) -> None:
    answerer = Answerer(model_for(tiny_processor()), tiny_processor(), num_scenes=4, max_new_tokens=4)
    sizes = {"split": "validation", "seed": 3, "films": 1, "long_films": 1, "long_seconds": 40}
    results = answer_sets(answerer, "tiny", tmp_path, **sizes)
    assert list(results) == list(SETS)
    rows = cells(table(results, answerer.processor.selection))
    assert len(rows) == len(ROWS) and rows["false premises that are refused"][0] == "4"
    assert int(rows["short films"][0]) == int(rows["lower case, change"][0]) > 4
    asked = {name: [row["expected"] for row in found["questions"]] for name, found in results.items()}
    for name in ("wordings", "lower", "upper", "boxed", "darker"):
        assert asked[name] == [
            text
            for row, text in zip(results["short"]["questions"], asked["short"], strict=True)
            if row["kind"] not in ("absent", "elsewhere")
        ]
    record = json.loads(next((tmp_path / "films").glob("lower_*/*.jsonl")).read_text())
    assert all(turn["question"].split("\n")[0].islower() for turn in record["questions"])

    monkeypatch.setattr(answerer, "answer", lambda prompts: pytest.fail("asked again"))
    assert answer_sets(answerer, "tiny", tmp_path, **sizes) == results
    trained = Answerer(model_for(tiny_processor()), tiny_processor(), num_scenes=4, max_new_tokens=4)
    with torch.no_grad():
        trained.model.get_input_embeddings().weight += 1
    with pytest.raises(ValueError, match="holds the answers of another model than tiny"):
        answer_sets(trained, "tiny", tmp_path, **sizes)

    few = Answerer(answerer.model, tiny_processor(time_marks="none"), num_scenes=2, max_new_tokens=4)
    changed = r"num_scenes: 4 there, 2 now; time_marks: 'sentence' there, 'none' now\): name another --work"
    with pytest.raises(ValueError, match=changed):
        answer_sets(few, "tiny", tmp_path, **sizes)
    for file in (tmp_path / "answers").iterdir():  # as an earlier version wrote them: taken as they are
        found = json.loads(file.read_text())
        del found["tiny"]["settings"]
        file.write_text(json.dumps(found))
    assert [each["questions"] for each in answer_sets(few, "tiny", tmp_path, **sizes).values()] == [
        each["questions"] for each in results.values()
    ]

    monkeypatch.setattr(goals, "load_answerer", lambda model, device: answerer)
    monkeypatch.setattr(goals, "answer_sets", lambda *args, **options: results)
    file = tmp_path / "out" / "goals.json"
    assert main(["--model", "tiny", "--work", str(tmp_path), "--output", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "false premises" in printed and tables_of(file) == printed


def tables_of(file: Path) -> str:
    """What the command prints, from what it keeps."""
    kept = json.loads(file.read_text())
    results = {name: unpack(packed)["model"] for name, packed in kept["sets"].items()}
    return explained(f"{table(results, kept['selection'])}\n{by_kind(results, kept['selection'])}")


def test_the_published_tables_are_those_of_the_answers_that_are_kept() -> None:
    assert (RESULTS / "goals.md").read_text().endswith("\n\n" + tables_of(RESULTS / "goals" / "seed_43.json"))
    recipe = (ROOT / "training" / "tiny" / "README.md").read_text()
    for file in (RESULTS / "goals").glob("*.json"):
        cells = re.findall(r"(?m)^\| [^|]+ \| \d+ \| ([^|]+ \([^|]+\)) \|", tables_of(file))
        assert sum(cell in recipe for cell in cells) >= 9, file


def test_a_model_that_is_not_there_is_one_line_on_standard_error(tmp_path, capsys) -> None:
    assert main(["--model", str(tmp_path / "none"), "--work", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("goals: ")
