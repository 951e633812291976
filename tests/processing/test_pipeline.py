"""The `video-text-to-text` pipeline: every form of input, every option, and the shapes of its results."""

import copy
import http.server
import logging
import threading
from functools import partial

import numpy as np
import pytest
import torch
from fila_video.pipeline_fila_video import VideoTextToTextPipeline
from fila_video.processing_fila_video import FilaVideoProcessor
from fila_video.video_reading_fila_video import read_frames
from helpers.tiny_processor import clip, conversation, model_for, tiny_processor
from PIL import Image
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    ImageTextToTextPipeline,
    TextIteratorStreamer,
    TextStreamer,
    pipeline,
)
from transformers.pipelines.pt_utils import KeyDataset

SHORT = {"max_new_tokens": 4, "return_full_text": False}


@pytest.fixture
def server(file):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=file.parent))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/{file.name}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_answer_is_a_list_of_one_dictionary(pipe, file) -> None:
    result = pipe(file, text="What?", **SHORT)
    assert [set(one) for one in result] == [{"input_text", "generated_text"}]
    assert result[0]["input_text"] == "What?" and isinstance(result[0]["generated_text"], str)


def test_the_answer_is_what_generate_gives_on_the_models_features(pipe, file, answer) -> None:
    processor = tiny_processor()
    processor.frame_encoder = pipe.model.encode_frames
    inputs = processor.apply_chat_template(
        conversation(file, "What?"), tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    generated = pipe.model.generate(**inputs, max_new_tokens=4)[0, inputs["input_ids"].shape[1] :]
    assert answer == processor.decode(generated, skip_special_tokens=True)


def test_it_binds_the_frame_encoder_of_its_model(pipe) -> None:
    assert pipe.processor.frame_encoder == pipe.model.encode_frames


@pytest.mark.parametrize("form", ["path", "str", "file URL", "http", "bytes", "file", "chat", "dictionary"])
def test_a_video_may_be_a_path_a_url_bytes_or_a_file(pipe, file, answer, server, form) -> None:
    chat = conversation(file, "What?")
    arguments = {
        "path": (file, "What?"),
        "str": (str(file), "What?"),
        "file URL": (file.as_uri(), "What?"),
        "http": (server, "What?"),
        "bytes": (file.read_bytes(), "What?"),
        "file": (file.open("rb"), "What?"),
        "chat": (chat,),
        "dictionary": ({"videos": file, "text": "What?"},),
    }[form]
    assert (
        pipe(*arguments[:1], **({"text": arguments[1]} if arguments[1:] else {}), **SHORT)[0]["generated_text"]
        == answer
    )


def test_frames_may_be_an_array_a_tensor_or_pictures(pipe) -> None:
    frames = clip(6)
    results = [
        pipe(video, text="What?", **SHORT)
        for video in (frames, torch.from_numpy(frames), [Image.fromarray(frame) for frame in frames], frames / 255.0)
    ]
    assert all(result == results[0] for result in results)
    assert pipe(Image.fromarray(frames[0]), text="Still?", **SHORT)


def test_lists_give_a_list_of_lists_in_order(pipe, file, answer) -> None:
    results = pipe([file, clip(3), file.read_bytes()], text=["What?", "Who?", "What?"], **SHORT)
    assert [len(result) for result in results] == [1, 1, 1]
    assert [result[0]["input_text"] for result in results] == ["What?", "Who?", "What?"]
    assert results[0][0]["generated_text"] == results[2][0]["generated_text"] == answer


def test_one_question_may_be_about_several_videos(pipe, file) -> None:
    result = pipe([file, clip(3)], text="Which?", return_scenes=True, **SHORT)
    assert len(result) == 1 and len(result[0]["scenes"]) == 2
    nested = pipe([[file, clip(3)], [file]], text=["Which?", "What?"], return_scenes=True, **SHORT)
    assert [len(row[0]["scenes"]) for row in nested] == [2, 1]
    assert nested[0][0]["generated_text"] == result[0]["generated_text"]


class Chats(torch.utils.data.Dataset):
    def __init__(self, items) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def test_generators_and_datasets_are_answered_as_they_come(pipe, file, answer) -> None:
    chats = [conversation(file, "What?"), conversation("No video?"), conversation(clip(3), "Who?")]
    expected = [pipe(chat, **SHORT) for chat in chats]
    assert expected[0][0]["generated_text"] == answer
    assert pipe(chats, **SHORT) == expected
    assert list(pipe((chat for chat in chats), **SHORT)) == expected
    assert list(pipe(Chats(chats), **SHORT)) == expected
    assert list(pipe(KeyDataset(Chats([{"chat": chat} for chat in chats]), "chat"), **SHORT)) == expected
    pairs = [{"videos": file, "text": "What?"}, {"text": "No video?"}]
    texts = [result[0]["generated_text"] for result in pipe((pair for pair in pairs), **SHORT)]
    assert texts == [one[0]["generated_text"] for one in expected[:2]]


def test_one_question_may_be_asked_of_a_dataset_or_generator_of_videos(pipe, file, answer) -> None:
    for videos in (
        Chats([file, str(file)]),
        KeyDataset(Chats([{"path": file}] * 2), "path"),
        (one for one in [file] * 2),
    ):
        assert [result[0]["generated_text"] for result in pipe(videos, text="What?", **SHORT)] == [answer] * 2


@pytest.mark.parametrize("batch_size", [2, 3])
def test_batches_answer_as_one_by_one(pipe, file, batch_size) -> None:
    chats = [conversation(file, "What?"), conversation("No video?"), conversation(clip(3), clip(1), "Which of them?")]
    chats += [conversation(clip(9), "Long enough to be padded against the others, is it not?")]
    expected = [pipe(chat, **SHORT, return_scenes=True) for chat in chats]
    found = pipe(chats, batch_size=batch_size, return_scenes=True, **SHORT)
    assert [one[0]["generated_text"] for one in found] == [one[0]["generated_text"] for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one[0].get("scenes") is None or all(
            torch.equal(a["indices"], b["indices"]) for a, b in zip(one[0]["scenes"], other[0]["scenes"], strict=True)
        )


# Options


def test_options_of_generate_reach_it(pipe, file, answer) -> None:
    several = pipe(file, text="What?", num_return_sequences=3, do_sample=True, top_k=5, **SHORT)
    assert len(several) == 3
    beams = pipe([file, clip(2)], text=["What?", "Who?"], num_beams=2, num_return_sequences=2, batch_size=2, **SHORT)
    assert [len(result) for result in beams] == [2, 2]
    alone = pipe(file, text="What?", num_beams=2, num_return_sequences=2, **SHORT)
    assert [one["generated_text"] for one in beams[0]] == [one["generated_text"] for one in alone]
    config = GenerationConfig(max_new_tokens=4, eos_token_id=pipe.tokenizer.eos_token_id)
    assert pipe(file, text="What?", generation_config=config, return_full_text=False)[0]["generated_text"] == answer
    same = pipe(file, text="What?", generate_kwargs={"max_new_tokens": 4}, return_full_text=False)
    assert same[0]["generated_text"] == answer
    forced = pipe(file, text="What?", bad_words_ids=[[token] for token in range(100, len(pipe.tokenizer))], **SHORT)
    assert forced[0]["generated_text"] != answer
    assert len(pipe(file, text="What?", stop_sequence=answer[:2], max_new_tokens=4)) == 1


def test_generating_warns_of_nothing(pipe, file, caplog) -> None:
    logger = logging.getLogger("transformers")
    before = logger.propagate
    logger.propagate = True
    try:
        with caplog.at_level(logging.WARNING, logger="transformers"):
            pipe(file, text="What?", **SHORT)
    finally:
        logger.propagate = before
    assert not [
        record.getMessage()
        for record in caplog.records
        if "max_" in record.getMessage() or "generation" in record.getMessage()
    ]


def test_a_streamer_gets_the_answer_as_it_is_written(pipe, file, answer, capsys) -> None:
    pipe(
        file, text="What?", streamer=TextStreamer(pipe.tokenizer, skip_prompt=True, skip_special_tokens=True), **SHORT
    )
    assert capsys.readouterr().out.strip("\n") == answer.strip("\n")
    streamer = TextIteratorStreamer(pipe.tokenizer, skip_prompt=True, skip_special_tokens=True)
    pipe(file, text="What?", streamer=streamer, **SHORT)
    assert "".join(streamer) == answer


def test_full_text_repeats_the_question_or_the_chat(pipe, file, answer) -> None:
    assert pipe(file, text="What?", max_new_tokens=4)[0]["generated_text"] == "What?" + answer
    chat = conversation(file, "What?")
    full = pipe(chat, max_new_tokens=4)[0]
    assert full["input_text"] == chat
    assert full["generated_text"] == [*chat, {"role": "assistant", "content": answer}]


def test_a_chat_can_go_on(pipe, file) -> None:
    first = pipe(conversation(file, "What?"), max_new_tokens=3)[0]["generated_text"]
    first[-1]["content"] = "A dog."
    second = pipe([*first, *conversation("And then?")], max_new_tokens=3)[0]["generated_text"]
    assert len(second) == 4 and second[:2] == first and second[-1]["role"] == "assistant"


@pytest.mark.parametrize("as_text", [True, False])
def test_a_final_assistant_message_is_continued(pipe, file, as_text) -> None:
    chat = conversation(file, "What?", answer="I see a")
    if as_text:
        chat[-1]["content"] = "I see a"
    new = pipe(chat, **SHORT)[0]["generated_text"]
    full = pipe(chat, max_new_tokens=4)[0]["generated_text"]
    assert len(full) == 2 and full[-1]["content"][-1]["text"] == "I see a" + new


def test_tensors_are_returned_instead_of_text(pipe, file, answer) -> None:
    result = pipe(file, text="What?", return_tensors=True, max_new_tokens=4)
    assert set(result[0]) == {"input_text", "generated_token_ids"}
    assert pipe.tokenizer.decode(result[0]["generated_token_ids"], skip_special_tokens=True).endswith(answer)


def test_scenes_come_with_every_answer(pipe, file) -> None:
    results = pipe(
        file, text="What?", return_scenes=True, num_scenes=3, num_return_sequences=2, do_sample=True, **SHORT
    )
    assert len(results) == 2
    for result in results:
        (scenes,) = result["scenes"]
        assert scenes["indices"].shape == scenes["timestamps"].shape == (3, 3) and scenes["duration"] == pytest.approx(
            3
        )


def test_scenes_come_where_the_device_knows_no_double_precision(pipe, file, monkeypatch) -> None:
    """As Apple's GPUs, which nothing of float64 can be moved to."""
    move = torch.Tensor.to

    def to(tensor: torch.Tensor, *args, **options) -> torch.Tensor:
        device = next((each for each in (*args, *options.values()) if isinstance(each, torch.device)), None)
        if tensor.dtype == torch.float64 and device is not None and torch.float64 not in (*args, *options.values()):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return move(tensor, *args, **options)

    monkeypatch.setattr(torch.Tensor, "to", to)
    (result,) = pipe(file, text="What?", return_scenes=True, num_scenes=3, **SHORT)
    assert result["scenes"][0]["timestamps"].dtype == torch.float64


def test_options_of_the_processor_reach_it(pipe, file) -> None:
    uniform = pipe(file, text="What?", selection="uniform", num_frames=12, return_scenes=True, **SHORT)
    indices = uniform[0]["scenes"][0]["indices"]
    read = read_frames(file, num_frames=12, seek_mode="auto")
    assert torch.equal(indices.flatten(), torch.tensor(read.metadata.frames_indices))
    nested = pipe(file, text="What?", processor_kwargs={"num_scenes": 2}, return_scenes=True, **SHORT)
    assert nested[0]["scenes"][0]["indices"].shape == (2, 3)


def test_options_may_be_set_once(pipe, file, answer) -> None:
    other = VideoTextToTextPipeline(pipe.model, processor=pipe.processor, num_scenes=2, return_scenes=True, **SHORT)
    result = other(file, text="What?")[0]
    assert len(result["scenes"][0]["indices"]) == 2
    assert other(file, text="What?", num_scenes=4)[0]["generated_text"] == answer


def test_a_calls_options_go_over_the_pipelines_own_name_by_name(pipe, file) -> None:
    own = {"num_scenes": 2, "return_scenes": "pictures", "generate_kwargs": {"max_new_tokens": 3}}
    other = VideoTextToTextPipeline(pipe.model, processor=pipe.processor, return_full_text=False, **own)
    options = {"max_new_tokens": 3, "return_full_text": False, "seed": 3, "min_new_tokens": 2}
    expected = pipe(file, text="What?", num_scenes=2, **options)[0]["generated_text"]
    for given in ({"seed": 3, "min_new_tokens": 2}, {"processor_kwargs": {"seed": 3}, "min_new_tokens": 2}):
        (record,) = other(file, text="What?", **given)
        assert record["generated_text"] == expected and record["scenes"][0]["indices"].shape == (2, 3)
    *_, result = other.stream(file, text="What?", seed=3, min_new_tokens=2)
    assert result.answer == expected and result.scenes[0]["pictures"].shape[:2] == (2, 3)
    three = {"num_scenes": 3, "max_new_tokens": 5, "return_full_text": False}
    (record,) = other(file, text="What?", **three)
    assert record["scenes"][0]["indices"].shape == (3, 3)
    assert record["generated_text"] == pipe(file, text="What?", **three)[0]["generated_text"]
    assert "scenes" not in other(file, text="What?", return_scenes=False)[0]


def test_a_calls_option_stands_in_place_of_the_pipelines_that_excludes_it(pipe, file) -> None:
    own = {
        "num_frames": 12,
        "return_scenes": True,
        "generate_kwargs": {"max_new_tokens": 3},
        "return_full_text": False,
    }
    other = VideoTextToTextPipeline(pipe.model, processor=pipe.processor, **own)
    (record,) = other(file, text="What?", fps=2.0, seek_mode="exact")
    assert record["scenes"][0]["timestamps"].unique().tolist() == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5])
    config = GenerationConfig(max_new_tokens=6, eos_token_id=pipe.tokenizer.eos_token_id)
    expected = pipe(file, text="What?", num_frames=12, generation_config=config, return_full_text=False)
    (record,) = other(file, text="What?", generation_config=config)
    assert record["generated_text"] == expected[0]["generated_text"]


