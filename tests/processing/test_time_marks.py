"""Marks of time before each scene: in prompts, saved settings, training and servers' counts."""

import json
import re

import numpy as np
import pytest
import torch
from fila_video.processing_fila_video import FilaVideoProcessor
from fila_video.training.chat_collator import ChatCollator
from fila_video.video_prompt_fila_video import VideoPrompt, VideoTokens, in_words
from helpers.tiny_processor import clip, conversation, model_for, tiny_processor
from num2words import num2words
from PIL import Image

PER_SCENE = {"time_marks": "per_scene"}
METADATA = {"total_num_frames": 6, "fps": 0.5}  # at 0, 2, 4, 6, 8, 10 seconds


def text_of(processor, num_frames: int = 6, **options) -> str:
    """The prompt, each run of placeholders as their number."""
    options = {"num_scenes": 2, "video_metadata": METADATA} | options
    inputs = processor(text="<video>\nWhat?", videos=clip(num_frames), **options)
    text = processor.decode(inputs["input_ids"][0])
    return re.sub("(?:<video>)+", lambda run: f"[{run[0].count('<video>')}]", text)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "Frame from 00:04:[9]\nFrame from 00:10:[10]"),
        ({"scene_time": "span"}, "Frame from 00:00-00:04:[9]\nFrame from 00:06-00:10:[10]"),
        ({"time_template": "<{seconds:.1f} seconds>"}, "<4.0 seconds>[9]<10.0 seconds>[10]"),
        (
            {"time_template": "<{seconds:.1f} seconds>", "scene_time": "span"},
            "<0.0-4.0 seconds>[9]<6.0-10.0 seconds>[10]",
        ),
        ({"time_template": "\nFrame{number}: "}, "Frame1: [9]\nFrame2: [10]"),
    ],
)
def test_a_mark_stands_before_the_tokens_of_each_scene(processor, settings, expected) -> None:
    assert text_of(processor, **PER_SCENE, **settings) == f"{expected}\nWhat?"


def test_a_scene_of_one_frame_spans_one_time_and_minutes_go_beyond_an_hour(processor) -> None:
    options = {"scene_time": "span", "scene_size": 1, "time_marks": "per_scene"}
    inputs = processor(text="<video>", videos=clip(1), video_metadata={"total_num_frames": 1, "fps": 1}, **options)
    assert processor.decode(inputs["input_ids"][0]).startswith("Frame from 00:00:<video>")
    scenes = {"timestamps": torch.tensor([[4525.9]]), "duration": 5000.0}
    assert VideoPrompt("per_scene").text("■", VideoTokens([2], [0], 0), scenes) == "Frame from 75:25:■■"


def test_text_around_scenes_videos_and_images_is_said_once_and_saved(tmp_path) -> None:
    processor = tiny_processor(time_marks="per_scene")
    processor.visual_start, processor.visual_end, processor.video_outro = "(", ")", "\n\n"
    processor.video_intro = "{count} ({count_in_words}) of {clock}, {seconds:.2f}.\n"
    processor.save_pretrained(tmp_path)
    for each in (processor, FilaVideoProcessor.from_pretrained(tmp_path)):
        expected = "2 (two) of 0:00:12, 12.00.\n\nFrame from 00:04:([9])\nFrame from 00:10:([9])[1]\n\n\nWhat?"
        assert text_of(each) == expected
        image = each(text="<image>!", images=Image.new("RGB", (20, 20)))
        assert each.decode(image["input_ids"][0]) == f"({'<image>' * 10})!"
        # Nothing of it is a setting of one call.
        assert text_of(each, time_marks="none").startswith("2 (two) of 0:00:12, 12.00.\n([9])([9])[1]")
    assert (tmp_path / "processor_config.json").read_text().count("{count_in_words}") == 1


