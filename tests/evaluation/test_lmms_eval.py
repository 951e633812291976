"""FiLA-Video under lmms-eval, on local tasks; skipped where lmms-eval is not installed."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers.video_files import make_video
from PIL import Image

pytest.importorskip("lmms_eval")

ROOT = Path(__file__).resolve().parent.parent.parent
SHAPES = ROOT / "examples" / "shapes.mp4"
QUESTION = "Which object appears right after the white star?"
UTILS = """
from PIL import Image


def of(item):
    return Image.open(item["image"]) if item.get("image") else item.get("clip") or item["video"]


def visuals(doc):
    return [of(item) for item in doc["media"]]


def text(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]


def target(doc):
    return doc["answer"]


def score(doc, results):
    return {"right": float(results[0].strip() == doc["answer"]), "given": results[0]}


def messages(doc, lmms_eval_specific_kwargs=None, round_idx=None, previous_output=None, previous_round_info=None):
    content = [{"type": "video", "url": doc["media"][0]["video"]}] if round_idx is None else []
    asked = doc["question"] if round_idx is None else f"You said {previous_output[-1]}. " + doc["question"]
    turn = [{"role": "user", "content": [*content, {"type": "text", "text": asked}]}]
    return turn if round_idx is None else (turn, round_idx >= 2, previous_output, None)


def score_rounds(doc, results):
    return {"rounds": float(len(results[0]))}


def choices(doc):
    return doc["choices"]


def right_choice(doc):
    return doc["choices"].index(doc["answer"])


def mean(items):
    return sum(items) / len(items)
"""
PLUGIN = """
import sys
from lmms_eval.models import MODEL_REGISTRY_V2
from fila_video.evaluation.lmms_eval_model import manifest
MODEL_REGISTRY_V2.register_manifest(manifest(), overwrite=True)  # the entry point of a checkout not installed
sys.argv[0] = "lmms_eval"
from lmms_eval.__main__ import cli_evaluate
cli_evaluate()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three tasks, each with its records, and utilities that they share."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "utils.py").write_text(UTILS)
    broken = folder / "broken.mp4"
    broken.write_bytes(b"no video at all")
    frames = folder / "frames"
    frames.mkdir()
    for number in range(4):
        Image.new("RGB", (64, 64), (60 * number, 0, 0)).save(frames / f"{number:05d}.png")
    clip = {"url": str(make_video(folder / "film.mp4", 100)), "video_start": 1.0, "video_end": 3.0}
    rows = [
        {"media": [{"video": str(SHAPES)}], "question": QUESTION, "answer": "a green ring"},
        {"media": [{"video": str(broken)}], "question": QUESTION, "answer": "unreadable"},
        {"media": [{"video": str(SHAPES)}], "question": "Which object appears first?", "answer": "?"},
        {"media": [{"video": str(frames)}], "question": "What is shown?", "answer": "?"},
        {"media": [{"clip": clip}], "question": "What is shown?", "answer": "?"},
        {
            "media": [{"image": str(frames / "00000.png")}, {"image": str(frames / "00003.png")}],
            "question": "First <image> and then <image> what is shown?",
            "answer": "?",
        },
        {"media": [{"video": str(SHAPES)}], "question": "A word <image> of the text?", "answer": "?"},
    ]
    common = {
        "dataset_path": "json",
        "test_split": "test",
        "doc_to_visual": "!function utils.visuals",
        "doc_to_text": "!function utils.text",
        "doc_to_target": "!function utils.target",
    }
    generation = {"max_new_tokens": 8, "temperature": 0, "until": ["\n\n"], "image_aspect_ratio": "pad"}
    tasks = {
        "fila_answers": (
            rows,
            {
                "output_type": "generate_until",
                "process_results": "!function utils.score",
                "generation_kwargs": generation,
                "metric_list": [{"metric": "right", "aggregation": "!function utils.mean", "higher_is_better": True}],
            },
        ),
        "fila_rounds": (
            rows[:1],
            {
                "output_type": "generate_until_multi_round",
                "doc_to_messages": "!function utils.messages",
                "process_results": "!function utils.score_rounds",
                "generation_kwargs": generation,
                "metric_list": [{"metric": "rounds", "aggregation": "!function utils.mean", "higher_is_better": True}],
            },
        ),
        "fila_choices": (
            [{**row, "choices": ["a tram on a bridge", "a green ring", "a red cross"]} for row in rows[:1]],
            {
                "output_type": "multiple_choice",
                "doc_to_choice": "!function utils.choices",
                "doc_to_target": "!function utils.right_choice",
                "target_delimiter": "",
                "metric_list": [{"metric": "acc", "aggregation": "!function utils.mean", "higher_is_better": True}],
            },
        ),
    }
    for name, (records, settings) in tasks.items():
        data = folder / f"{name}.json"
        data.write_text(json.dumps([{"media": json.loads(json.dumps(row["media"])), **row} for row in records]))
        task = {"task": name, "dataset_kwargs": {"data_files": {"test": str(data)}}, **common, **settings}
        written = yaml.safe_dump(task, sort_keys=False)
        # A function is a tag of YAML, not a text.
        (folder / f"{name}.yaml").write_text(re.sub(r"'(!function [\w.]+)'", r"\1", written))
    return folder


