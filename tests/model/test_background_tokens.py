"""`background_tokens`: a token or two for each frame of the pool that is in no scene."""

import copy
import json

import pytest
import torch
from fila_video.frame_selector_fila_video import SceneSettings
from fila_video.modeling_fila_video import FilaVideoForConditionalGeneration
from fila_video.processing_fila_video import FilaVideoProcessor
from fila_video.scene_selection_fila_video import unselected_frames
from fila_video.training.chat_collator import ChatCollator
from fila_video.training.collator import Collator
from helpers.tiny_models import random_frames, tiny_config, tiny_model, tiny_vision_config, video_batch
from helpers.tiny_processor import clip, conversation, model_for, tiny_processor
from huggingface_hub.errors import StrictDataclassClassValidationError

NEWLINES = ["video", "grid", "frame", "none"]


def one_video(config, num_scenes: int, places: list[int], seed: int = 0) -> dict:
    frames = random_frames(num_scenes * config.scene_size + len(places), config, seed)
    return {
        "pixel_values_videos": frames[None],
        "video_num_scenes": torch.tensor([num_scenes]),
        "video_background_places": torch.tensor([places], dtype=torch.long),
    }


def tokens(model, **inputs) -> list[torch.Tensor]:
    with torch.no_grad():
        return list(model.get_video_features(**inputs, return_dict=True).pooler_output)


def with_background(processor, model, number: int):
    """The same weights with so many background tokens, and the processor that fits."""
    config = copy.deepcopy(model.config)
    config.background_tokens = number
    other = FilaVideoForConditionalGeneration(config).eval()
    other.load_state_dict(model.state_dict(), strict=number < 2)
    processor = copy.deepcopy(processor)
    processor.background_tokens = number
    return processor, other


def test_without_background_frames_a_model_is_fila_video_bit_by_bit() -> None:
    plain = tiny_model()
    inputs = video_batch(plain.config, (3, 1))
    expected = plain(**inputs).logits
    for number in (0, 1, 2):
        torch.manual_seed(0)
        _, model = with_background(tiny_processor(), plain, number)
        assert torch.equal(model(**inputs).logits, expected)
        empty = {"video_background_places": torch.full((2, 2), -1)}
        assert torch.equal(model(**inputs, **empty).logits, expected)
        # One token takes no new weights.
        assert len(model.state_dict()) == len(plain.state_dict()) + (number == 2)


@pytest.mark.parametrize("newline", NEWLINES)
def test_tokens_of_other_frames_stand_between_the_scenes_where_they_are_in_time(newline) -> None:
    """An independent loop: by hand, scene by scene, from the model without a background."""
    plain = tiny_model(newline_position=newline)
    _, model = with_background(tiny_processor(), plain, 1)
    inputs = one_video(plain.config, 3, [0, 0, 2, 3])
    scenes = tokens(plain, pixel_values_videos=inputs["pixel_values_videos"][:, :9])[0]
    each = (len(scenes) - (newline == "video")) // 3
    others = model.encode_frames(inputs["pixel_values_videos"][0, 9:]).mean(1)
    with torch.no_grad():
        others = model.model.multi_modal_projector(others)
    expected = [others[:2], scenes[: 2 * each], others[2:3], scenes[2 * each : 3 * each], others[3:]]
    torch.testing.assert_close(tokens(model, **inputs)[0], torch.cat([*expected, scenes[3 * each :]]))


def test_the_second_token_starts_as_the_mean_and_follows_its_query() -> None:
    model = tiny_model(background_tokens=2)
    inputs = one_video(model.config, 1, [0, 1])
    start = tokens(model, **inputs)[0]
    torch.testing.assert_close(start[0], start[1])
    query = model.model.background_encoder.query
    query.data = torch.randn(query.shape, generator=torch.Generator().manual_seed(1))
    patches = model.encode_frames(inputs["pixel_values_videos"][0, 3:]).detach()
    expected = []
    for frame in patches:
        weights = torch.stack([patch @ query.detach() / 32**0.5 for patch in frame]).exp()
        expected.append(sum(w * patch for w, patch in zip(weights, frame, strict=True)) / weights.sum())
    with torch.no_grad():
        expected = model.model.multi_modal_projector(torch.stack(expected))
    given = tokens(model, **inputs)[0]
    torch.testing.assert_close(given[[1, -2]], expected)
    assert torch.equal(given[[0, -3]], start[[0, -3]])


