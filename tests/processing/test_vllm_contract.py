"""What vLLM's transformers backend asks of the processor, by the rules of its code, without vLLM."""

import copy
from collections import Counter

import numpy as np
import pytest
import torch
from fila_video.processing_fila_video import FilaVideoProcessor
from fila_video.video_prompt_fila_video import VideoPrompt, VideoTokens
from helpers.tiny_processor import clip, model_for
from PIL import Image

LENGTHS = [1, 2, 3, 4, 5, 8, 16, 31, 32, 33, 64, 100, 256, 512]


def with_tokens_per_scene(processor, side: int, newline: str, time_marks: str = "sentence") -> FilaVideoProcessor:
    """For a model whose scenes have `side` x `side` tokens."""
    other = copy.deepcopy(processor)
    other.patches_per_side, other.pooling_mode = side, "none"
    other.newline_position, other.time_marks = newline, time_marks
    return other


def scenes_of(num_scenes: int, duration: float) -> dict:
    times = torch.linspace(0, duration, num_scenes, dtype=torch.float64)[:, None]
    return {"indices": torch.arange(num_scenes)[:, None], "timestamps": times, "duration": duration}


def placeholder(processor, replacement: str) -> int:
    """The token that a server takes for a video's embeddings: the most frequent, of equals the smallest."""
    return int(torch.tensor(processor.tokenizer(replacement)["input_ids"]).mode().values)


@pytest.mark.parametrize("time_marks", ["sentence", "llava_video", "per_scene", "none"])
@pytest.mark.parametrize("newline", ["video", "grid", "frame", "none"])
@pytest.mark.parametrize("side", [1, 2, 3, 4, 14])
def test_the_placeholder_is_the_most_frequent_token_of_every_video(processor, side, newline, time_marks) -> None:
    other = with_tokens_per_scene(processor, side, newline, time_marks)
    for num_scenes in LENGTHS if side < 14 else LENGTHS[:8]:
        for duration in (1.0, 600.0, 11111.1):
            inputs = {"scenes": [scenes_of(num_scenes, duration)]}
            text = other.replace_video_token(inputs, 0, thin_times=True)
            assert placeholder(other, text) == other.video_token_id
            assert text.count(other.video_token) == other._counter().of_scenes(num_scenes)
            full = other.replace_video_token(inputs, 0)
            counts = Counter(other.tokenizer(full)["input_ids"])
            own = counts.pop(other.video_token_id)
            if max(counts.values(), default=0) < own:
                assert text == full  # nothing is thinned that need not be


# One token a scene is the case that thinning is for; the more there are, the less a sentence can outnumber them.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "time_marks"), [(1, "sentence"), (1, "llava_video"), (1, "per_scene"), (2, "per_scene"), (14, "sentence")]
)
def test_the_placeholder_is_the_mode_for_every_number_of_scenes(processor, side, time_marks) -> None:
    other = with_tokens_per_scene(processor, side, "video", time_marks)
    token = other.video_token
    for num_scenes in range(1, 513):
        # How many digits the times have, and so how long the sentence is.
        duration = (1.0, 600.0, 11111.1)[num_scenes % 3]
        text = other.replace_video_token({"scenes": [scenes_of(num_scenes, duration)]}, 0, thin_times=True)
        own = text.count(token)
        assert own == other._counter().of_scenes(num_scenes) == num_scenes * side * side + 1
        # The placeholder is a token of its own, so the text between is tokenized as if it stood alone.
        pieces = [piece for piece in text.split(token) if piece]
        counts = Counter(id for ids in other.tokenizer(pieces)["input_ids"] for id in ids) if pieces else {}
        assert all(count < own for count in counts.values()), (num_scenes, duration, text)


def test_a_time_is_left_out_where_a_token_of_its_sentence_is_as_frequent_as_the_placeholder(processor) -> None:
    tokenizer, prompt, scenes = processor.tokenizer, VideoPrompt(), scenes_of(8, 60.0)

    def text(num_tokens: int, *thinned: object) -> str:
        return prompt.text("<video>", VideoTokens([num_tokens] + [0] * 7, [0] * 8, 0), scenes, *thinned)

    whole = text(0)
    most = max(Counter(tokenizer(whole, add_special_tokens=False)["input_ids"]).values())
    assert whole not in text(most, 1, tokenizer) and whole in text(most + 1, 1, tokenizer)


