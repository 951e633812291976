"""What a run that goes on tells apart, and what it reads for every video."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fila_video.inference.output import pipeline_settings
from fila_video.pipeline_fila_video import VideoTextToTextPipeline
from helpers.answer_runs import answer, rows_of, write_records
from helpers.tiny_processor import tiny_pipeline

TWO = ({"id": "a", "video": "0.mp4"}, {"id": "b", "video": "1.mp4"})
SRT = "1\n00:00:00,100 --> 00:00:00,900\nHello there\n"


def other_scenes(pipe: VideoTextToTextPipeline) -> VideoTextToTextPipeline:
    pipe.processor.num_scenes = 2
    return pipe


def other_dtype(pipe: VideoTextToTextPipeline) -> VideoTextToTextPipeline:
    pipe.model.to(torch.bfloat16)
    return pipe


def other_scorer(pipe: VideoTextToTextPipeline) -> VideoTextToTextPipeline:
    pipe.processor.question_scorer = lambda frames, question: torch.zeros(len(frames))
    return pipe


def other_config(pipe: VideoTextToTextPipeline) -> VideoTextToTextPipeline:
    pipe.model.config.layer_compression = "cosine"
    return pipe


def other_generation(pipe: VideoTextToTextPipeline) -> VideoTextToTextPipeline:
    pipe.model.generation_config.no_repeat_ngram_size = 3
    return pipe


def other_template(pipe: VideoTextToTextPipeline) -> VideoTextToTextPipeline:
    pipe.processor.chat_template += " "
    return pipe


def own_reading(pipe: VideoTextToTextPipeline) -> VideoTextToTextPipeline:
    return VideoTextToTextPipeline(pipe.model, processor=pipe.processor, device="cpu", num_scenes=2)


def own_generation(pipe: VideoTextToTextPipeline) -> VideoTextToTextPipeline:
    return VideoTextToTextPipeline(pipe.model, processor=pipe.processor, device="cpu", no_repeat_ngram_size=3)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (other_scenes, r"processor: \(video_processor: \(num_scenes: 4 there, 2 now\)\)"),
        (other_dtype, "dtype: torch.float32 there, torch.bfloat16 now"),
        (other_scorer, "guests: .*question_scorer"),
        (other_config, "config: "),
        (other_generation, "pipeline: .*no_repeat_ngram_size"),
        (other_template, "processor: .*chat_template"),
        (own_reading, "pipeline: .*reading: .*num_scenes"),
        (own_generation, "pipeline: .*generation: .*no_repeat_ngram_size"),
    ],
)
def test_a_pipeline_that_would_answer_otherwise_does_not_go_on(videos, tmp_path, change, named) -> None:
    pipe, output = tiny_pipeline(), tmp_path / "out.jsonl"
    answer(pipe, write_records(videos, TWO[0], name="some.jsonl"), output)
    before = output.read_bytes()
    records = write_records(videos, *TWO, name="some.jsonl")
    with pytest.raises(ValueError, match=f"other settings .*{named}"):
        answer(change(pipe), records, output)
    assert output.read_bytes() == before


def test_a_pipeline_that_was_saved_meanwhile_goes_on(tmp_path) -> None:
    pipe = tiny_pipeline()
    before = pipeline_settings(pipe)
    pipe.save_pretrained(tmp_path / "saved")
    assert pipeline_settings(pipe) == before


def test_the_same_pipeline_goes_on_in_another_process(videos, tmp_path) -> None:
    program = (
        "import json\n"
        "from fila_video.inference.output import pipeline_settings\n"
        "from helpers.tiny_processor import tiny_pipeline\n"
        "print(json.dumps(pipeline_settings(tiny_pipeline())))\n"
    )
    folder = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == pipeline_settings(tiny_pipeline())


@pytest.mark.parametrize("where", ["call", "processor_kwargs"])
def test_one_file_of_subtitles_is_not_read_for_several_videos(videos, pipe, tmp_path, where) -> None:
    words, output = tmp_path / "words.srt", tmp_path / "out.jsonl"
    words.write_text(SRT)
    options = {"subtitles": str(words)}
    options = {where: options} if where == "processor_kwargs" else options
    with pytest.raises(
        ValueError, match=r"`subtitles` is a file, so of one video, .*0\.mp4 and .*1\.mp4: put it into"
    ):
        answer(pipe, write_records(videos, *TWO, name="many.jsonl"), output, **options)
    assert not output.exists()
    # Clips of one video, and a video with subtitles of its own, beside it.
    clips = [{"id": f"{start}", "video": "0.mp4", "video_start": start} for start in (0.0, 0.5)]
    records = write_records(videos, *clips, {**TWO[1], "subtitles": str(words)}, name="one.jsonl")
    assert answer(pipe, records, output, **options).failed == 0
    assert set(rows_of(output)) == {"0.0", "0.5", "b"}
