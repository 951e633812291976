"""`frame_encoding="cooperative"`: the tokens that a pool of frames becomes (DynFocus), saved, trained and refused."""

import itertools
import json

import numpy as np
import pytest
import torch
from fila_video.configuration_fila_video import (
    FilaVideoConfig,
    detail_sizes,
    num_cooperative_tokens,
    num_key_frames,
)
from fila_video.cooperative_encoding_fila_video import (
    density_clusters,
)
from fila_video.evaluation.answering import Answerer
from fila_video.evaluation.records import Question, Record
from fila_video.evaluation.selections import SELECTIONS
from fila_video.frame_selector_fila_video import SceneSettings
from fila_video.modeling_fila_video import FilaVideoForConditionalGeneration
from fila_video.processing_fila_video import FilaVideoProcessor
from fila_video.training.chat_collator import ChatCollator
from fila_video.training.collator import Collator
from helpers.tiny_models import (
    left_padded,
    random_frames,
    tiny_config,
    tiny_model,
    tiny_text_config,
    tiny_vision_config,
)
from helpers.tiny_processor import clip, conversation, model_for, tiny_processor
from helpers.video_files import make_video
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import BitsAndBytesConfig, TorchAoConfig

COOPERATIVE = {"frame_encoding": "cooperative", "background_tokens": 2, "scene_size": 1}
COOPERATIVE |= {"num_prototypes": 6, "key_frames": 0.5}


def encoder_of(model):
    return model.model.cooperative_encoder


def tokens_of_videos(model, frames: torch.Tensor, **inputs) -> list[torch.Tensor]:
    with torch.no_grad():
        return list(model.get_video_features(pixel_values_videos=frames, **inputs, return_dict=True).pooler_output)


# Tokens


