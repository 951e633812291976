"""From records to batches: what is seen, what is learned, in which order, and what happens to what cannot be read."""

import json
import re
from collections import Counter

import PIL.Image
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard, DataLoaderShard, skip_first_batches
from fila_video.long_video.records import make_record
from fila_video.training.collator import Collator
from fila_video.training.data import Mixture, MixtureSampler, RecordSet, SortedSteps, each_configuration
from fila_video.training.isolated_turns import isolate_turns
from fila_video.training.samples import IGNORED, SampleEncoder
from fila_video.training.settings import AnswerNoise, DataSet, Sampling, TrainingError
from helpers.tiny_processor import model_for, tiny_processor
from helpers.training_runs import NUM_IMAGES, NUM_VIDEOS, image_record, turns, video_record, world, write_lines
from torch.utils.data import BatchSampler

PROCESSOR = tiny_processor(seek_mode="exact")


def encoder(isolate_turns: bool = False, answer_noise: AnswerNoise | None = None, **sampling) -> SampleEncoder:
    return SampleEncoder(PROCESSOR, Sampling(**{"num_scenes": 2, **sampling}), 0, isolate_turns, answer_noise)


def encode(record: dict, key=(0, 0, 0), **arguments) -> dict:
    return encoder(**arguments)(record, RecordSet(DataSet(str(world() / "videos.jsonl"))), key)


def batch_of(samples: list[dict], *arguments) -> dict:
    batch = Collator(PROCESSOR.tokenizer.pad_token_id, *arguments)(samples)
    assert batch.pop("unreadable") == []
    return batch


def learned(sample: dict) -> str:
    return PROCESSOR.tokenizer.decode(sample["labels"][sample["labels"] != IGNORED])


