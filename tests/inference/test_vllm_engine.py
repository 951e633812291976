"""Questions in vLLM's own engine; skipped where vLLM is not installed."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from fila_video.inference.questions import WorkList
from fila_video.inference.workers import VllmWorker
from helpers.answer_runs import write_records
from transformers import GenerationConfig

ROOT = Path(__file__).resolve().parent.parent.parent
SHAPES = ROOT / "examples" / "shapes.mp4"


class Llm:
    """Answers each chat with the URL of its video."""

    def __init__(self, *args, **settings):
        pass

    def chat(self, chats, *args, **settings):
        urls = [chat[0]["content"][0]["video_url"]["url"] for chat in chats]
        return [SimpleNamespace(outputs=[SimpleNamespace(text=url)]) for url in urls]


def test_what_vllm_cannot_be_asked_is_a_row_and_its_neighbors_are_answered(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=Llm, SamplingParams=SimpleNamespace))
    records = write_records(
        tmp_path,
        {"id": "bad", "video": "a.mp4", "question": ""},
        {"id": "good", "video": "a.mp4", "question": "What?"},
        {"id": "zero", "video": "a\0.mp4", "question": "What?"},
        {"id": "latin", "video": "caf\udce9.mp4", "question": "What?"},
        {"id": "last", "video": "https://host/b.mp4", "question": "What?"},
    )
    rows = {row.id: row for row in VllmWorker("model", {"max_new_tokens": 4})(list(WorkList(records)))}
    assert {name for name, row in rows.items() if row.error is not None} == {"bad", "zero"}
    assert "null byte" in rows["zero"].error
    folder = tmp_path.resolve().as_uri()
    urls = {"good": f"{folder}/a.mp4", "latin": f"{folder}/caf%E9.mp4", "last": "https://host/b.mp4"}
    assert {name: rows[name].answer for name in urls} == urls


def test_the_length_of_an_answer_is_that_of_a_model_with_a_name_of_the_hub(monkeypatch) -> None:
    given = []
    sampling = lambda **settings: given.append(settings["max_tokens"])  # noqa: E731
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=Llm, SamplingParams=sampling))
    hub = {"organization/model": GenerationConfig(max_new_tokens=77)}
    load = GenerationConfig.from_pretrained
    monkeypatch.setattr(GenerationConfig, "from_pretrained", lambda name: hub[name] if name in hub else load(name))
    for model, options in (
        ("organization/model", {}),
        (str(ROOT), {}),
        ("organization/model", {"max_new_tokens": 4.0}),
    ):
        VllmWorker(model, options)
    assert given == [77, GenerationConfig.from_pretrained(ROOT).max_new_tokens, 4]
    assert type(given[-1]) is int
    VllmWorker("organization/without", {})
    assert given[-1] is None


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM runs in an environment of its own")
def test_vllm_answers_what_it_can_read_and_the_rest_are_rows_with_their_errors(tmp_path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video" * 100)
    records = [
        {"id": "ring", "video": str(SHAPES)},
        {"id": "broken", "video": str(broken)},
        {"id": "clip", "video": str(SHAPES), "video_start": 1.0, "video_end": 4.0},
    ]
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    command = [sys.executable, "-m", "fila_video.commands.cli", "answer-all", "--engine", "vllm", "--model", str(ROOT)]
    command += ["--records", str(tmp_path / "records.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    command += ["--question", "Which object appears right after the white star?", "--max-new-tokens", "8"]
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        # Of the engine on a CPU: time to start, and a cache of one GiB.
        "VLLM_ENGINE_READY_TIMEOUT_S": "3000",
        "VLLM_CPU_KVCACHE_SPACE": "1",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 3, done.stderr[-4000:]
    rows = {row["id"]: row for row in map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())}
    assert rows.keys() == {"ring", "broken", "clip"}
    assert rows["ring"]["answer"].strip() == "a green ring" and not rows["ring"].get("error")
    assert rows["broken"]["error"] and "video_start" in rows["clip"]["error"]