def test_the_number_of_tokens_follows_from_the_number_of_candidates_alone() -> None:
    assert detail_sizes(16) == (4, 16, 6)
    assert num_cooperative_tokens(200, 16, 25, 0.8, 2, "none") == 200 * 2 + 20 * 38
    # As the released code counts where key frames have no cheap tokens: T=200: 36 * 38 + 2 * 164.
    assert num_cooperative_tokens(200, 16, 80, 0.45, 2, "none") - 2 * 36 == 1696
    assert num_key_frames(200, 80, 0.45) == num_key_frames(200, 80, np.float64(0.45)) == 36
    assert num_key_frames(200, 80, np.int64(7)) == 7
    model = tiny_model(**COOPERATIVE)
    details = 16 + 2 + 1  # of 25 patches
    for num_frames in range(1, 513):
        keys = min(3, -(-num_frames // 2))
        expected = num_frames * 2 + keys * details + 1
        assert num_cooperative_tokens(num_frames, 5, 6, 0.5, 2, "video") == expected
        if num_frames in (1, 2, 3, 5, 6, 7, 40, 512):
            features = torch.randn(1, num_frames, 25, 32)
            for same in (features, torch.ones_like(features)):  # equal frames too
                with torch.no_grad():
                    (video,) = model.get_video_features(frame_features=same, return_dict=True).pooler_output
                assert len(video) == expected


def tokens_by_hand(model, frames: torch.Tensor, question: torch.Tensor | None) -> torch.Tensor:
    """One video's tokens in plain loops, from its patch features `(num_frames, 25, 32)`."""
    encoder, config = encoder_of(model), model.config
    prototypes, chosen, _ = encoder.choose_key_frames(frames)
    keys = {int(prototypes[place]) for place in chosen}
    tokens = []
    for number, frame in enumerate(frames):
        if number in keys:
            grid = frame.view(5, 5, -1)
            # Cells of a 4 x 4 grid over 5 patches a side: 0-1, 1-2, 2-3, 3-4.
            tokens += [grid[r : r + 2, c : c + 2].mean((0, 1)) for r in range(4) for c in range(4)]
            labels = density_clusters(frame[None], 2, 8)[0]
            clusters = [frame[labels == label].mean(0) for label in range(2)]
            tokens += [(clusters[0] + clusters[1]) / 2, *clusters]  # one group, of weight 1
        tokens.append(frame.mean(0))
        second = frame.mean(0)
        if question is not None:
            queries = encoder.question_projection(question)
            attended = [((query @ frame.T) / 32**0.5).softmax(0) @ frame for query in queries]
            second = torch.stack(attended).mean(0)
        tokens.append(second)
    assert config.newline_position == "video"
    return torch.cat([model.model.multi_modal_projector(torch.stack(tokens)), model.model.image_newline[None]])


@pytest.mark.parametrize("asked", [True, False])
def test_tokens_are_those_of_plain_loops_in_the_order_of_time(asked) -> None:
    model = tiny_model(**COOPERATIVE)
    frames = random_frames(9, model.config)
    ids = torch.tensor([[20, 31, 44]]) if asked else None
    (given,) = tokens_of_videos(model, frames[None], video_question_ids=ids)
    question = model.get_input_embeddings()(ids[0]) if asked else None
    with torch.no_grad():
        expected = tokens_by_hand(model, model.encode_frames(frames), question)
    torch.testing.assert_close(given, expected, atol=1e-5, rtol=1e-4)


def test_groups_of_clusters_are_followed_by_their_members_and_weighted() -> None:
    model = tiny_model(
        tiny_config(vision_config=tiny_vision_config(image_size=64), **COOPERATIVE)
    )  # 16 x 16 patches: 16 clusters, 6 groups
    encoder = encoder_of(model)
    patches = torch.randn(2, 256, 32, generator=torch.Generator().manual_seed(0))
    given = encoder._cluster(patches)
    assert given.shape == (2, 22, 32)
    for frame, tokens in zip(patches, given, strict=True):
        labels = density_clusters(frame[None], 16, 8)[0]
        clusters = torch.stack([frame[labels == label].mean(0) for label in range(16)])
        of = density_clusters(clusters[None], 6, 3)[0]
        groups = torch.stack([clusters[of == label].mean(0) for label in range(6)])
        weights = 6 * encoder.group_weights(groups.mean(1)).softmax(0)
        expected = []
        for label in range(6):
            expected += [groups[label] * weights[label]]
            expected += [cluster * weights[label] for cluster in clusters[of == label]]
        torch.testing.assert_close(tokens, torch.stack(expected))


def test_the_question_token_changes_with_the_question_and_nothing_else_does() -> None:
    model = tiny_model(**COOPERATIVE)
    frames = random_frames(8, model.config)[None]
    one, other, none = (
        tokens_of_videos(model, frames, video_question_ids=ids)[0]
        for ids in (torch.tensor([[20, 31]]), torch.tensor([[50, 60]]), torch.tensor([[-1, -1]]))
    )
    prototypes, chosen, _ = encoder_of(model).choose_key_frames(model.encode_frames(frames[0]))
    keys = {int(prototypes[place]) for place in chosen}
    asked, at = [], 0
    for number in range(8):
        at += 19 if number in keys else 0
        asked.append(at + 1)
        at += 2
    changed = (one != other).any(dim=1).nonzero().flatten().tolist()
    assert changed == asked
    # Without a question the second token is the first.
    assert torch.equal(none[asked], none[[place - 1 for place in asked]])
    assert torch.equal(none, tokens_of_videos(model, frames)[0])


@pytest.mark.parametrize(("background", "key_frames"), [(0, 0.5), (1, 0.5), (2, 0), (1, 6), (2, 1.0)])
def test_either_kind_of_tokens_can_be_left_out(background, key_frames) -> None:
    model = tiny_model(**COOPERATIVE | {"background_tokens": background, "key_frames": key_frames})
    for num_frames in (1, 4, 9):
        frames = random_frames(num_frames, model.config)[None]
        for training in (False, True):
            model.train(training)
            (video,) = tokens_of_videos(model, frames)
            keys = num_key_frames(num_frames, 6, key_frames)
            assert len(video) == num_frames * background + keys * 19 + 1


def test_details_may_be_fewer_means_of_bands_through_which_scores_are_learned() -> None:
    settings = COOPERATIVE | {"detail_tokens": 2, "topk_sigma": 0.5}
    processor, model = tiny_processor(**COOPERATIVE, detail_tokens=2), tiny_model(**settings)
    assert processor.video_processor.scene_settings().detail_tokens == 2
    with pytest.raises(ValueError, match="`detail_tokens` is None, but the model's is 2"):
        tiny_processor(**COOPERATIVE).bind(model)
    encoder = encoder_of(model)
    assert not [name for name, _ in encoder.named_parameters() if "group_weights" in name]
    for num_frames in (1, 4, 9):
        (video,) = tokens_of_videos(model, random_frames(num_frames, model.config)[None])
        keys = num_key_frames(num_frames, 6, 0.5)
        assert len(video) == num_cooperative_tokens(num_frames, 5, 6, 0.5, 2, "video", detail_tokens=2)
        assert len(video) == num_frames * 2 + keys * 2 + 1
    features = torch.randn(9, 25, 32, generator=torch.Generator().manual_seed(0))
    keys, details = encoder.encode_key_frames(features)
    # 25 patches in two bands share the middle one.
    expected = torch.stack([features[keys, :13].mean(1), features[keys, 12:].mean(1)], dim=1)
    torch.testing.assert_close(details, expected)
    encoder.train()
    torch.manual_seed(0)
    encoder.encode_key_frames(features)[1].square().sum().backward()
    assert encoder.score_net.layers[0].weight.grad.abs().max() > 0


def test_in_training_key_frames_are_mixtures_with_a_gradient_and_otherwise_one_choice() -> None:
    model = tiny_model(**COOPERATIVE | {"topk_sigma": 1e-7})
    frames = random_frames(9, model.config)[None]
    (expected,) = tokens_of_videos(model, frames)
    assert torch.equal(expected, tokens_of_videos(model, frames)[0])
    model.train()
    torch.testing.assert_close(tokens_of_videos(model, frames)[0], expected)  # next to no noise
    model.config.topk_sigma = 0.5
    encoder = encoder_of(model)
    torch.manual_seed(0)
    with torch.no_grad():  # as where a model is asked between two steps of its training
        assert torch.equal(*(model.get_video_features(pixel_values_videos=frames).pooler_output[0] for _ in range(2)))
    (video,) = model.get_video_features(pixel_values_videos=frames).pooler_output
    assert not torch.allclose(video, expected)
    video.square().sum().backward()
    assert all(weight.grad.abs().sum() > 0 for weight in encoder.score_net.layers[0].parameters())


def test_a_batch_of_unequal_videos_answers_as_each_alone() -> None:
    processor = tiny_processor(**COOPERATIVE)
    model = model_for(processor, **COOPERATIVE)
    for bound in (False, True):
        if bound:
            processor.bind(model)
        chats = [
            conversation(clip(20, seed=1), "What happens?"),
            conversation(clip(3, seed=2), "Who?"),
            conversation(clip(24, seed=3), clip(1), "Which of the two?"),
        ]
        options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
        alone = [processor.apply_chat_template(chat, **options) for chat in chats]
        together = processor.apply_chat_template(chats, **options, processor_kwargs={"padding": True})
        assert together["video_question_ids"].shape[0] == 4
        collated = processor.collate(alone)
        assert together.keys() == collated.keys()
        assert all(torch.equal(together[name], collated[name]) for name in together)
        answers = model.generate(**together, max_new_tokens=4, do_sample=False)[:, together["input_ids"].shape[1] :]
        for inputs, answer in zip(alone, answers, strict=True):
            single = model.generate(**inputs, max_new_tokens=4, do_sample=False)[0, inputs["input_ids"].shape[1] :]
            assert answer[: len(single)].tolist() == single.tolist()


def test_the_question_is_what_the_last_user_says_and_never_an_answer() -> None:
    processor = tiny_processor(**COOPERATIVE)
    video = {"type": "video", "video": clip(4)}
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [video]},
        {"role": "assistant", "content": [{"type": "text", "text": "I see it."}]},
        {"role": "user", "content": [{"type": "text", "text": "What is red?"}, video]},
        {"role": "assistant", "content": [{"type": "text", "text": "A ball."}]},
    ]
    inputs = processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")
    ids = processor.tokenizer("What is red?", add_special_tokens=False)["input_ids"]
    assert inputs["video_question_ids"].tolist() == [ids, ids]
    # A prompt without a chat: the text of the turn, up to its end. Beside others' questions, padded.
    behind = "<|im_start|>user\n<video>\nWhat is red?<|im_end|>\n<|im_start|>assistant\nA ball."
    other = "<|im_start|>user\n<video>\nWhat?<|im_end|>\n"
    rows = processor(text=[behind, other], videos=[[clip(4)], [clip(3)]], padding=True, return_tensors="pt")
    short = processor.tokenizer("What?", add_special_tokens=False)["input_ids"]
    assert rows["video_question_ids"].tolist() == [ids, short + [-1] * (len(ids) - len(short))]
    before = [{"role": "user", "content": chat[3]["content"]}]
    alone = processor.apply_chat_template(before, tokenize=True, return_dict=True, return_tensors="pt")
    assert alone["video_question_ids"].tolist() == [ids]
    batch = ChatCollator(processor)([{"messages": chat}, {"messages": chat}])
    assert batch["video_question_ids"].tolist() == [ids] * 4
    assert batch["labels"].max() > 0
    samples = [
        {
            name: value[0] if name == "input_ids" else value
            for name, value in inputs.items()
            if name != "attention_mask"
        }
        for _ in range(2)
    ]
    samples = [sample | {"labels": sample["input_ids"]} for sample in samples]
    together = Collator(processor.tokenizer.pad_token_id)(samples)
    assert together["video_question_ids"].tolist() == [ids] * 4