def run(folder: Path, output: Path, tasks: str, *options: str) -> tuple[dict, list[dict], str]:
    """The results, the samples and what was logged of one run of lmms-eval in a process of its own."""
    command = [sys.executable, "-c", PLUGIN, "--model", "fila_video"]
    command += ["--model_args", f"pretrained={ROOT},num_scenes=16", "--device", "cpu", "--batch_size", "2"]
    command += ["--include_path", str(folder), "--tasks", tasks, "--log_samples", "--output_path", str(output)]
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(output / "cache"),
        "HF_HOME": str(output / "home"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-4000:]
    results = json.loads(next(output.rglob("*_results.json")).read_text())["results"]
    lines = next(output.rglob("*samples*.jsonl")).read_text().splitlines()
    return results, [json.loads(line) for line in lines], done.stdout + done.stderr


@pytest.mark.slow
def test_answers_come_in_their_order_and_what_cannot_be_read_is_an_empty_one(folder, tmp_path) -> None:
    results, samples, logged = run(folder, tmp_path, "fila_answers")
    answers = [sample["filtered_resps"] for sample in sorted(samples, key=lambda sample: sample["doc_id"])]
    assert len(answers) == 7 and answers[0] == "a green ring"
    assert answers[1] == "" and "broken.mp4" in logged
    assert all(answers[number] for number in (2, 3, 4, 5, 6))
    assert results["fila_answers"]["right,none"] == pytest.approx(1 / 7)


@pytest.mark.slow
def test_several_rounds_are_asked_until_the_task_says_that_it_is_over(folder, tmp_path) -> None:
    results, _, _ = run(folder, tmp_path, "fila_rounds")
    assert results["fila_rounds"]["rounds,none"] == 2


@pytest.mark.slow
def test_the_likeliest_of_several_choices_is_taken_where_a_task_compares_them(folder, tmp_path) -> None:
    results, samples, _ = run(folder, tmp_path, "fila_choices", "--force_simple")
    assert results["fila_choices"]["acc,none"] == 1
    losses = [float(loss) for loss, _ in samples[0]["filtered_resps"]]
    assert min(losses) == losses[1]


@pytest.mark.slow
def test_the_likelier_continuation_has_the_smaller_loss_and_is_what_is_generated() -> None:
    from fila_video.evaluation.lmms_eval_model import FilaVideoSimple
    from lmms_eval.api.instance import Instance

    model = FilaVideoSimple(str(ROOT), device="cpu", num_scenes=16)
    model.task_dict = {"task": {"test": [str(SHAPES), str(SHAPES.with_name("missing.mp4"))]}}
    metadata = {"task": "task", "doc_id": 0, "repeats": 1}

    def request(continuation: str, doc: int = 0) -> Instance:
        arguments = (QUESTION, continuation, lambda video: [video], doc, "task", "test")
        return Instance("loglikelihood", arguments, 0, metadata)

    found = model.loglikelihood(
        [request("a green ring"), request("a tram on a bridge"), request("a green ring", doc=1)]
    )
    right, wrong, unreadable = (result.text for result in found)
    assert right[0] < wrong[0] and right[1] and not wrong[1]
    assert unreadable == (float("inf"), False)


@pytest.mark.parametrize("make", [lambda: [Image.new("RGB", (8, 8))] * 2, lambda: np.zeros((40, 64, 64, 3), np.uint8)])
def test_frames_are_not_taken_for_those_of_a_question_before(make, monkeypatch) -> None:
    """Their texts are alike, and what is no longer held leaves its place in memory to the next."""
    from fila_video.evaluation.lmms_eval_model import FilaVideo

    def ask(frames) -> object:
        return model._with_encoded([{"role": "user", "content": [{"type": "video", "video": frames}]}])

    model, encoded = object.__new__(FilaVideo), []
    model._encoded = {}
    monkeypatch.setattr(FilaVideo, "_encode", lambda self, block: encoded.append(1) or len(encoded))
    for number in range(1, 6):
        assert ask(make())[0]["content"][0]["video"] == number
    frames = make()
    assert ask(frames) == ask(frames) and len(encoded) == 6
    assert ask("film.mp4") == ask("film.mp4") != ask("other.mp4")


def test_the_entry_point_names_the_plugin() -> None:
    text = (ROOT / "setup.cfg").read_text()
    (value,) = re.findall(r"lmms_eval\.models =\n    fila_video = (\S+)", text)
    found = importlib.metadata.EntryPoint("fila_video", value, "lmms_eval.models").load()()
    assert found.model_id == "fila_video"
    assert found.chat_class_path.startswith("fila_video.evaluation.lmms_eval_model.")