def test_results_have_the_shape_of_the_image_pipeline(pipe) -> None:
    picture = Image.fromarray(clip(1)[0])
    chat = [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "What?"}]}]
    processor = copy.deepcopy(pipe.processor)
    image_pipe = ImageTextToTextPipeline(pipe.model, processor=processor)
    for options in ({"max_new_tokens": 3}, SHORT, {"max_new_tokens": 3, "return_tensors": True}):
        ours, theirs = pipe(chat, **options), image_pipe(text=chat, **options)
        assert [set(one) for one in ours] == [set(one) for one in theirs]
        if "return_tensors" in options:
            ours_input, theirs_input = ours[0].pop("input_text"), theirs[0].pop("input_text")
            # Before transformers 5.24 the input is a `Chat`, which knows no equality.
            assert getattr(ours_input, "messages", ours_input) == getattr(theirs_input, "messages", theirs_input)
            assert torch.equal(ours[0]["generated_token_ids"], theirs[0]["generated_token_ids"])
        else:
            assert ours == theirs
    ours, theirs = pipe([chat, chat], **SHORT), image_pipe(text=[chat, chat], **SHORT)
    assert ours == theirs


def test_text_alone_is_answered(pipe) -> None:
    assert pipe(text="Only text?", **SHORT)[0]["input_text"] == "Only text?"
    assert len(pipe(text=["One?", "Two?"], **SHORT)) == 2