def by_chat_template(record: dict, num_frames: int = 6) -> dict:
    """What the processor itself makes of the conversation."""
    messages = []
    for turn in record["conversations"]:
        text = turn["value"].removeprefix("<image>\n")
        content = [{"type": "text", "text": text}]
        if text != turn["value"]:
            content.insert(0, {"type": "video", "video": str(world() / record["video"])})
        messages.append({"role": {"human": "user", "gpt": "assistant"}[turn["from"]], "content": content})
    settings = {"num_frames": num_frames, "num_scenes": num_frames // 3, "selection": "uniform"}
    return PROCESSOR.apply_chat_template(
        messages,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        return_assistant_tokens_mask=True,
        processor_kwargs=settings,
    )


def test_a_sample_is_what_the_chat_template_gives_and_learns_the_assistant_s_turns() -> None:
    sample, expected = encode(video_record(1)), by_chat_template(video_record(1))
    assert torch.equal(sample["input_ids"], expected["input_ids"][0])
    assert torch.equal(sample["labels"] != IGNORED, torch.as_tensor(expected["assistant_masks"]).bool()[0])
    assert torch.equal(sample["pixel_values_videos"], expected["pixel_values_videos"])
    assert learned(sample) == "Number 1.<|im_end|>Only one.<|im_end|>No, it is gray.<|im_end|>"


def test_the_frames_are_uniform_and_the_prompt_names_their_scenes_times() -> None:
    """28 frames at 10 a second. Of 6 even times the third, 1.08 s, and the last stand for the two scenes."""
    text = PROCESSOR.tokenizer.decode(encode(video_record(2))["input_ids"])
    assert "This video samples 2 frames of a 2.8-second video at 1.0, 2.7 seconds.\nWhat is it?" in text


def test_lengths_are_drawn_from_the_list_and_again_the_same() -> None:
    draw = encoder(num_scenes=[1, 2, 4])._draw
    drawn = [draw((0, 0, index))["num_scenes"] for index in range(60)]
    assert drawn == [draw((0, 0, index))["num_scenes"] for index in range(60)]
    assert set(drawn) == {1, 2, 4}
    assert drawn != [draw((1, 0, index))["num_scenes"] for index in range(60)]
    assert draw((0, 0, 0))["num_frames"] == 3 * drawn[0]


def test_several_images_and_a_video_in_several_turns() -> None:
    record = {
        "image": ["0.png", "1.png"],
        "video": "videos/0.mp4",
        "conversations": turns("First?", "A.", "<video>\nThen <image>\nthere?", "B."),
    }
    sample = encode(record)
    assert sample["pixel_values"].shape == (2, 3, 20, 20) and sample["video_num_scenes"].tolist() == [2]
    ids = sample["input_ids"].tolist()
    images = [at for at, token in enumerate(ids) if token == PROCESSOR.image_token_id]
    videos = [at for at, token in enumerate(ids) if token == PROCESSOR.video_token_id]
    assert images[0] < videos[0] < images[-1] and learned(sample) == "A.<|im_end|>B.<|im_end|>"


def test_words_alone_and_a_medium_without_a_placeholder() -> None:
    assert "pixel_values" not in encode({"conversations": turns("Hello?", "Hello.", medium="")})
    bare = {**video_record(0), "conversations": turns("What?", "It.", medium="")}
    placed = {**video_record(0), "conversations": turns("What?", "It.")}
    assert torch.equal(encode(bare)["input_ids"], encode(placed)["input_ids"])


def test_a_long_video_record_is_read_from_its_segments() -> None:
    inputs = [
        {"id": str(n), "data_source": "", "file": f"videos/{n}.mp4", "caption": f"Scene {n}.", "duration": 2.5}
        for n in range(2)
    ]
    sample = encode(make_record(0, inputs, seed=1), num_scenes=4)
    text = PROCESSOR.tokenizer.decode(sample["input_ids"])
    assert "This video samples 4 frames of a 5.0-second video" in text and "<time_instruction>" not in text
    assert learned(sample).startswith("From 0.0 to 2.5 seconds: Scene 0.")
    assert sample["pixel_values_videos"].shape[1] == 12


@pytest.mark.parametrize("isolate_turns", [False, True])
def test_noise_changes_what_an_answer_is_read_as_and_not_what_is_learned(isolate_turns) -> None:
    asked = ("Is it red or green?", "It is red, then it is green, and a star.", "A red star?", "No, it is green.")
    record = {**video_record(0), "conversations": turns(*asked)}
    clean = encode(record, isolate_turns=isolate_turns)
    noise = AnswerNoise(share=0.5, words=["red", "green", "blue"])
    samples = [encode(record, (0, 0, n), isolate_turns=isolate_turns, answer_noise=noise) for n in range(30)]
    again = encode(record, (0, 0, 7), isolate_turns=isolate_turns, answer_noise=noise)
    assert torch.equal(samples[7]["input_ids"], again["input_ids"])
    words = {PROCESSOR.tokenizer.convert_tokens_to_ids(f"\u0120{word}") for word in noise.words}
    changed = Counter()
    for sample in samples:
        assert torch.equal(sample["labels"], clean["labels"])
        for at in (sample["input_ids"] != clean["input_ids"]).nonzero()[:, 0].tolist():
            changed[at] += 1
            assert sample["labels"][at] == clean["input_ids"][at] and clean["labels"][at].item() in words
            assert sample["input_ids"][at].item() in words
    # Of the three words in the answers, each about every second time; never of those in the questions.
    assert len(changed) == 3 and all(5 <= times <= 25 for times in changed.values())


def test_noise_is_of_words_of_one_token() -> None:
    with pytest.raises(TrainingError, match="one token each, but 'chartreuse' has "):
        encoder(answer_noise=AnswerNoise(share=0.5, words=["red", "chartreuse"]))


def test_isolated_turns_have_the_loss_of_each_question_alone() -> None:
    """One row a video with three questions, against a row a question; token by token the same prompts."""
    model = model_for(PROCESSOR).train()
    records = [video_record(0), {**video_record(1), "conversations": turns("Where?", "Here.", "When?", "At noon.")}]
    together = batch_of([encode(record, isolate_turns=True) for record in records], True)
    assert together["input_ids"].shape[0] == 2
    alone = []
    for record in records:
        for at in range(0, len(record["conversations"]), 2):
            texts = [turn["value"].removeprefix("<image>\n") for turn in record["conversations"][at : at + 2]]
            one = {**record, "conversations": turns(*texts)}
            alone.append(encode(one))
            assert torch.equal(alone[-1]["input_ids"], by_chat_template(one)["input_ids"][0])
    alone = model(**batch_of(alone))
    seen = model(**batch_of([encode(record) for record in records])).loss
    isolate_turns(model.model.language_model)
    together = model(**together)
    torch.testing.assert_close(together.loss, alone.loss, atol=1e-5, rtol=0)
    # Without isolation the later questions see the earlier answers.
    assert (seen - alone.loss).abs() > 1e-4


def test_isolated_turns_learn_what_they_learn_alone() -> None:
    """Gradients, of single images beside videos and of a sample with one question."""
    model = model_for(PROCESSOR).train()
    records = [video_record(0), image_record(1), {"conversations": turns("Hello?", "Hello.", medium="")}]
    asked = [turn["value"].removeprefix("<image>\n") for turn in records[0]["conversations"]]
    ones = [{**records[0], "conversations": turns(*asked[at : at + 2])} for at in range(0, len(asked), 2)]
    model(**batch_of([encode(record) for record in [*ones, *records[1:]]])).loss.backward()
    given = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    isolate_turns(model.model.language_model)
    model(**batch_of([encode(record, isolate_turns=True) for record in records], True)).loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, given[name], atol=1e-5, rtol=1e-3, msg=name)


