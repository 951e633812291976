"""An encoded video's own settings in the prompt, and the pictures that a scorer gets: the same as of the video."""

import pytest
import torch
from fila_video.processing_fila_video import FilaVideoProcessor
from helpers.tiny_processor import clip, count_tokens, model_for, tiny_processor
from helpers.video_files import make_video

COOPERATIVE = {"frame_encoding": "cooperative", "scene_size": 1, "num_prototypes": 6, "key_frames": 0.5}


def prompt_of(processor: FilaVideoProcessor, video, **options) -> str:
    return processor.decode(processor(text="<video>\nWhat?", videos=[video], **options)["input_ids"][0])


def test_the_sentence_of_a_cooperative_video_names_as_many_times_as_were_set_where_it_was_encoded() -> None:
    processor, frames = tiny_processor(**COOPERATIVE), clip(24)
    fewer = processor.encode_video(frames, num_scenes=2)
    prompt = prompt_of(processor, fewer)
    assert "one in 12 at" in prompt and prompt == prompt_of(processor, frames, num_scenes=2)
    assert "one in 3 at" in prompt_of(processor, fewer, num_scenes=8)
    # Side by side, each video has its own.
    both = processor(text="<video><video>\nWhat?", videos=[fewer, processor.encode_video(frames)])
    text = processor.decode(both["input_ids"][0])
    assert text.index("one in 12 at") < text.index("one in 6 at")


@pytest.mark.parametrize("marks", [{"time_marks": "per_scene"}, {"visual_start": "<b>"}, {"visual_end": "<e>"}])
def test_marks_of_scenes_that_only_the_model_knows_are_refused_before_a_video_is_read(marks) -> None:
    processor, read = tiny_processor(**COOPERATIVE), []
    for name, value in marks.items():
        setattr(processor, name, value)
    with pytest.raises(ValueError, match="only the model knows which tokens are of which frame"):
        processor(text="<video>\nWhat?", videos=[clip(24)], progress=lambda *done: read.append(done))
    assert not read
    assert processor(text="What?", images=None)["input_ids"]  # of a prompt without a video, nothing is refused


def test_a_call_that_sets_what_a_model_would_fix_gets_the_tokens_of_its_frames() -> None:
    processor, frames = tiny_processor(), clip(24)
    for options in ({"background_tokens": 1}, COOPERATIVE):
        inputs = processor(text="<video>\nWhat?", videos=[frames], **options, return_tensors="pt")
        own = tiny_processor(**options)
        expected = count_tokens(
            own, own(text="<video>\nWhat?", videos=[frames], return_tensors="pt"), own.video_token_id
        )
        assert count_tokens(processor, inputs, processor.video_token_id) == expected


def test_an_encoded_video_whose_settings_a_model_would_fix_is_refused_by_a_processor_with_others() -> None:
    processor = tiny_processor()
    encoded = processor.encode_video(clip(24), background_tokens=1)
    with pytest.raises(ValueError, match="was encoded with `background_tokens` 1, but is asked with 0"):
        processor(text="<video>\nWhat?", videos=[encoded])
    assert "video_background_places" in processor(text="<video>\nWhat?", videos=[encoded], background_tokens=1)


@pytest.mark.parametrize("settings", [{}, {"max_feature_bytes": 1}, {"encoded_candidates": 14}])
def test_a_scorer_sees_the_same_pictures_in_the_shape_of_the_video_whatever_its_form(folder, settings) -> None:
    wide = make_video(folder / "wide.mp4", 60, width=96, height=48)
    processor, seen = tiny_processor(), []
    model = model_for(processor)
    processor.bind(model).question_scorer = lambda frames, question: seen.append(frames) or torch.arange(len(frames))
    unbound = tiny_processor().encode_video(wide)
    for video in (wide, processor.encode_video(wide, **settings), unbound):
        asked = {} if video is unbound else settings
        asked = {name: value for name, value in asked.items() if video is wide or name != "encoded_candidates"}
        processor(text="<video>\nWhat?", videos=[video], selection="question", num_scenes=2, **asked)
    first, encoded, read = seen
    assert first.shape[1:] == (3, 10, 20) and first.dtype == torch.uint8
    assert torch.equal(first, encoded)
    assert "encoded_candidates" in settings or torch.equal(first, read)