def test_saving_keeps_the_processor(pipe, tmp_path) -> None:
    pipe.save_pretrained(tmp_path)
    processor = FilaVideoProcessor.from_pretrained(tmp_path, trust_remote_code=True)
    assert processor.to_dict() == pipe.processor.to_dict()
    assert processor.chat_template == pipe.processor.chat_template
    assert AutoTokenizer.from_pretrained(tmp_path).padding_side == "left"
    assert (tmp_path / "model.safetensors").exists() and (tmp_path / "pipeline_fila_video.py").exists()


def test_a_loaded_model_object_works_in_pipeline(pipe, file, answer) -> None:
    made = pipeline("video-text-to-text", model=pipe.model, processor=pipe.processor)
    assert isinstance(made, VideoTextToTextPipeline)
    assert made(file, text="What?", **SHORT)[0]["generated_text"] == answer


def test_a_peft_model_works_in_pipeline_and_class(file, answer) -> None:
    import peft

    processor = tiny_processor()
    model = peft.get_peft_model(model_for(processor), peft.LoraConfig(target_modules=["q_proj", "v_proj"]))
    for made in (
        pipeline("video-text-to-text", model=model, processor=processor),
        VideoTextToTextPipeline(model, processor=processor),
    ):
        # A fresh adapter adds nothing.
        assert made(file, text="What?", **SHORT)[0]["generated_text"] == answer