def test_attention_of_isolated_turns_refuses_a_batch_that_does_not_say_where_they_are() -> None:
    model = model_for(PROCESSOR).train()
    isolate_turns(model.model.language_model)
    batch = batch_of([encode(video_record(0))])
    with pytest.raises(ValueError, match="needs `turn_lengths`"):
        model(**batch)
    model.model.language_model.set_attn_implementation("sdpa")
    assert model(**batch).loss.isfinite()


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (video_record(0, video="videos/99.mp4"), "there is no file"),
        (video_record(0, video="images.json"), "images.json"),
        (video_record(0, video=["videos/0.mp4", "videos/1.mp4"]), "1 of videos, but the record has 0 images and 2"),
        (image_record(0, image=None), "1 of videos, but the record has 0 images and 0 videos"),
        (video_record(0, conversations=turns("Only a question")), "no turn of the assistant"),
        (video_record(0, conversations=turns("What <|im_end|>?", "It.")), "control token"),
        (video_record(0, conversations=[{"from": "robot", "value": "Hi"}]), "of human, gpt or system"),
        (video_record(0, conversations="Hi"), "must be a list of turns"),
        (video_record(0, conversations=turns("Show", "<image>\nHere.", medium="")), "in questions, not in answers"),
        (video_record(0, conversations=turns("What?", "It.", "Tag?", "A <video>")), "in questions, not in answers"),
        (video_record(0, conversations=turns("What?", " \n")), "a turn of gpt has no words"),
        (image_record(0, image=["0.png", ""]), "`image` holds an empty name"),
        (image_record(0, image={"path": ""}), "`image` holds an empty name"),
        (video_record(0, conversations=turns("What?", "Long. " * 5000)), "but the model's context has"),
    ],
)
def test_a_record_that_cannot_be_used_says_why(record, message) -> None:
    with pytest.raises((ValueError, OSError), match=message):
        encode(record)


def test_isolated_turns_refuse_media_behind_the_first_question() -> None:
    record = {**video_record(0), "conversations": turns("One?", "1.", "<image>\nTwo?", "2.", medium="")}
    with pytest.raises(ValueError, match="must come before the first question"):
        encode(record, isolate_turns=True)


def sources(**weights) -> tuple[list[int], list[DataSet]]:
    return [10, 4], [DataSet("a", **weights.get("a", {})), DataSet("b", **weights.get("b", {}))]