def test_the_sentence_names_no_more_times_than_there_would_be_scenes() -> None:
    processor = tiny_processor(**COOPERATIVE)
    metadata = {"total_num_frames": 10, "fps": 1.0}
    inputs = processor(text="<video>", videos=clip(10), video_metadata=metadata, question="What?")
    assert "10 frames of a 10.0-second video, one in 3 at 0.0, 3.0, 6.0, 9.0" in processor.decode(
        inputs["input_ids"][0]
    )
    inputs = processor(text="<video>", videos=clip(10), video_metadata=metadata, question="What?", num_scenes=2)
    assert "one in 5 at 0.0, 5.0" in processor.decode(inputs["input_ids"][0])


@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize("thinned", [None, 16])
def test_text_model_and_count_agree_for_every_pool(bound, thinned) -> None:
    processor = tiny_processor(encoded_candidates=thinned, **COOPERATIVE)
    model = model_for(processor, **COOPERATIVE)
    if bound:
        processor.bind(model)
    for num_frames in (1, 4, 17, 30):
        inputs = processor(text="<video>", videos=clip(num_frames), question="What?", return_tensors="pt")
        (count,) = processor._get_num_multimodal_tokens(video_sizes=[(num_frames, 20, 20)])["num_video_tokens"]
        assert int((inputs["input_ids"] == processor.video_token_id).sum()) == count
        assert int(inputs["video_num_scenes"]) == min(num_frames, 24 if thinned is None else 16)
        assert model(**inputs).video_hidden_states[0].shape[0] == count