def test_a_quantized_model_works(file) -> None:
    processor = tiny_processor()
    model = model_for(processor)
    model.model.language_model = torch.ao.quantization.quantize_dynamic(
        model.model.language_model, {torch.nn.Linear}, dtype=torch.qint8
    )
    made = pipeline("video-text-to-text", model=model, processor=processor)
    assert made([file, clip(2)], text=["What?", "Who?"], batch_size=2, **SHORT)[1][0]["input_text"] == "Who?"


@pytest.mark.parametrize("where", ["the call", "the pipeline", "generate_kwargs", "a configuration"])
def test_the_length_of_prompt_and_answer_together_can_be_set(pipe, file, where) -> None:
    """The model's own `max_new_tokens`, and those of a pipeline, do not stand over it."""
    num_prompt = pipe.preprocess({"videos": file, "text": "What?"})["model_inputs"]["input_ids"].shape[1]
    length = {"max_length": num_prompt + 3, "eos_token_id": -1}
    own, given = {"max_new_tokens": 6, "return_tensors": True}, length
    if where == "the pipeline":
        own, given = {**length, "return_tensors": True}, {}
    elif where == "generate_kwargs":
        own, given = {"generate_kwargs": {"max_new_tokens": 6}, "return_tensors": True}, {"generate_kwargs": length}
    elif where == "a configuration":
        given = {"generation_config": GenerationConfig(**length)}
    pipe.model.generation_config.max_new_tokens = 5
    try:
        other = VideoTextToTextPipeline(pipe.model, processor=pipe.processor, **own)
        (record,) = other(file, text="What?", **given)
        assert len(record["generated_token_ids"]) == num_prompt + 3
        (record,) = other(file, text="What?", max_new_tokens=4, eos_token_id=-1)
        assert len(record["generated_token_ids"]) == num_prompt + 4
        with pytest.raises(ValueError, match="`max_length` is set to 5"):
            other(file, text="What?", max_length=5)
    finally:
        pipe.model.generation_config.max_new_tokens = None