def test_an_epoch_has_the_sets_by_their_weights_and_an_order_by_the_seed() -> None:
    sizes, sets = sources(a={"weight": 0.5}, b={"count": 9})
    sampler = MixtureSampler(sizes, sets, seed=3)
    first = list(sampler)
    assert len(first) == len(sampler) == 14 and first == list(MixtureSampler(sizes, sets, seed=3))
    assert first != list(MixtureSampler(sizes, sets, seed=4))
    half = [index for _, number, index in first if number == 0]
    times = Counter(index for _, number, index in first if number == 1)
    assert len(set(half)) == 5 and sorted(times.values()) == [2, 2, 2, 3]  # nine of four: twice each, and one more
    sampler.set_epoch(1)
    second = list(sampler)
    assert {epoch for epoch, _, _ in second} == {1} and [key[1:] for key in second] != [key[1:] for key in first]


def test_a_subset_is_the_same_in_every_run_and_epoch() -> None:
    path = str(world() / "videos.jsonl")
    one, two = RecordSet(DataSet(path, subset=0.5)), RecordSet(DataSet(path, subset=3))
    assert len(one) == NUM_VIDEOS // 2 and list(one.indices) == list(two.indices)
    assert len(RecordSet(DataSet(path, subset=1.0))) == NUM_VIDEOS  # a share, where 1 is one record
    assert len(RecordSet(DataSet(path, subset=1))) == 1
    with pytest.raises(TrainingError, match="`subset` of 7 cannot be taken of 6 records"):
        RecordSet(DataSet(path, subset=7))


def test_sets_of_every_form_give_equal_records(tmp_path) -> None:
    import datasets

    records = [image_record(number) for number in range(NUM_IMAGES)]
    write_lines(tmp_path / "lines.jsonl", records[:2])
    write_lines(tmp_path / "lines2.jsonl", records[2:])
    datasets.Dataset.from_list(records).to_parquet(tmp_path / "rows.parquet")
    for path in (world() / "images.json", tmp_path / "lines*.jsonl", tmp_path / "rows.parquet"):
        found = RecordSet(DataSet(str(path)))
        assert [dict(found[index]) for index in range(len(found))] == records, path


def test_images_that_datasets_holds_are_read(tmp_path) -> None:
    import datasets

    rows = [{"id": "a", "image": str(world() / "3.png"), "conversations": image_record(3)["conversations"]}]
    datasets.Dataset.from_list(rows).cast_column("image", datasets.Image()).save_to_disk(tmp_path / "saved")
    records = RecordSet(DataSet(str(tmp_path / "saved")))
    assert torch.equal(
        encoder()(records[0], records, (0, 0, 0))["pixel_values"], encode(image_record(3))["pixel_values"]
    )