def test_what_was_saved_before_marks_a_scene_existed_still_says_the_same(processor, tmp_path) -> None:
    processor.save_pretrained(tmp_path)
    path = tmp_path / "processor_config.json"
    settings = json.loads(path.read_text())
    for name in ("visual_start", "visual_end", "video_intro", "video_outro"):
        del settings[name]
    for name in ("time_template", "scene_time"):
        settings["video_processor"].pop(name, None)
    path.write_text(json.dumps(settings))
    assert text_of(FilaVideoProcessor.from_pretrained(tmp_path)) == text_of(processor)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"time_template": "A frame:"}, r"`time_template` \('A frame:'\) lacks the mark: it must name one of"),
        ({"time_template": "{second}"}, r"names \{second\}, but it can name only \{timestamp\}, \{seconds\}, \{numb"),
        ({"time_template": "{}"}, r"names \{\}, but it can name only"),
        ({"time_template": "{seconds.real}"}, r"names \{seconds.real\}"),
        ({"time_template": "{seconds:.2q}"}, r"`time_template` \('\{seconds:.2q\}'\) is no template: "),
        ({"time_template": "{seconds!r}"}, "is no template: a field takes a format after a colon, and no conversion"),
        ({"time_template": "{seconds"}, "is no template"),
        (
            {"time_template": "{seconds:20000000000}"},
            r"the format `20000000000` of \{seconds\} may have numbers up to 20",
        ),
        ({"time_template": "{timestamp:>21}"}, r"the format `>21` of \{timestamp\} may have numbers up to 20"),
        ({"time_template": "{seconds:.400f}"}, r"the format `.400f` of \{seconds\} may have numbers up to 20"),
        ({"time_template": "{number:{number}}"}, r"of \{number\} may have .* and no fields"),
        ({"time_template": "<video>{number}"}, "'<video>' stands for a video's embeddings"),
        ({"scene_time": "middle"}, "`scene_time` must be one of representative, span, got 'middle'"),
    ],
)
def test_templates_that_cannot_be_filled_in_are_refused(processor, settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        text_of(processor, **PER_SCENE, **settings)


def test_the_model_reads_as_many_tokens_as_stand_between_the_marks(processor) -> None:
    model = model_for(processor)
    options = {"scene_size": 3, "return_tensors": "pt", **PER_SCENE}
    inputs = processor(
        text=["<video>A", "<video><video>B"], videos=[clip(12), clip(3), clip(9)], padding=True, **options
    )
    with torch.no_grad():
        logits = model(**inputs).logits
        other = processor(text="<video>A", videos=[clip(12)], **options)
        alone = model(**other).logits
    assert torch.allclose(logits[0, -alone.shape[1] :], alone[0], atol=1e-4)
    # Where a mark stands matters: moved behind the scenes, it is another prompt.
    swapped = other["input_ids"].flip(1)
    assert not torch.allclose(model(**{**other, "input_ids": swapped}).logits[0, -1], alone[0, -1], atol=1e-3)


def test_training_learns_the_answer_alone(processor) -> None:
    marked = tiny_processor(time_marks="per_scene")
    messages = conversation(clip(6), "When?", answer="At four.")
    batch = ChatCollator(marked, scene_size=3)([{"messages": messages}])
    learned = batch["labels"][0] >= 0
    assert "At four." in marked.decode(batch["labels"][0][learned])
    assert "Frame from" in marked.decode(batch["input_ids"][0][~learned])
    assert "Frame from" not in marked.decode(batch["labels"][0][learned])


def test_a_server_gets_fewer_marks_where_another_token_would_be_as_frequent_as_the_placeholder(processor) -> None:
    small = tiny_processor(time_marks="per_scene", num_scenes=12, scene_size=1)
    small.patches_per_side, small.pooling_mode = 1, "none"
    options = {"text": "<video>What?", "videos": np.asarray(clip(12))}
    plain = small.decode(small(**options)["input_ids"][0])
    served = small(**options, return_text_replacement_offsets=True)
    (offset,) = served["text_replacement_offsets"][0]
    ids = small.tokenizer(offset["replacement"])["input_ids"]
    assert int(torch.tensor(ids).mode().values) == small.video_token_id and ids.count(small.video_token_id) == 13
    assert plain.count("Frame from") == 12 > offset["replacement"].count("Frame from") > 0


def test_numbers_are_spelled_as_num2words_does() -> None:
    numbers = [*range(2100), *range(2100, 1_000_000, 9973), 999_999]
    assert [in_words(number) for number in numbers] == [num2words(number) for number in numbers]
    with pytest.raises(ValueError, match="Only 0 to 999,999 can be spelled, got 1000000"):
        in_words(1_000_000)