def test_of_several_inputs_each_has_its_own_question_to_select_by(pipe, file) -> None:
    options = {"selection": "question", "return_scenes": True, "num_scenes": 3, **SHORT}
    answers = pipe([file, file], text=["What?", "Who?"], question=["a cat", "a dog"], **options)
    assert [row[0]["scenes"][0]["scores"]["question"] for row in answers] == ["a cat", "a dog"]
    answers = pipe([file, file], text=["What?", "Who?"], question="a cat", **options)
    assert [row[0]["scenes"][0]["scores"]["question"] for row in answers] == ["a cat", "a cat"]
    with pytest.raises(ValueError, match="`question` has 3 entries for 2 inputs: pass a list with one for each"):
        pipe([file, file], text=["What?", "Who?"], question=["a"] * 3, **options)
    with pytest.raises(ValueError, match="cannot be a list: pass one for all"):
        pipe(iter([file, file]), text="What?", question=["a", "b"], **options)
    with pytest.raises(ValueError, match="belongs to the videos of one call"):
        VideoTextToTextPipeline(pipe.model, processor=pipe.processor, question=["a", "b"])


def test_chats_come_as_rows_and_as_a_column_of_a_dataset_too(pipe) -> None:
    datasets = pytest.importorskip("datasets")
    chats = [[{"role": "user", "content": text}] for text in ("What?", "Who?")]
    expected = pipe(chats, **SHORT)
    rows = datasets.Dataset.from_list([{"messages": chat} for chat in chats])
    for given in (rows["messages"], iter(rows), list(rows), rows.to_iterable_dataset()["messages"]):
        assert list(pipe(given, **SHORT)) == expected
    assert list(pipe(text=rows["messages"], **SHORT)) == expected
    assert pipe(rows[0], **SHORT) == expected[0]