def test_missing_and_empty_sets_are_refused(tmp_path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    for name, message in (("none.json", "no file"), ("empty.jsonl", "no records")):
        with pytest.raises(TrainingError, match=message):
            RecordSet(DataSet(str(tmp_path / name)))


def test_a_split_of_sets_that_are_read_whole_is_refused(tmp_path) -> None:
    import datasets

    records = [image_record(number) for number in range(NUM_IMAGES)]
    joined = tmp_path / "joined"
    (joined / ".build").mkdir(parents=True)
    (joined / "data").mkdir()
    (joined / "README.md").write_text("complete")
    write_lines(joined / "data" / "train-00000-of-00001.jsonl", records)
    datasets.Dataset.from_list(records).to_parquet(tmp_path / "rows.parquet")
    for path in (world() / "images.json", world() / "videos*.jsonl", joined, tmp_path / "rows.parquet"):
        with pytest.raises(TrainingError, match=rf"{re.escape(str(path))}'.*`split` 'test'.*read whole.*leave it out"):
            RecordSet(DataSet(str(path), split="test"))
        assert len(RecordSet(DataSet(str(path), split="train"))) > 0


def test_of_a_set_with_several_configurations_one_is_named_or_all_are_meant(tmp_path) -> None:
    import datasets

    records, folder = [image_record(number) for number in range(NUM_IMAGES)], tmp_path / "several"
    card = ["---", "configs:"]
    for name, rows in (("first(a,b)", records[:1]), ("second", records[1:])):
        datasets.Dataset.from_list(rows).to_parquet(folder / name / "train-00000-of-00001.parquet")
        card += [f'- config_name: "{name}"', f'  data_files: "{name}/*.parquet"']
    (folder / "README.md").write_text("\n".join([*card, "---", ""]))
    sets = [RecordSet(DataSet(str(folder), name=name)) for name in ("first(a,b)", "second")]
    assert [[dict(found[index]) for index in range(len(found))] for found in sets] == [records[:1], records[1:]]
    assert sets[0].name == f"{folder}, first(a,b)"
    message = r"(?s)Config name is missing.*first\(a,b\).*Name one by `data\[\].name`, or all"
    with pytest.raises(TrainingError, match=message):
        RecordSet(DataSet(str(folder)))
    every = each_configuration(DataSet(str(folder), name="*", weight=2.0))
    assert [(one.name, one.weight) for one in every] == [("first(a,b)", 2.0), ("second", 2.0)]
    with pytest.raises(TrainingError, match="`datasets` finds no configurations in"):
        each_configuration(DataSet(str(tmp_path / "absent"), name="*"))
    datasets.Dataset.from_list(records).to_parquet(tmp_path / "rows.parquet")
    for path in (world() / "images.json", tmp_path / "rows.parquet"):
        with pytest.raises(TrainingError, match=rf"{re.escape(str(path))}.*`name` 'second' is of .*leave it out"):
            RecordSet(DataSet(str(path), name="second"))


def test_a_build_that_misses_shards_is_refused_with_both_numbers(tmp_path) -> None:
    (tmp_path / ".build").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "README.md").write_text("complete")
    for shard, message in enumerate(("has none of its shards", "has 1 of its 3 shards")):
        with pytest.raises(TrainingError, match=message):
            RecordSet(DataSet(str(tmp_path)))
        write_lines(tmp_path / "data" / f"train-0000{shard}-of-00003.jsonl", [video_record(0)])


def test_a_pattern_of_folders_finds_files_of_any_depth_and_needs_the_folder_of_media(tmp_path) -> None:
    for number, folder in enumerate((tmp_path, tmp_path / "a", tmp_path / "a" / "b")):
        folder.mkdir(exist_ok=True)
        write_lines(folder / "lines.jsonl", [image_record(number)])
    pattern = str(tmp_path / "**" / "lines.jsonl")
    records = RecordSet(DataSet(pattern, media=str(world())))
    assert sorted(record["id"] for record in records) == ["i0", "i1", "i2"]
    with pytest.raises(TrainingError, match="matches files of several folders: say by `media`"):
        RecordSet(DataSet(pattern))
    assert len(RecordSet(DataSet(str(tmp_path / "a" / "l*.jsonl")))) == 1


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"selection": ["uniform", "kmean"]}, "`sampling`: Unknown `selection` 'kmean'"),
        ({"candidate_fps": -1.0}, "`sampling`: `candidate_fps` must be a positive number, got -1"),
        ({"max_candidates": 0}, "`sampling`: `max_candidates` must be at least 1, got 0"),
        ({"selection": "question"}, "`sampling.selection` cannot be question in training"),
    ],
)
def test_sampling_that_cannot_be_is_refused_before_the_first_sample(sampling, message) -> None:
    with pytest.raises(TrainingError, match=message):
        encoder(**sampling)


def test_a_pool_beside_a_processor_that_says_what_is_read_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(PROCESSOR.video_processor, "num_frames", 8)
    with pytest.raises(TrainingError, match=r"`sampling.max_candidates` has no effect .* `num_frames`"):
        encoder(selection="kmeans", max_candidates=9)
    assert encoder(selection="kmeans")


def test_what_is_not_a_number_is_missing() -> None:
    record = video_record(0)
    plain, given = encode(record), encode({**record, "image": float("nan"), "segments": float("nan")})
    assert learned(given) == learned(plain)