def test_the_evaluation_asks_every_question_of_its_own_tokens(tmp_path) -> None:
    make_video(tmp_path / "film.mp4", 40)
    processor = tiny_processor(**COOPERATIVE)
    answerer = Answerer(model_for(processor, **COOPERATIVE), processor)
    questions = [Question("What is red?", "a ball", "color"), Question("How many?", "two", "count")]
    record = Record("1", tmp_path / "film.mp4", True, questions, events=[(0.0, 1e9)])
    pool = answerer.read(record)
    prompts, recall = answerer.about_video(record, pool, answerer.encode(pool), SELECTIONS["kmeans"])
    assert recall.found == 1
    first, second = (prompt.visual for prompt in prompts)
    assert first.shape == second.shape and not torch.equal(first, second)
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    for prompt in prompts:
        text = prompt.text.split("seconds.\n")[1].split("<|im_end|>")[0]
        video = {"type": "video", "path": str(tmp_path / "film.mp4")}
        chat = [{"role": "user", "content": [video, {"type": "text", "text": text}]}]
        inputs = processor.apply_chat_template(chat, **options)
        assert processor.decode(inputs["input_ids"][0]) == prompt.text
        inputs = {name: value for name, value in inputs.items() if name not in ("input_ids", "attention_mask")}
        with torch.no_grad():
            (visual,) = answerer.model.get_video_features(**inputs, return_dict=True).pooler_output
        torch.testing.assert_close(prompt.visual, visual)
    assert len(answerer.answer(prompts)) == 2