def test_of_several_inputs_each_has_its_own_metadata(pipe, file) -> None:
    metadata = [{"fps": fps, "total_num_frames": 30, "duration": 30 / fps} for fps in (10.0, 3.0)]
    options = {"return_scenes": True, "do_sample_frames": False, **SHORT}
    for videos in ([clip(30), clip(30)], [[clip(30)], [clip(30)]]):
        answers = pipe(videos, text=["What?", "Who?"], video_metadata=metadata, **options)
        times = [row[0]["scenes"][0]["timestamps"].max() for row in answers]
        assert times[0] <= 3 < times[1] <= 10
    mixed = pipe([clip(30), file], text=["What?", "Who?"], video_metadata=[metadata[1], None], **options)
    assert mixed[0][0]["scenes"][0]["timestamps"].max() == times[1]
    (answer,) = pipe([clip(30), clip(30)], text="Which?", video_metadata=metadata, **options)
    assert [scenes["timestamps"].max() for scenes in answer["scenes"]] == times
    with pytest.raises(ValueError, match="`video_metadata` has 1 entries for 2 inputs: pass a list with one for each"):
        pipe([clip(30), clip(30)], text=["What?", "Who?"], video_metadata=metadata[:1], **options)
    with pytest.raises(ValueError, match="`video_metadata` belongs to the videos of one call"):
        VideoTextToTextPipeline(pipe.model, processor=pipe.processor, video_metadata=metadata)


def test_columns_datasets_and_iterators_of_datasets_are_taken(pipe, file, answer) -> None:
    datasets = pytest.importorskip("datasets")
    options = {"max_new_tokens": 4, "return_full_text": False}
    rows = datasets.Dataset.from_dict({"id": [1, 2], "video": [str(file)] * 2, "text": ["What?"] * 2})
    expected = [answer, answer]
    assert [row[0]["generated_text"] for row in pipe(rows["video"], text=rows["text"], **options)] == expected
    for videos in (rows["video"], rows.to_iterable_dataset()["video"]):
        assert [row[0]["generated_text"] for row in pipe(videos, text="What?", **options)] == expected
    assert [row[0]["generated_text"] for row in pipe(rows, **options)] == expected
    assert [row[0]["generated_text"] for row in pipe(rows.to_iterable_dataset(), **options)] == expected
    assert [row[0]["generated_text"] for row in pipe(iter([file, file]), text="What?", **options)] == expected
    with pytest.raises(ValueError, match="KeyDataset"):
        pipe(rows.rename_column("text", "question"))


def test_a_row_of_a_dataset_may_be_a_clip(pipe, file) -> None:
    datasets = pytest.importorskip("datasets")
    rows = {"video": [str(file)] * 2, "text": ["What?"] * 2, "video_start": [1.0, None], "gender": ["f", "m"]}
    options = {"return_scenes": True, **SHORT}
    cut, whole = (row[0]["scenes"][0]["duration"] for row in pipe(datasets.Dataset.from_dict(rows), **options))
    assert (round(cut, 3), round(whole, 3)) == (2.0, 3.0)
    both = {"videos": [None, str(file)], "video": [str(file)] * 2, "text": ["What?"] * 2, "video_end": [1.0, 2.0]}
    cuts = [row[0]["scenes"][0]["duration"] for row in pipe(datasets.Dataset.from_dict(both), **options)]
    assert [round(cut, 3) for cut in cuts] == [1.0, 2.0]
    for name in ("start", "clip_end", "end_time", "video_strat"):
        with pytest.raises(ValueError, match=f"column `{name}` of a dataset is not read: a clip has `video_start`"):
            pipe(datasets.Dataset.from_dict({"video": [str(file)], "text": ["What?"], name: [1.0]}), **SHORT)