@pytest.mark.parametrize("error", [SyntaxError("not a TIFF file"), PIL.Image.DecompressionBombError("too large")])
def test_a_picture_that_a_loaded_set_cannot_decode_is_replaced_too(error) -> None:
    class Loaded(RecordSet):
        def __getitem__(self, index: int) -> dict:
            if index == 1:
                raise error
            return super().__getitem__(index)

    records = Loaded(DataSet(str(world() / "videos.jsonl")))
    sample = Mixture([records], encoder(), seed=0, unreadable="skip")[0, 0, 1]
    assert [(item["record"], str(error) in str(item)) for item in sample["unreadable"]] == [(2, True)]


def test_several_processes_that_go_on_within_an_epoch_have_its_order() -> None:
    mixture = Mixture([RecordSet(DataSet(str(world() / "videos.jsonl")))], encoder(), seed=0)
    batches = BatchSampler(SortedSteps(mixture.sampler, 2, lambda key: 0), 1, drop_last=True)
    loader = DataLoaderShard(mixture, batch_sampler=BatchSamplerShard(batches, 2, 0), collate_fn=list)
    rest = skip_first_batches(loader, 1)
    rest.set_epoch(1)
    assert mixture.sampler.epoch == 1 and {key[0] for key in mixture.sampler} == {1}


def broken(tmp_path, count: int = 4) -> RecordSet:
    """Records of which the second names a missing file, and the third one that is no video."""
    (tmp_path / "text.mp4").write_text("no video at all")
    records = [video_record(number) for number in range(count)]
    records[1]["video"], records[2]["video"] = "videos/gone.mp4", str(tmp_path / "text.mp4")
    write_lines(tmp_path / "broken.jsonl", records)
    return RecordSet(DataSet(str(tmp_path / "broken.jsonl"), media=str(world())))


def test_what_cannot_be_read_is_fatal_or_named_and_replaced(tmp_path) -> None:
    records = broken(tmp_path)
    with pytest.raises(TrainingError, match=r"broken.jsonl, record 2, id v1, videos/gone.mp4: .*there is no file"):
        Mixture([records], encoder(), seed=0)[0, 0, 1]
    sample = Mixture([records], encoder(), seed=0, unreadable="skip")[0, 0, 1]
    assert [(item["record"], item["id"]) for item in sample["unreadable"]] == [(2, "v1"), (3, "v2")]
    assert "text.mp4" in sample["unreadable"][1]["media"] and learned(sample).startswith("Number 3.")
    batch = Collator(0)([sample, encode(video_record(0))])
    assert len(batch["unreadable"]) == 2 and batch["input_ids"].shape[0] == 2


def test_a_set_of_nothing_but_unreadable_records_stops(tmp_path) -> None:
    write_lines(tmp_path / "none.jsonl", [video_record(number, video=f"{number}.mp4") for number in range(3)])
    data = Mixture([RecordSet(DataSet(str(tmp_path / "none.jsonl")))], encoder(), seed=0, unreadable="skip")
    with pytest.raises(TrainingError, match="3 records in turn cannot be used"):
        data[0, 0, 1]


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_a_line_that_is_no_json_is_named(tmp_path, suffix) -> None:
    path = tmp_path / f"torn.{suffix}"
    path.write_text(json.dumps(video_record(0)) + '\n{"id": "to\n')
    data = Mixture([RecordSet(DataSet(str(path), media=str(world())))], encoder(), seed=0, unreadable="skip")
    assert [item["record"] for item in data[0, 0, 1]["unreadable"]] == [2]


