"""SmolVLM2, InternVL and LLaVA-NeXT-Video: with one frame a scene, their prompts to the byte and their logits."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fila_video import FilaVideoForConditionalGeneration, FilaVideoProcessor
from fila_video.commands.loading import load_model
from fila_video.conversion.convert import convert
from fila_video.training.chat_collator import ChatCollator
from helpers.tiny_bases import SIDE, Base, internvl, llava_next_video, smolvlm
from helpers.tiny_checkpoints import save_tensors
from helpers.video_files import make_video
from PIL import Image
from transformers.video_utils import VideoMetadata

BASES = {
    "smolvlm": smolvlm,
    "smolvlm-tied": lambda: smolvlm(tie=True, spare_rows=3),
    "internvl-qwen2": internvl,
    "internvl-qwen3-tied": lambda: internvl(tie=True, qwen3=True, as_pairs=False),
    "llava-next-video": llava_next_video,
    "llava-next-video-max-tied": lambda: llava_next_video(tie=True, mode="max"),
}
each_base = pytest.mark.parametrize("make", BASES.values(), ids=BASES)
THREE = {"smolvlm": smolvlm, "internvl": internvl, "llava-next-video": llava_next_video}
each_kind = pytest.mark.parametrize("make", THREE.values(), ids=THREE)


def frames(num_frames: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (num_frames, SIDE, SIDE, 3), dtype=np.uint8)


def metadata(num_frames: int, seconds: float = 3.0) -> VideoMetadata:
    """One frame in so many seconds, from a video at 25 frames a second."""
    step = int(25 * seconds)
    numbers = [index * step for index in range(num_frames)]
    total = num_frames * step
    return VideoMetadata(total_num_frames=total, fps=25.0, duration=total / 25, frames_indices=numbers)


def converted(base: Base, tmp_path: Path, **settings) -> tuple:
    out = convert(base.save(tmp_path / "source"), tmp_path / "out", dtype="float32", progress=False, **settings)
    return load_model(out)


def chat_of(*content) -> list[dict]:
    blocks = []
    for item in content:
        kind = "text" if isinstance(item, str) else "image" if isinstance(item, Image.Image) else "video"
        blocks.append({"type": kind, kind: item})
    return [{"role": "user", "content": blocks}]


def their_inputs(base: Base, chat: list[dict], videos: list, infos: list, images: list):
    text = base.processor.apply_chat_template(chat, add_generation_prompt=True)
    visuals = {"images": images or None}
    if videos:
        # One list for the one text: on transformers 5.18 the processor of SmolVLM takes a bare array for such a list.
        visuals |= {"videos": [videos], "video_metadata": [infos], "do_sample_frames": False}
    return base.processor(text=[text], return_tensors="pt", **visuals)


@each_base
@torch.no_grad()
def test_prompt_and_logits_are_the_sources(make: Callable[[], Base], tmp_path, same_logits, request) -> None:
    base = make()
    model, processor = converted(base, tmp_path, as_source=True)
    first, second = frames(4), frames(4, seed=1)
    for videos in ([first], [first, second]):
        infos = [metadata(len(video)) for video in videos]
        chat = chat_of(*videos, "What happens, and when? Ünïcode.")
        theirs = their_inputs(base, chat, videos, infos, [])
        text = processor.apply_chat_template(chat, add_generation_prompt=True)
        ours = processor(text=text, videos=videos, video_metadata=infos, return_tensors="pt")
        prompts = [
            tokenizer.decode(inputs["input_ids"][0])
            for tokenizer, inputs in ((base.processor.tokenizer, theirs), (processor.tokenizer, ours))
        ]
        # A token of a video is called otherwise here where the source has one name for pictures and videos.
        assert prompts[0].replace(base.placeholder, "<video>") == prompts[1]
        assert prompts[1].count("<video>") == 4 * 9 * len(videos)
        pixels = theirs["pixel_values_videos" if "pixel_values_videos" in theirs else "pixel_values"]
        assert torch.equal(pixels.reshape(-1, 3, SIDE, SIDE), ours["pixel_values_videos"].reshape(-1, 3, SIDE, SIDE))
        theirs.pop("video_metadata", None)
        expected = base.model(**theirs).logits
        same_logits(request.node.callspec.id, model(**ours).logits[..., : expected.shape[-1]], expected)


@pytest.mark.parametrize("make", [smolvlm, internvl], ids=["smolvlm", "internvl"])
@torch.no_grad()
def test_a_picture_gives_the_sources_prompt_and_logits(
    make: Callable[[], Base], tmp_path, same_logits, request
) -> None:
    base = make()
    model, processor = converted(base, tmp_path)
    picture = Image.fromarray(frames(1)[0])
    chat = chat_of(picture, "What is it?")
    theirs = their_inputs(base, chat, [], [], [picture])
    ours = processor(
        text=processor.apply_chat_template(chat, add_generation_prompt=True), images=picture, return_tensors="pt"
    )
    assert base.processor.tokenizer.decode(theirs["input_ids"][0]) == processor.decode(ours["input_ids"][0])
    for name in ("rows", "cols"):
        theirs.pop(name, None)
    expected = base.model(**theirs).logits
    same_logits(f"{request.node.callspec.id}, a picture", model(**ours).logits[..., : expected.shape[-1]], expected)


@torch.no_grad()
def test_llava_next_video_reads_a_picture_as_a_video_of_one_frame(tmp_path) -> None:
    base = llava_next_video()
    model, _ = converted(base, tmp_path)
    pixels = torch.randn(1, 3, SIDE, SIDE)
    (ours,) = model.get_image_features(pixels, return_dict=True).pooler_output
    (theirs,) = base.model.get_video_features(pixels[None], return_dict=True).pooler_output
    torch.testing.assert_close(ours, theirs.view_as(ours), atol=1e-5, rtol=0)  # 5.18: one dimension more


@each_kind
@pytest.mark.parametrize("background_tokens", [1, 2])
@torch.no_grad()
def test_background_tokens_stand_beside_the_scenes(make: Callable[[], Base], background_tokens, tmp_path) -> None:
    model, processor = converted(make(), tmp_path, background_tokens=background_tokens)
    video = frames(20)
    text = processor.apply_chat_template(chat_of(video, "What?"), add_generation_prompt=True)
    inputs = processor(text=text, videos=video, num_scenes=4, return_tensors="pt")
    tokens_of_a_scene = 9
    expected = 4 * tokens_of_a_scene + background_tokens * (20 - 4 * 3)
    assert (inputs["input_ids"] == model.config.video_token_id).sum() == expected
    assert model(**inputs).logits.isfinite().all()


@each_kind
@torch.no_grad()
def test_three_equal_frames_a_scene_give_the_answer_of_one(make: Callable[[], Base], tmp_path) -> None:
    model, processor = converted(make(), tmp_path)
    assert processor.scene_size == model.config.scene_size == 3
    scenes = frames(4)
    chat = chat_of(scenes, "What?")
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    merged = processor(text=text, videos=np.repeat(scenes, 3, axis=0), num_scenes=4, return_tensors="pt")
    one = convert(tmp_path / "source", tmp_path / "one", scene_size=1, dtype="float32", progress=False)
    single, its_processor = load_model(one)
    alone = its_processor(text=text, videos=scenes, return_tensors="pt")
    # Their times differ, and so may their marks: the visuals alone are compared.
    tokens = model.get_video_features(merged["pixel_values_videos"], return_dict=True).pooler_output[0]
    expected = single.get_video_features(alone["pixel_values_videos"], return_dict=True).pooler_output[0]
    torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=0)
    inputs = dict(alone)
    inputs["pixel_values_videos"] = merged["pixel_values_videos"]
    torch.testing.assert_close(model(**inputs).logits, single(**alone).logits, atol=1e-5, rtol=0)


@torch.no_grad()
def test_merged_scenes_keep_the_marks_and_name_the_representatives_time(tmp_path) -> None:
    _, processor = converted(smolvlm(), tmp_path)
    inputs = processor(text="<video>", videos=frames(6), video_metadata=metadata(6, 25), num_scenes=2)
    text = re.sub("(?:<video>)+", "#", processor.decode(inputs["input_ids"][0]))
    edge = "<fake_token_around_image>"
    assert text == (
        "You are provided the following series of two frames from a 0:02:30 [H:MM:SS] video.\n"
        f"\nFrame from 00:50:{edge}<global-img>#{edge}\nFrame from 02:05:{edge}<global-img>#{edge}\n\n"
    )


def test_a_converted_model_that_is_saved_again_says_the_same(tmp_path) -> None:
    for make in THREE.values():
        model, processor = converted(make(), tmp_path / make.__name__)
        again = tmp_path / make.__name__ / "again"
        model.save_pretrained(again)
        processor.save_pretrained(again)
        loaded = FilaVideoForConditionalGeneration.from_pretrained(again).eval()
        its_processor = FilaVideoProcessor.from_pretrained(again)
        inputs = [each(text="<video>Hm", videos=frames(3), return_tensors="pt") for each in (processor, its_processor)]
        assert torch.equal(inputs[0]["input_ids"], inputs[1]["input_ids"])
        with torch.no_grad():
            assert torch.allclose(model(**inputs[0]).logits, loaded(**inputs[1]).logits, atol=1e-5)
        model.generate(**inputs[0], max_new_tokens=2, eos_token_id=None)


@pytest.mark.parametrize("make", [smolvlm, internvl], ids=["smolvlm", "internvl"])
@pytest.mark.parametrize(("total", "rate"), [(9, 5), (60, 10), (300, 10), (401, 7)])
def test_as_the_source_takes_the_sources_frames_of_a_file(make: Callable[[], Base], total, rate, tmp_path) -> None:
    base = make()
    base.processor.video_processor.num_frames = 12
    _, processor = converted(base, tmp_path, as_source=True)
    video = make_video(tmp_path / "video.mp4", total, fps=rate, width=SIDE, height=SIDE)
    found = processor(text="<video>", videos=str(video), return_scenes=True)["scenes"][0]["indices"].flatten()
    info = VideoMetadata(total_num_frames=total, fps=float(rate), duration=total / rate)
    if total < 12 and make is internvl:
        expected = list(range(total))  # InternVL refuses so short a video
    else:
        expected = base.processor.video_processor.sample_frames(info).tolist()
    assert found.tolist() == expected


@pytest.mark.parametrize("make", THREE.values(), ids=THREE)
def test_frames_of_another_shape_are_scaled_as_the_source_scales_them(make: Callable[[], Base], tmp_path) -> None:
    base = make()
    _, processor = converted(base, tmp_path, as_source=True)
    # Smooth, so that what differs is where a pixel comes from and not which kernel scales it.
    rows, columns = np.mgrid[0:60, 0:96]
    frame = np.stack([rows * 4, columns * 2, 255 - rows * 2 - columns], axis=-1).astype(np.uint8)
    video = np.stack([frame] * 3)
    theirs = base.processor.video_processor([video], return_tensors="pt", do_sample_frames=False)
    pixels = theirs["pixel_values_videos" if "pixel_values_videos" in theirs else "pixel_values"]
    ours = processor(text="<video>", videos=video, return_tensors="pt")["pixel_values_videos"]
    assert (ours - pixels).abs().max() < 0.05  # of the largest colors, 5 apart
    files = make_video(tmp_path / "wide.mp4", 8, width=96, height=64)
    read = processor(text="<video>", videos=str(files), return_tensors="pt")["pixel_values_videos"]
    assert read.shape[2:] == (3, SIDE, SIDE)


def test_a_source_that_is_named_answers_at_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    source = smolvlm().save(tmp_path / "source")
    model, processor = load_model(source)
    inputs = processor(text="<video>What?", videos=frames(6), return_tensors="pt")
    assert model.generate(**inputs, max_new_tokens=3, eos_token_id=None).shape[1] == inputs["input_ids"].shape[1] + 3
    assert model.config.scene_size == 3 and processor.time_marks == "per_scene"


@pytest.mark.parametrize(("make", "learned"), [(smolvlm, " Two.<end_of_utterance>"), (internvl, "Two.<|im_end|>")])
def test_training_learns_the_answers_up_to_the_token_that_ends_them(
    make: Callable[[], Base], learned, tmp_path
) -> None:
    _, processor = converted(make(), tmp_path)
    answers = [{"role": "assistant", "content": [{"type": "text", "text": "Two."}]}]
    batch = ChatCollator(processor)([{"messages": chat_of(frames(3), "How many?") + answers}])
    labels = batch["labels"][0]
    assert processor.decode(labels[labels >= 0]) == learned


def test_a_template_that_writes_other_chats_stays(tmp_path) -> None:
    base = internvl()
    base.processor.chat_template = "{{ '<|im_start|>system\n' }}" + base.processor.chat_template
    _, processor = converted(base, tmp_path)
    assert processor.chat_template == base.processor.chat_template


@torch.no_grad()
def test_internvl_as_transformers_4_wrote_it_converts_to_the_same(tmp_path) -> None:
    base = internvl()
    model, _ = converted(base, tmp_path)
    tensors = {}
    for name, value in base.model.state_dict().items():
        name = f"language_model.{name}" if name.startswith("lm_head.") else name.removeprefix("model.")
        is_text = name.startswith("language_model.") and "lm_head" not in name
        tensors[name.replace("language_model.", "language_model.model.") if is_text else name] = value.contiguous()
    (tmp_path / "source" / "model.safetensors").unlink()
    save_tensors(tmp_path / "source", tensors, shards=2)
    older, _ = load_model(convert(tmp_path / "source", tmp_path / "older", dtype="float32", progress=False))
    for name, value in model.state_dict().items():
        assert torch.equal(older.state_dict()[name], value), name


def edited(base: Base, tmp_path: Path, file: str, edit: Callable[[dict], None]) -> Path:
    folder = base.save(tmp_path / "source")
    content = json.loads((folder / file).read_text())
    edit(content)
    (folder / file).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("make", "edit", "message"),
    [
        (smolvlm, lambda c: c.update(scale_factor=4), r"6 patches a side, which a pixel shuffle.*\(4\) does not div"),
        (internvl, lambda c: c.update(downsample_ratio=0.4), "`downsample_ratio` is 0.4, but must be one divided by"),
        (internvl, lambda c: c["vision_config"].update(image_size=[24, 48]), r"`image_size` is .*must be a square"),
        (internvl, lambda c: c.update(vision_feature_layer=[-1, -2]), "takes the features of one layer"),
        (llava_next_video, lambda c: c.update(spatial_pool_mode="conv"), "`spatial_pool_mode` is 'conv', which FiLA"),
        (
            llava_next_video,
            lambda c: c.update(multimodal_projector_bias=False),
            "`multimodal_projector_bias` is False",
        ),
        (smolvlm, lambda c: c.update(image_token_id=7), "says that <image> is token 7, but the tokenizer that it is"),
    ],
)
def test_what_does_not_fit_is_named(make: Callable[[], Base], edit: Callable, message: str, tmp_path) -> None:
    folder = edited(make(), tmp_path, "config.json", edit)
    with pytest.raises(ValueError, match=message):
        convert(folder, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", [internvl, llava_next_video], ids=["internvl", "llava-next-video"])
def test_a_processor_that_was_lost_is_missed(make: Callable[[], Base], tmp_path) -> None:
    folder = make().save(tmp_path / "source")
    for file in ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"):
        (folder / file).unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError, match=r"source has no preprocessor_config\.json"):
        convert(folder, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", [smolvlm, internvl], ids=["smolvlm", "internvl"])
def test_a_pixel_shuffle_is_not_replaced_by_pooling(make: Callable[[], Base], tmp_path) -> None:
    folder = make().save(tmp_path / "source")
    with pytest.raises(ValueError, match=r"`--pooling average` is not for \w+, whose projector takes a pixel shuffle"):
        convert(folder, tmp_path / "out", pooling="average", progress=False)


@pytest.mark.parametrize(
    ("context", "background_tokens", "num_scenes"),
    [(240, 0, 120 // 9), (1100, 1, 6), (1000, 1, 1)],  # a pool of 512 frames, of which each scene has three
)
def test_more_scenes_than_the_context_holds_are_not_taken(context, background_tokens, num_scenes, tmp_path) -> None:
    def edit(config: dict) -> None:
        config["text_config"]["max_position_embeddings"] = context

    folder = edited(llava_next_video(), tmp_path, "config.json", edit)
    out = convert(folder, tmp_path / "out", background_tokens=background_tokens, dtype="float32", progress=False)
    processor = load_model(out)[1]
    assert processor.num_scenes == num_scenes
    remark = f"{num_scenes} scenes instead of 32: the language model's context has {context} tokens"
    assert remark in (out / "README.md").read_text()
    inputs = processor(text="<video>What?", videos=frames(600))
    assert len(inputs["input_ids"][0]) < context


def test_a_tokenizer_without_a_control_token_is_refused(tmp_path) -> None:
    base = smolvlm()
    folder = base.save(tmp_path / "source")
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace("<global-img>", "<globe>"))
    with pytest.raises(ValueError, match=r"the tokenizer has no <global-img>, which SmolVLM2 needs"):
        convert(folder, tmp_path / "out", progress=False)


def test_frames_of_another_size_than_the_towers_are_refused(tmp_path) -> None:
    base = smolvlm()
    for part in (base.processor.image_processor, base.processor.video_processor):
        part.max_image_size = {"longest_edge": 32}
    folder = base.save(tmp_path / "source")
    with pytest.raises(ValueError, match=r"frames of 32 pixels \(`max_image_size`\).* is for 24 \(`image_size`\)"):
        convert(folder, tmp_path / "out", progress=False)


@pytest.mark.parametrize(
    ("model_type", "what", "selects"),
    [
        ("qwen2_5_vl", "Qwen2.5-VL", True),
        ("qwen3_vl", "Qwen3-VL", True),
        ("idefics3", "Idefics3 or SmolVLM 1", True),
        ("perception_lm", "PerceptionLM", True),
        ("llava_onevision1_5", "LLaVA-OneVision 1.5", True),
        ("internvl_chat", "-HF", False),
    ],
)
def test_relatives_are_refused_by_name_with_what_to_use(model_type, what, selects, tmp_path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(ValueError, match=re.escape(what)) as error:
        convert(tmp_path, tmp_path / "out", progress=False)
    assert ("fila_video.select_frames" in str(error.value)) == selects and "SmolVLM2" in str(error.value)