def test_a_video_that_is_missing_is_an_error_of_its_row_and_no_blind_answer(pipe, file, answer) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"video": [str(file), None], "text": ["What?"] * 2})
    for inputs, text in (
        (rows, None),
        (rows["video"], "What?"),
        (rows["video"], rows["text"]),
        (iter([file, None]), "What?"),
        ([{"videos": file, "text": "What?"}, {"videos": None, "text": "What?"}], None),
    ):
        good, bad = (row[0] for row in pipe(inputs, text=text, on_error="record", **SHORT))
        assert good["generated_text"] == answer and bad["generated_text"] is None
        assert "Input 1: There is no video in `videos`" in bad["error"]


@pytest.mark.parametrize(
    "begun", [{"type": "text", "text": "a"}, ["a"], [{"text": "a"}], [{"type": "text", "text": "a"}, ""]]
)
def test_an_answer_that_is_begun_goes_on_in_whatever_form_it_is(pipe, file, begun) -> None:
    chat, options = conversation(file, "What?"), {"max_new_tokens": 4}
    expected = pipe([*chat, {"role": "assistant", "content": "a"}], **options)[0]["generated_text"][-1]
    (result,) = pipe([*chat, {"role": "assistant", "content": begun}], **options)
    assert result["generated_text"][-1] == expected and expected["content"][0]["text"].startswith("a")


@pytest.mark.parametrize("empty", ["", None, [], [""], {"type": "text", "text": ""}])
def test_an_empty_last_answer_is_none_that_is_begun(pipe, file, answer, empty) -> None:
    chat = [*conversation(file, "What?"), {"role": "assistant", "content": empty}]
    (result,) = pipe(chat, max_new_tokens=4)
    assert result["generated_text"][1:] == [{"role": "assistant", "content": answer}]
    assert pipe(chat, **SHORT)[0]["generated_text"] == answer
    with pytest.raises(ValueError, match="`continue_final_message` needs a chat that ends with an answer"):
        pipe(chat, continue_final_message=True, **SHORT)
    with pytest.raises(ValueError, match="begun ends with a text"):
        pipe([*chat[:-1], {"role": "assistant", "content": [{"type": "image", "image": "a.png"}]}], **SHORT)


def test_numbers_of_numpy_and_of_json_are_taken_and_none_leaves_an_option_as_it_is(pipe, file) -> None:
    options = {"return_scenes": True, **SHORT}
    expected = pipe(file, text="What?", num_scenes=3, candidate_fps=5.0, **options)[0]
    for three, five in ((np.int64(3), np.float32(5)), (3.0, np.int32(5)), (np.float64(3), 5)):
        (result,) = pipe(file, text="What?", num_scenes=three, candidate_fps=five, **options)
        assert torch.equal(result["scenes"][0]["indices"], expected["scenes"][0]["indices"])
        assert result["generated_text"] == expected["generated_text"]
    (result,) = pipe(file, text="What?", num_scenes=None, processor_kwargs={"selection": None}, **options)
    assert len(result["scenes"][0]["indices"]) == 4
    assert len(pipe.chat(file, num_scenes=np.int64(2), seed=None, max_new_tokens=2).ask("What?")) >= 0


def test_strings_that_end_an_answer_need_no_tokenizer_of_the_user(pipe, file, answer) -> None:
    chat, options = pipe.chat(file), {"max_new_tokens": 4, "stop_strings": [answer[:1]]}
    expected = answer[: answer.index(answer[:1]) + 1]
    told = pipe(file, text="What?", return_full_text=False, **options)[0]["generated_text"]
    assert told.startswith(expected) and len(told) < len(answer)
    assert chat.ask("What?", **options) == told
    config = GenerationConfig(max_new_tokens=4, stop_strings=[answer[:1]], do_sample=False)
    assert pipe(file, text="What?", return_full_text=False, generation_config=config)[0]["generated_text"] == told


def test_a_service_refuses_addresses_of_its_own_network(pipe, server, answer) -> None:
    assert pipe(server, text="What?", **SHORT)[0]["generated_text"] == answer
    with pytest.raises(ValueError, match="allow_private_hosts"):
        pipe(server, text="What?", allow_private_hosts=False, **SHORT)