SEGMENT = {"file": "videos/0.mp4", "start": 0, "end": 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segments": [SEGMENT], "conversations": None}, "`conversations` must be a list of turns"),
        ({"segments": [{"start": 0, "end": 2}]}, "segment 1 has no `file`"),
        ({"segments": [SEGMENT, {**SEGMENT, "file": 5}]}, "`file` of segment 2 cannot be 5"),
        ({"segments": [{**SEGMENT, "end": "2"}]}, "`end` of segment 1 cannot be '2'"),
        ({"segments": {"file": "videos/0.mp4"}}, "`segments` must be a list of objects"),
        ({"segments": 5}, "`segments` must be a list of objects"),
        ({"segments": [{**SEGMENT, "file": ""}]}, "`file` of segment 1 is an empty name"),
        ({"segments": ["videos/0.mp4"]}, "`segments` must be a list of objects"),
        ({"conversations": [{"from": ["human"], "value": "Hi"}]}, "of human, gpt or system"),
        ({"conversations": turns("What \ud800?", "It.")}, "holds half a surrogate pair"),
    ],
)
@pytest.mark.parametrize("isolated", [False, True])
def test_a_record_of_any_form_is_named_or_skipped(tmp_path, changes, message, isolated) -> None:
    path = write_lines(tmp_path / "odd.jsonl", [{**video_record(0), **changes}, video_record(1)])
    records = RecordSet(DataSet(str(path), media=str(world())))
    with pytest.raises(TrainingError, match=rf"odd\.jsonl, record 1, id v0, .*{re.escape(message)}"):
        Mixture([records], encoder(isolated), seed=0)[0, 0, 0]
    sample = Mixture([records], encoder(isolated), seed=0, unreadable="skip")[0, 0, 0]
    assert [item["record"] for item in sample["unreadable"]] == [1] and learned(sample).startswith("Number 1.")


@pytest.mark.parametrize("error", [KeyError("file"), TypeError("no text"), AttributeError("x"), IndexError("1")])
def test_whatever_a_record_raises_is_named_or_skipped(error) -> None:
    def encode(record: dict, *_: object) -> dict:
        if record["id"] == "v0":
            raise error
        return {}

    records = RecordSet(DataSet(str(world() / "videos.jsonl")))
    with pytest.raises(TrainingError, match=rf"videos\.jsonl, record 1, id v0, .*{type(error).__name__}"):
        Mixture([records], encode, seed=0)[0, 0, 0]
    (refused,) = Mixture([records], encode, seed=0, unreadable="skip")[0, 0, 0]["unreadable"]
    assert refused["reason"].startswith(type(error).__name__)


def test_segments_are_read_with_messages_too() -> None:
    question = {"role": "user", "content": "<video>\n<time_instruction>\nWhat?"}
    record = {"segments": [SEGMENT, SEGMENT], "messages": [question, {"role": "assistant", "content": "It."}]}
    sample = encode(record)
    assert "2 frames of a 4.0-second video" in PROCESSOR.tokenizer.decode(sample["input_ids"])


def test_a_torn_array_is_an_error_of_training_that_names_its_file(tmp_path) -> None:
    (tmp_path / "torn.json").write_text('[{"id": 1}]\n[{"id": 2}]')
    with pytest.raises(TrainingError, match=r"torn\.json' is not valid JSON"):
        RecordSet(DataSet(str(tmp_path / "torn.json")))


def asked(*kinds: str) -> dict:
    """A record as make-videos writes it, of one question of each of `kinds`, the first of which shows the video."""
    record = {"video": "video.mp4", "conversations": [], "questions": []}
    for number, kind in enumerate(kinds):
        question = ("" if number else "<image>\n") + f"{kind}?"
        record["conversations"] += [{"from": "human", "value": question}, {"from": "gpt", "value": str(number)}]
        record["questions"].append({"kind": kind, "form": "choice" if number == 1 else "free"})
    return record


def test_a_set_can_be_left_to_some_kinds_of_question(tmp_path) -> None:
    path = write_lines(
        tmp_path / "asked.jsonl", [asked("what", "when", "count"), asked("what"), asked("when", "when")]
    )
    records = RecordSet(DataSet(str(path), questions={"kind": ["when", "count"]}))
    texts = [[turn["value"] for turn in records[number]["conversations"]] for number in range(len(records))]
    assert texts == [["<image>\nwhen?", "1", "count?", "2"], ["<image>\nwhen?", "0", "when?", "1"]]
    free = RecordSet(DataSet(str(path), questions={"kind": ["when"], "form": ["free"]}))
    assert len(free) == 1 and len(free[0]["questions"]) == 1
    with pytest.raises(TrainingError, match=r"no record has a question with \{'kind': \['side'\]\}"):
        RecordSet(DataSet(str(path), questions={"kind": ["side"]}))