# Saving, dtypes, training


def test_saved_and_loaded_again_it_is_the_same(tmp_path) -> None:
    processor = tiny_processor(**COOPERATIVE)
    model = model_for(processor, **COOPERATIVE)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["frame_encoding"] == "cooperative"
    loaded, report = FilaVideoForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    again = FilaVideoProcessor.from_pretrained(tmp_path)
    options = {"text": "<video>What?", "videos": clip(14), "question": "What?", "return_tensors": "pt"}
    inputs = processor(**options)
    assert all(torch.equal(inputs[name], value) for name, value in again(**options).items())
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
    half = FilaVideoForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    kinds = {name: weight.dtype for name, weight in half.named_parameters()}
    assert {kind for name, kind in kinds.items() if "score_net" in name} == {torch.float32}
    assert kinds["model.cooperative_encoder.question_projection.weight"] == torch.bfloat16
    scores = encoder_of(half).choose_key_frames(half.encode_frames(inputs["pixel_values_videos"][0]))[2]
    assert scores.dtype == torch.float32
    assert half(**inputs).logits.isfinite().all()
    assert loaded.to(torch.bfloat16)(**inputs).logits.isfinite().all()


@pytest.mark.parametrize("kind", ["bitsandbytes 4", "bitsandbytes 8", "torchao"])
def test_a_quantized_model_answers_and_scores_key_frames_in_full(kind, tmp_path) -> None:
    from torchao.quantization import Int8WeightOnlyConfig

    sizes = {"hidden_size": 64, "intermediate_size": 128}  # 4-bit weights come in blocks of 64
    # All are key frames: a choice among nearly equal ones may well differ.
    settings = COOPERATIVE | {"key_frames": 1.0}
    processor = tiny_processor(**settings)
    text_config = tiny_text_config(vocab_size=len(processor.tokenizer), **sizes)
    model = model_for(processor, vision_config=tiny_vision_config(**sizes), text_config=text_config, **settings)
    model.save_pretrained(tmp_path)
    bits = {"load_in_4bit": kind.endswith("4"), "load_in_8bit": kind.endswith("8")}
    quantization = TorchAoConfig(Int8WeightOnlyConfig()) if kind == "torchao" else BitsAndBytesConfig(**bits)
    loaded = FilaVideoForConditionalGeneration.from_pretrained(
        tmp_path, quantization_config=quantization, device_map="cpu", dtype=torch.float32
    )
    encoder = encoder_of(loaded)
    for weight in (*encoder.score_net.parameters(), *encoder.group_weights.parameters()):
        assert type(weight) is torch.nn.Parameter and weight.dtype == torch.float32
    assert type(loaded.model.language_model.layers[0].mlp.up_proj.weight) is not torch.nn.Parameter
    assert type(encoder_of(loaded).question_projection.weight) is not torch.nn.Parameter
    inputs = processor(text="<video>What?", videos=clip(6), question="What?", return_tensors="pt")
    cosine = torch.cosine_similarity(loaded(**inputs).logits, model(**inputs).logits, dim=-1)
    assert cosine.mean() > (0.8 if kind.endswith("4") else 0.99)
    assert loaded.generate(**inputs, max_new_tokens=2).shape[0] == 1


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
def test_gradient_checkpointing_gives_equal_gradients(use_reentrant) -> None:
    model = tiny_model(**COOPERATIVE).train()
    processor = tiny_processor(**COOPERATIVE)
    config = model.config
    count = num_cooperative_tokens(7, 5, 6, 0.5, 2, "video")
    inputs = left_padded([[20, 21, *[config.video_token_id] * count, 30, 31]])
    inputs |= {"pixel_values_videos": random_frames(7, config)[None], "video_question_ids": torch.tensor([[30, 31]])}
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
            model.enable_input_require_grads()
        torch.manual_seed(0)
        model.zero_grad()
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        gradients.append({name: weight.grad.clone() for name, weight in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4, msg=name)
    assert processor.frame_encoding == "cooperative"


# What cannot be


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"key_frames": 7}, r"`key_frames` \(7\).*`num_prototypes` \(6\)"),
        ({"key_frames": 1.5}, r"share from 0.0 to 1.0, got 1.5"),
        ({"key_frames": -1}, r"got -1"),
        ({"num_prototypes": 0, "key_frames": 0}, r"`num_prototypes` must be at least 1, got 0"),
        ({"scene_size": 3}, r"`scene_size` is 3"),
        ({"newline_position": "grid"}, r"'video' or 'none', got 'grid'"),
        ({"topk_sigma": 0.0}, r"`topk_sigma` must be positive, got 0.0"),
        ({"background_tokens": 0, "key_frames": 0}, r"both 0"),
        ({"detail_tokens": 0}, r"`detail_tokens` must be at least 1, got 0"),
        ({"detail_tokens": 26}, r"`detail_tokens` \(26\) is more than the 25 patches"),
        ({"layer_compression": "cosine"}, r"`layer_compression`.*'cooperative' and 2"),
        ({"pooling_mode": "pixel_shuffle", "pooling_position": "before_projector", "pooling_stride": 5}, r"pixel_sh"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_their_numbers(settings, message) -> None:
    with pytest.raises(StrictDataclassClassValidationError, match=message):
        tiny_config(**COOPERATIVE | settings)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`key_frames` \(9\).*`num_prototypes` \(6\)"):
        SceneSettings(**COOPERATIVE | {"key_frames": 9})
    with pytest.raises(ValueError, match=r"set `scene_size` \(3\) to 1"):
        SceneSettings(frame_encoding="cooperative")
    with pytest.raises(ValueError, match=r"Unknown `frame_encoding` 'both'"):
        SceneSettings(frame_encoding="both")
    processor = tiny_processor(**COOPERATIVE)
    with pytest.raises(ValueError, match=r"processor's `num_prototypes` is 6, but the model's is 5"):
        processor.bind(model_for(processor, **COOPERATIVE | {"num_prototypes": 5}))
    with pytest.raises(ValueError, match="2 questions for 1 videos"):
        processor(text="<video>", videos=clip(3), question=["a", "b"])
    with pytest.raises(ValueError, match=r"'cooperative'` cannot be served by vLLM"):
        processor(text="<video>", videos=clip(3), return_text_replacement_offsets=True)
    with pytest.raises(ValueError, match="time_marks='per_scene'"):
        processor(text="<video>", videos=clip(3), time_marks="per_scene")
    model = tiny_model(**COOPERATIVE)
    with pytest.raises(ValueError, match="has 2 questions, but there are 1 videos"):
        tokens_of_videos(model, random_frames(2, model.config)[None], video_question_ids=torch.zeros(2, 1).long())


def test_by_default_it_has_the_papers_numbers() -> None:
    config = FilaVideoConfig(
        frame_encoding="cooperative",
        scene_size=1,
        vision_config=tiny_vision_config().to_dict(),
        text_config=tiny_text_config().to_dict(),
    )
    assert (config.background_tokens, config.num_prototypes, config.key_frames) == (2, 25, 0.8)
    assert FilaVideoConfig().background_tokens == 0
    shares = itertools.product((25, 80), (0.8, 0.45, 0.28, 1.0))
    counts = [num_key_frames(512, prototypes, share) for prototypes, share in shares]
    assert counts == [20, 12, 7, 25, 64, 36, 23, 80]


def test_frames_beside_scenes_are_refused_where_every_frame_is_one() -> None:
    model = tiny_model(**COOPERATIVE)
    frames = random_frames(6, model.config)[None]
    places = {"video_num_scenes": torch.tensor([4]), "video_background_places": torch.tensor([[0, 2]])}
    with pytest.raises(ValueError, match=r"`video_background_places` has 2 frames .* every frame is a scene"):
        model.get_video_features(frames, **places)
    places["video_background_places"] = torch.full((1, 2), -1)  # padding alone
    frames[:, 4:] = 0
    assert len(model.get_video_features(frames, **places).pooler_output) == 1
