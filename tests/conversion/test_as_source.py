"""`--as-source` does what the source does: its frames, its prompt to the byte, and its logits for the same pixels."""

import numpy as np
import pytest
import torch
from fila_video.commands.cli import main as command_line
from fila_video.commands.loading import load_model
from fila_video.convert_weights import main
from fila_video.pipeline_fila_video import VideoTextToTextPipeline
from helpers.llava_next_reference import llava_video_prompt, one_turn, source_frames, visual_reference
from helpers.tiny_checkpoints import (
    HF_TEMPLATE,
    SELECTING_TEMPLATE,
    TinyParts,
    save_llava_hf,
    save_llava_next,
    tiny_onevision,
    tiny_tokenizer,
)
from helpers.video_files import make_video, number_of
from transformers import (
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    SiglipImageProcessor,
)
from transformers.video_utils import VideoMetadata

QUESTION = "What happens, and when? Ünïcode."
PIXELS = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.3, 0.5, 0.7], "size": {"height": 20, "width": 20}}


def ask(processor, video, **options):
    content = [{"type": "video", "video": video}, {"type": "text", "text": QUESTION}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs=options,
    )


def metadata_of(indices: np.ndarray, total: int, rate: float) -> VideoMetadata:
    return VideoMetadata(total_num_frames=total, fps=rate, duration=total / rate, frames_indices=indices.tolist())


@torch.no_grad()
def test_a_llava_hf_source_gets_its_frames_its_prompt_and_its_logits(tmp_path, same_logits) -> None:
    source = tiny_onevision()
    folder = save_llava_hf(tmp_path / "source", source)
    (folder / "preprocessor_config.json").unlink()  # as transformers 5 saves processors, in one file
    their_processor = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(**PIXELS),
        tiny_tokenizer("<image>", "<video>"),
        LlavaOnevisionVideoProcessor(**PIXELS, num_frames=12),
        num_image_tokens=25,
        vision_feature_select_strategy="full",
        chat_template=HF_TEMPLATE,
    )
    their_processor.save_pretrained(folder)
    assert main([str(folder), str(tmp_path / "out"), "--as-source", "--dtype", "float32"]) == 0
    model, processor = load_model(tmp_path / "out")

    video = make_video(tmp_path / "video.mp4", 75)
    frames, indices, rate = source_frames(video, 12)
    theirs = ask(their_processor, frames, do_sample_frames=False)
    from_file = ask(processor, str(video), return_scenes=True)
    ours = ask(processor, frames, video_metadata=[metadata_of(indices, 75, rate)])

    assert from_file["scenes"][0]["indices"].flatten().tolist() == indices.tolist()
    prompts = [their_processor.tokenizer.decode(inputs["input_ids"][0]) for inputs in (theirs, from_file, ours)]
    assert prompts[0] == prompts[1] == prompts[2] and prompts[0].count("<video>") == 12 * 9 + 1
    assert torch.equal(theirs["input_ids"], from_file["input_ids"])
    expected = source(input_ids=theirs["input_ids"], pixel_values_videos=theirs["pixel_values_videos"]).logits
    logits = model(**{name: value for name, value in ours.items() if name != "scenes"}).logits
    same_logits("LLaVA-OneVision, frames and prompt of `--as-source`", logits, expected)


@torch.no_grad()
@pytest.mark.parametrize("is_llava_video", [True, False], ids=["llava_video", "onevision"])
def test_a_llava_next_source_gets_its_frames_its_prompt_and_its_logits(tmp_path, same_logits, is_llava_video) -> None:
    parts = TinyParts()
    newline = "grid" if is_llava_video else "one_token"
    folder = save_llava_next(
        tmp_path / "source", parts, mm_newline_position=newline, add_time_instruction=is_llava_video
    )
    options = ["--as-source", "--dtype", "float32", "--vision-tower", str(tmp_path / "tower")]
    assert main([str(folder), str(tmp_path / "out"), *options]) == 0
    model, processor = load_model(tmp_path / "out")
    processor.tokenizer.model_max_length = 10_000  # bytes as tokens: 64 times are long

    # Of the model's own size: scaling is the one step where PIL and FFmpeg differ.
    num_frames, total = 64 if is_llava_video else 32, 100
    video = make_video(tmp_path / "video.mp4", total, width=20, height=20)
    frames, indices, rate = source_frames(video, num_frames)
    from_file = ask(processor, str(video), return_scenes=True)
    ours = ask(processor, frames, video_metadata=[metadata_of(indices, total, rate)])

    assert from_file["scenes"][0]["indices"].flatten().tolist() == indices.tolist()
    pixels = SiglipImageProcessor(size={"height": 20, "width": 20})(list(frames), return_tensors="pt")["pixel_values"]
    visual = visual_reference(parts, pixels, "bilinear", newline)
    tokens = "<video>" * len(visual)
    expected_prompt = (
        llava_video_prompt(QUESTION, tokens, indices, total, rate)
        if is_llava_video
        else one_turn(f"{tokens}\n{QUESTION}")
    )
    ids = processor.tokenizer(expected_prompt, return_tensors="pt")["input_ids"]
    assert processor.tokenizer.decode(from_file["input_ids"][0]) == expected_prompt
    assert torch.equal(ids, from_file["input_ids"]) and torch.equal(ids, ours["input_ids"])
    embeddings = parts.text.get_input_embeddings()(ids.where(ids != processor.video_token_id, 0))
    embeddings[ids == processor.video_token_id] = visual
    expected = parts.text(inputs_embeds=embeddings).logits
    name = "LLaVA-Video's own" if is_llava_video else "LLaVA-OneVision's own"
    same_logits(f"{name}, frames and prompt of `--as-source`", model(**ours).logits, expected)