def test_only_a_request_for_offsets_thins_the_sentence(processor) -> None:
    other = with_tokens_per_scene(processor, 1, "video")
    options = {"text": "<video>What?", "videos": clip(12), "num_scenes": 12, "scene_size": 1}
    plain = other(**options)
    served = other(**options, return_text_replacement_offsets=True)
    (offset,) = served["text_replacement_offsets"][0]
    assert placeholder(other, offset["replacement"]) == other.video_token_id
    assert "12 frames of a 12.0-second video, one in 2 at 0.0, 2.0, 4.0" in offset["replacement"]
    assert "12 frames of a 12.0-second video at 0.0, 1.0, 2.0" in other.decode(plain["input_ids"][0])
    whole = other(**options, return_text_replacement_offsets=True, thin_times=False)
    assert whole["input_ids"] == plain["input_ids"]
    chat = [
        {"role": "user", "content": [{"type": "video", "video": clip(12)}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A dog."}]},
    ]
    sizes = {"num_scenes": 12, "scene_size": 1}
    for options in ({"processor_kwargs": sizes}, sizes):
        settings = {"tokenize": True, "return_dict": True, **options}
        masked = other.apply_chat_template(chat, **settings, return_assistant_tokens_mask=True)
        assert masked["input_ids"] == other.apply_chat_template(chat, **settings)["input_ids"]


def test_a_server_is_told_to_pass_metadata_on_and_they_name_the_times(processor) -> None:
    assert processor.video_processor.do_sample_frames is True
    # As a server passes the 8 frames that its loader took of a video of 600 seconds: to be taken as they are.
    metadata = {
        "fps": 25.0,
        "duration": 600.0,
        "total_num_frames": 15000,
        "frames_indices": np.linspace(0, 14999, 8, dtype=int).tolist(),
        "video_backend": "opencv",
    }
    for options in ({"do_sample_frames": False}, {}):
        inputs = processor(
            text="<video>", videos=[clip(8)], video_metadata=[metadata], num_scenes=8, scene_size=1, **options
        )
        text = processor.decode(inputs["input_ids"][0])
        assert "8 frames of a 600.0-second video at 0.0, 85.7, 171.4, 257.1, 342.8, 428.5, 514.2, 600.0" in text


def test_metadata_without_a_rate_as_servers_invent_them_are_taken(processor) -> None:
    metadata = {"fps": None, "duration": None, "total_num_frames": 4, "frames_indices": [0, 1, 2, 3]}
    inputs = processor(
        text="<video>", videos=[clip(4)], video_metadata=[metadata], do_sample_frames=False, scene_size=1
    )
    assert "4 frames of a 4.0-second video at 0.0, 1.0, 2.0, 3.0" in processor.decode(inputs["input_ids"][0])


def test_every_output_belongs_to_one_modality(processor) -> None:
    inputs = processor(
        text="<image><video><video>", images=Image.new("RGB", (9, 9)), videos=[clip(3), clip(9)], return_tensors="pt"
    )
    owned = {*processor.image_processor.model_input_names, *processor.video_processor.model_input_names}
    assert set(inputs) - {"input_ids", "attention_mask"} <= owned
    assert not set(processor.image_processor.model_input_names) & set(processor.video_processor.model_input_names)
    # One row a video.
    assert all(len(inputs[name]) == 2 for name in ("pixel_values_videos", "video_num_scenes"))


def test_the_tokens_counted_beforehand_are_those_of_the_prompt_and_the_model(processor) -> None:
    model = model_for(processor)
    for num_frames in (1, 2, 3, 4, 5, 12, 13, 24, 25, 100, 512):
        video = clip(num_frames, shape=(20, 20, 3))
        (count,) = processor._get_num_multimodal_tokens(video_sizes=[(num_frames, 20, 20)])["num_video_tokens"]
        inputs = processor(text="<video>", videos=video, return_tensors="pt")
        assert int((inputs["input_ids"] == processor.video_token_id).sum()) == count
        with torch.no_grad():
            features = model.get_video_features(
                pixel_values_videos=inputs["pixel_values_videos"],
                video_num_scenes=inputs["video_num_scenes"],
                return_dict=True,
            )
        assert [len(embeddings) for embeddings in features.pooler_output] == [count]


@pytest.mark.parametrize("num_scenes", [1, 7, 450])  # the context holds no more
def test_the_tokens_counted_beforehand_are_the_prompts_for_every_number_of_frames(processor, num_scenes) -> None:
    # `uniform` takes as many scenes as any other selection, and needs no clustering.
    options = {"num_scenes": num_scenes, "scene_size": 1, "selection": "uniform", "time_marks": "none"}
    frames, lengths = clip(512, shape=(2, 2, 3)), range(1, 513)
    counts = processor._get_num_multimodal_tokens(
        video_sizes=[(length, 2, 2) for length in lengths], num_scenes=num_scenes, max_candidates=512
    )["num_video_tokens"]
    for length, count in zip(lengths, counts, strict=True):
        inputs = processor(text="<video>", videos=frames[:length], max_candidates=512, **options)
        assert inputs["input_ids"][0].count(processor.video_token_id) == count, length