def test_a_pixel_shuffles_projector_takes_the_means_of_shuffled_patches() -> None:
    model = tiny_model(
        vision_config=tiny_vision_config(image_size=16),
        pooling_mode="pixel_shuffle",
        pooling_position="before_projector",
        background_tokens=2,
    )
    frames = random_frames(4, model.config)
    given = tokens(model, pixel_values_videos=frames[None], video_background_places=torch.tensor([[1]]))[0]
    assert len(given) == 4 + 2 + 1
    patches = model.encode_frames(frames[3:])[0].detach().view(2, 2, 2, 2, -1)
    mean = patches.permute(0, 2, 1, 3, 4).reshape(4, -1).mean(0)
    with torch.no_grad():
        torch.testing.assert_close(given[4], model.model.multi_modal_projector(mean))


def test_the_number_of_tokens_follows_from_the_number_of_candidates_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    for thinned in (None, 5, 40):
        for selection in ("kmeans", "bsm"):
            settings = SceneSettings(
                num_scenes=4, scene_size=3, selection=selection, encoded_candidates=thinned, background_tokens=1
            )
            for num_frames in range(1, 513):
                count = settings.num_background_frames(num_frames)
                kept = num_frames if thinned is None or selection == "bsm" else min(num_frames, max(thinned, 12))
                assert count == max(kept - 12, 0)
                # Whatever the scenes hold, so many frames are left beside them.
                scenes = torch.randint(kept, (min(4, kept), 3), generator=generator)
                others = unselected_frames(scenes, kept, count)
                assert len(set(others.tolist()) - set(scenes.flatten().tolist())) == count
                assert others.tolist() == sorted(others.tolist())


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize("thinned", [None, 16])
def test_text_model_and_count_agree_for_every_pool(number, bound, thinned) -> None:
    processor = tiny_processor(background_tokens=number, encoded_candidates=thinned)
    model = model_for(processor, background_tokens=number)
    if bound:
        processor.bind(model)
    for num_frames in (1, 4, 12, 13, 24, 30):
        inputs = processor(text="<video>", videos=clip(num_frames), return_tensors="pt", return_scenes=True)
        scenes = inputs.pop("scenes")[0]
        (count,) = processor._get_num_multimodal_tokens(video_sizes=[(num_frames, 20, 20)])["num_video_tokens"]
        ids = inputs.pop("input_ids")
        inputs.pop("attention_mask")
        assert int((ids == processor.video_token_id).sum()) == count == len(tokens(model, **inputs)[0])
        in_scenes = set(scenes["indices"].flatten().tolist())
        others = scenes["background"]["indices"].tolist() if num_frames > 12 else []
        assert not in_scenes & set(others)
        assert len(others) == min(num_frames, 24 if thinned is None else 16) - 12 if num_frames > 12 else not others


def test_uniform_scenes_of_a_file_or_frames_have_a_background_too() -> None:
    settings = SceneSettings(selection="uniform", background_tokens=1)
    assert settings.num_candidates(300) == 300
    assert SceneSettings(selection="uniform").num_candidates(300) == 96
    processor = tiny_processor(background_tokens=1, selection="uniform")
    inputs = processor(text="<video>", videos=clip(20), return_tensors="pt")
    assert inputs["video_background_places"].shape == (1, 8)


def test_a_batch_of_unequal_videos_answers_as_each_alone() -> None:
    processor = tiny_processor(background_tokens=1)
    model = model_for(processor, background_tokens=1)
    for bound in (False, True):
        if bound:
            processor.bind(model)
        chats = [conversation(clip(frames, seed=frames), "What?") for frames in (20, 3, 14)]
        options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
        alone = [processor.apply_chat_template(chat, **options) for chat in chats]
        together = processor.apply_chat_template(chats, **options, processor_kwargs={"padding": True})
        collated = processor.collate(alone)
        assert together.keys() == collated.keys()
        assert all(torch.equal(together[name], collated[name]) for name in together)
        answers = model.generate(**together, max_new_tokens=4, do_sample=False)[:, together["input_ids"].shape[1] :]
        for inputs, answer in zip(alone, answers, strict=True):
            single = model.generate(**inputs, max_new_tokens=4, do_sample=False)[0, inputs["input_ids"].shape[1] :]
            assert answer[: len(single)].tolist() == single.tolist()