def test_frames_are_those_of_the_source_and_no_others_are_kept(tmp_path) -> None:
    folder = save_llava_hf(tmp_path / "source", tiny_onevision())
    assert main([str(folder), str(tmp_path / "out"), "--as-source"]) == 0
    processor = load_model(tmp_path / "out")[1]
    video = make_video(tmp_path / "video.mp4", 500)
    expected = np.linspace(0, 499, 32, dtype=int).tolist()
    told = []
    inputs = ask(processor, str(video), return_scenes=True, progress=lambda *done: told.append(done))
    assert inputs["scenes"][0]["indices"].flatten().tolist() == expected
    # No pool was read to choose from: just as many frames as the model sees.
    assert {(stage, total) for stage, _, total in told} == {("reading", 32)}
    frames, metadata = processor.video_processor.load_video(str(video), size={"height": 48, "width": 64})
    shown = [number_of(frame.permute(1, 2, 0).numpy()) for frame in frames]
    assert shown == expected == list(metadata.frames_indices)


@pytest.mark.parametrize(
    "command", [main, lambda words: command_line(["convert", *words])], ids=["script", "fila-video"]
)
def test_options_stand_wherever_they_are_typed(tmp_path, command, capsys) -> None:
    folder, output = str(save_llava_hf(tmp_path / "source", tiny_onevision())), str(tmp_path / "out")
    for words in ([folder, "--as-source", output], ["--as-source", folder, "--seed", "1", output, "--overwrite"]):
        assert command(words) == 0
        assert f"{output} is ready" in capsys.readouterr().out
        assert load_model(output)[1].selection == "uniform"
    with pytest.raises(SystemExit):
        command([folder, "--as-source", output, "third"])
    assert "unrecognized arguments: third" in capsys.readouterr().err


def test_a_short_video_gives_all_its_frames_once(tmp_path) -> None:
    folder = save_llava_hf(tmp_path / "source", tiny_onevision())
    assert main([str(folder), str(tmp_path / "out"), "--as-source"]) == 0
    processor = load_model(tmp_path / "out")[1]
    video = make_video(tmp_path / "video.mp4", 9)
    inputs = ask(processor, str(video), return_scenes=True)
    assert inputs["scenes"][0]["indices"].flatten().tolist() == list(range(9))


def test_a_chat_with_a_converted_source_hears_its_system_message_and_every_turn(tmp_path) -> None:
    source = save_llava_hf(tmp_path / "source", tiny_onevision(), template=SELECTING_TEMPLATE)
    assert main([str(source), str(tmp_path / "out"), "--dtype", "float32"]) == 0
    model, processor = load_model(tmp_path / "out")
    chat = VideoTextToTextPipeline(model, processor=processor).chat(
        make_video(tmp_path / "video.mp4", 30), system="SYSTEM", max_new_tokens=2
    )
    heard = []

    def hear(input_ids, scores):
        heard.append(processor.decode(input_ids[0]))
        return scores

    answers = [chat.ask(question, logits_processor=[hear]) for question in ("FIRST", "SECOND")]
    assert "<|im_start|>system \nSYSTEM<|im_end|>" in heard[0] and "FIRST<|im_end|>" in heard[0]
    assert heard[-2].endswith(
        f"<|im_start|>assistant \n{answers[0]}<|im_end|><|im_start|>user \nSECOND<|im_end|><|im_start|>assistant\n"
    )