@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_a_record_that_is_no_json_is_left_to_what_is_done_with_unreadable_ones(tmp_path, ending) -> None:
    records = [
        video_record(number, questions=[{"kind": kind} for kind in ("what", "when", "is")]) for number in (0, 1)
    ]
    path = write_lines(tmp_path / f"asked.{ending}", [records[0], {}, records[1]])
    path.write_text(path.read_text().replace("{}", '{"id": "torn"'))
    found = RecordSet(DataSet(str(path), media=str(world()), questions={"kind": ["when"]}))
    with pytest.raises(TrainingError, match=rf"asked\.{ending}, record 2, .*`unreadable: skip` goes on without it"):
        Mixture([found], encoder(), seed=0)[0, 0, 1]
    sample = Mixture([found], encoder(), seed=0, unreadable="skip")[0, 0, 1]
    assert [item["record"] for item in sample["unreadable"]] == [2] and learned(sample).startswith("Only one.")


def test_questions_of_records_without_annotations_cannot_be_chosen() -> None:
    with pytest.raises(TrainingError, match=r"record 1: `questions` needs records as make-videos writes them"):
        RecordSet(DataSet(str(world() / "videos.jsonl"), questions={"kind": ["when"]}))


def test_tokens_of_media_are_never_learned() -> None:
    content = [{"type": "video"}, {"type": "image"}, {"type": "text", "text": "Here."}]
    chat = [{"role": "user", "content": [{"type": "text", "text": "Show"}]}, {"role": "assistant", "content": content}]
    ids, labels = encoder()._tokens(chat, {"video": ["<video><video>"], "image": ["<image>"]})
    visual = {PROCESSOR.image_token_id, PROCESSOR.video_token_id}
    assert sum(token in visual for token in ids) == 3
    kept = [label for label in labels if label != IGNORED]
    assert PROCESSOR.tokenizer.decode(kept).strip() == "Here.<|im_end|>" and not visual & set(kept)


def test_turns_with_the_keys_of_both_forms_and_records_that_name_no_medium() -> None:
    """As `datasets` gives them where a set has both forms; some sets of words alone have an empty name."""
    plain = {"conversations": turns("Hello?", "Hello.", medium="")}
    roles = {"human": "user", "gpt": "assistant"}
    both = [
        {"from": None, "value": None, "role": roles[turn["from"]], "content": turn["value"]}
        for turn in plain["conversations"]
    ]
    mixed = [{**turn, "role": None, "content": None} for turn in plain["conversations"]]
    expected = encode(plain)["input_ids"]
    for record in ({"conversations": mixed, "messages": None}, {"conversations": None, "messages": both}):
        assert torch.equal(encode(record)["input_ids"], expected)
    assert torch.equal(encode({**plain, "image": "", "video": " "})["input_ids"], expected)
    shown = {"images": ["0.png"], "conversations": turns("What?", "A picture.")}
    assert torch.equal(encode({"image": "", **shown})["input_ids"], encode(shown)["input_ids"])


def test_a_record_that_is_no_json_says_what_is_wrong_with_it(tmp_path) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps(video_record(0), indent=1))
    data = Mixture([RecordSet(DataSet(str(path)))], encoder(), seed=0)
    with pytest.raises(TrainingError, match=r"one\.json, record or line 1 is not valid JSON: Expecting property name"):
        data[0, 0, 0]


def test_a_mark_before_utf_8_is_no_record_and_a_folder_is_no_file(tmp_path) -> None:
    record = video_record(0)
    for number, start in enumerate(("\ufeff", "\ufeff\r\n", "\ufeff\n\n")):
        (tmp_path / f"{number}.jsonl").write_text(start + json.dumps(record) + "\n", encoding="utf-8")
        records = RecordSet(DataSet(str(tmp_path / f"{number}.jsonl")))
        assert [records[index] for index in range(len(records))] == [record]
    (tmp_path / "folder.jsonl").mkdir()
    assert len(RecordSet(DataSet(str(tmp_path / "*.jsonl")))) == 3
    with pytest.raises(TrainingError, match="There is no file"):
        RecordSet(DataSet(str(tmp_path / "folder.jsonl")))