def test_marks_of_time_stand_right_before_their_scenes() -> None:
    processor = tiny_processor(background_tokens=1, time_marks="per_scene", num_scenes=2, selection="uniform")
    inputs = processor(
        text="<video>", videos=clip(10), video_metadata={"total_num_frames": 10, "fps": 1.0}, return_tensors="pt"
    )
    # Six frames are in scenes, of 0, 2, 4 and 5, 7, 9 seconds; of the others two stand before the first scene.
    assert inputs["video_background_places"].tolist() == [[0, 0, 1, 1]]
    text = processor.decode(inputs["input_ids"][0])
    mark, token = "\nFrame from", "<video>"
    assert text == f"{token * 2}{mark} 00:04:{token * 9}{token * 2}{mark} 00:09:{token * 10}"


def test_training_reads_the_background_by_either_collator() -> None:
    processor = tiny_processor(background_tokens=1)
    rows = [{"messages": conversation(clip(frames), "What?", answer="A dog.")} for frames in (20, 14)]
    batch = ChatCollator(processor)(rows)
    assert batch["video_background_places"].shape == (2, 8)
    assert (batch["video_background_places"][1, 2:] == -1).all()
    model = model_for(processor, background_tokens=1).train()
    model(**batch).loss.backward()
    samples = []
    for frames in (20, 14):
        inputs = processor(text="<video>", videos=clip(frames), return_tensors="pt")
        samples.append({name: inputs[name] for name in inputs if name not in ("input_ids", "attention_mask")})
        samples[-1] |= {"input_ids": inputs["input_ids"][0], "labels": inputs["input_ids"][0]}
    together = Collator(processor.tokenizer.pad_token_id)(samples)
    assert torch.equal(together["video_background_places"], batch["video_background_places"])


def test_saved_and_loaded_again_they_are_the_same(tmp_path) -> None:
    processor = tiny_processor(background_tokens=2)
    model = model_for(processor, background_tokens=2)
    model.model.background_encoder.query.data.normal_()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["background_tokens"] == 2
    loaded = FilaVideoForConditionalGeneration.from_pretrained(tmp_path)
    inputs = processor(text="<video>", videos=clip(14), return_tensors="pt")
    again = FilaVideoProcessor.from_pretrained(tmp_path)(text="<video>", videos=clip(14), return_tensors="pt")
    assert all(torch.equal(inputs[name], again[name]) for name in inputs)
    torch.testing.assert_close(loaded(**inputs).logits, model.eval()(**inputs).logits)


def test_what_does_not_fit_is_refused_with_both_numbers() -> None:
    model = tiny_model(background_tokens=1)
    good = one_video(model.config, 2, [0, 2])
    for change, message in (
        ({"video_background_places": torch.tensor([[0, 3]])}, r"\[2\].*8 frames"),
        ({"video_background_places": torch.tensor([[0, 1, 1]])}, "3 of the background"),
        ({"video_background_places": torch.tensor([[0], [1]])}, "1 videos.*of 2"),
        ({"video_num_scenes": None, "video_background_places": torch.tensor([[0]])}, "8 frames, 1 of them.*size 3"),
    ):
        with pytest.raises(ValueError, match=message):
            model.get_video_features(**good | change)
    with pytest.raises(ValueError, match=r"2 frames beside.*`background_tokens` is 0"):
        tiny_model().get_video_features(**good)
    with pytest.raises(ValueError, match=r"processor's `background_tokens` is 0, but the model's is 1"):
        tiny_processor().bind(model_for(tiny_processor(), background_tokens=1))
    with pytest.raises(ValueError, match=r"`background_tokens` must be 0, 1 or 2, got 3"):
        tiny_processor(background_tokens=3)(text="<video>", videos=clip(3))
    with pytest.raises(StrictDataclassClassValidationError, match=r"layer_compression.*background_tokens=0.* 1"):
        tiny_config(background_tokens=1, layer_compression="cosine")
