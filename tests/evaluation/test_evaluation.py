"""Answering the questions of annotated videos: the same answers as the pipeline's, judged, counted and kept."""

import json
import os

import numpy as np
import pytest
import torch
from fila_video.evaluation import answer_questions
from fila_video.evaluation.answering import Answerer
from fila_video.evaluation.intervals import accuracy, difference
from fila_video.evaluation.judging import BlindBaseline
from fila_video.evaluation.records import Question, Record, read_records
from fila_video.evaluation.results import evaluate, explained, load_results, save_results, summary
from fila_video.evaluation.selections import (
    SELECTIONS,
    Precomputed,
    Recall,
    event_recall,
    find_selection,
    own_selection,
)
from fila_video.pipeline_fila_video import VideoTextToTextPipeline
from helpers.evaluation_files import make_set, write_lines
from helpers.tiny_processor import model_for, tiny_processor
from PIL import Image

LENGTH = 6


@pytest.fixture(scope="module")
def records_file(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def records(records_file):
    return read_records(records_file)


@pytest.fixture(scope="module")
def model():
    return model_for(tiny_processor())


@pytest.fixture(scope="module")
def results(model, records):
    """With four scenes, which take pools whole."""
    answerer = Answerer(model, tiny_processor(), max_new_tokens=LENGTH)
    return evaluate({"tiny": answerer}, records, SELECTIONS)


@pytest.fixture(scope="module")
def selected(model, records):
    """With two scenes, for which half of a pool is selected."""
    answerer = Answerer(model, tiny_processor(num_scenes=2), max_new_tokens=LENGTH)
    return evaluate({"tiny": answerer}, records, SELECTIONS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return str(folder)


PIPELINE_OPTIONS = {
    "uniform": {"selection": "uniform"},
    "bsm": {"selection": "bsm"},
    "kmeans_dissimilar": {"selection": "kmeans_dissimilar"},
    "kmeans": {"selection": "kmeans"},
    "kmeans_random": {"selection": "kmeans", "init": "random"},
    "question": {"selection": "question"},
    "question_first": {
        "selection": "question",
        "question_layers": "first",
        "neutral_question": "What can be seen?",
    },
}


@pytest.mark.parametrize("name", PIPELINE_OPTIONS)
def test_answers_are_those_of_the_pipeline(name, model, records, selected) -> None:
    pipe = VideoTextToTextPipeline(model, processor=tiny_processor(num_scenes=2))
    rows = {(row["id"], row["number"]): row["answers"] for row in selected["tiny"]["questions"]}
    for record in records[:2]:
        for number, question in enumerate(record.questions):
            expected = pipe(
                str(record.path),
                text=question.text,
                max_new_tokens=LENGTH,
                do_sample=False,
                return_full_text=False,
                **PIPELINE_OPTIONS[name],
            )[0]["generated_text"]
            assert rows[record.id, number][name] == expected


def test_a_model_that_reads_uniform_frames_alone_is_compared_on_whole_pools(model, records, selected) -> None:
    answerer = Answerer(model, tiny_processor(num_scenes=2, selection="uniform"), max_new_tokens=LENGTH)
    names = ("kmeans", "farthest", "uniform")
    found = evaluate({"tiny": answerer}, records, {name: SELECTIONS[name] for name in names}, blind=False)
    for name in names:
        assert found["tiny"]["recall"][name] == selected["tiny"]["recall"][name]
    assert len(answerer.read(records[0]).frames) == 6


@pytest.mark.parametrize(
    "asking",
    [
        {"question_layers": "first", "neutral_question": "What is it?", "question_spacing": 2.0, "question_tokens": 4},
        {"question_diversity": "clusters", "question_context": 3.0, "question_spacing": 0.0},
        {"question_diversity": "xcomp"},
    ],
)
def test_a_models_own_way_to_ask_is_the_pipelines(asking, model, records) -> None:
    def processor():
        return tiny_processor(num_scenes=2, selection="question", **asking)

    answerer = Answerer(model, processor(), max_new_tokens=LENGTH)
    own = own_selection(answerer.processor.video_processor.scene_settings())
    bound, record = processor().bind(model), records[0]
    pool = answerer.read(record, own)
    prompts, _ = answerer.about_video(record, pool, answerer.encode(pool), own)
    for question, prompt in zip(record.questions, prompts, strict=True):
        inputs = bound(text="<video>", videos=[str(record.path)], question=question.text, return_tensors="pt")
        visual = model.get_video_features(frame_features=inputs["frame_features"], return_dict=True).pooler_output[0]
        torch.testing.assert_close(prompt.visual, visual)


@pytest.mark.parametrize("name", ["kmeans", "farthest", "changes", "question"])
def test_a_pool_that_fits_into_the_scenes_is_taken_whole_as_the_processor_does(name, model, records) -> None:
    answerer = Answerer(model, tiny_processor(), num_scenes=4)
    pool = answerer.read(records[0])
    assert len(pool.frames) == 12
    features = answerer.encode(pool)
    chosen, every = (answerer.about_video(records[0], pool, features, SELECTIONS[one]) for one in (name, "uniform"))
    assert all(torch.equal(one.visual, other.visual) for one, other in zip(chosen[0], every[0], strict=True))
    # What each question finds is counted, as where it chooses among more.
    assert chosen[1] == sum([every[1]] * (len(records[0].questions) if name == "question" else 1), Recall())


@pytest.mark.parametrize("own", ["kmeans", "uniform", "bsm"])
@pytest.mark.parametrize("name", ["uniform", "bsm", "farthest"])
def test_a_selection_is_shown_the_frames_of_the_pipeline_whatever_else_is_asked(name, own, model, records) -> None:
    """The film has more candidates than a pool may hold, so that what looks at frames has an uneven pool."""
    settings = {"num_scenes": 2, "candidate_fps": 5.0, "min_candidates": 6, "max_candidates": 12}
    answerer = Answerer(model, tiny_processor(selection=own, **settings))
    record = records[0]
    bound = tiny_processor(selection=name, **settings).bind(model)
    inputs = bound(text="<video>", videos=[str(record.path)], return_tensors="pt")
    expected = model.get_video_features(frame_features=inputs["frame_features"], return_dict=True).pooler_output[0]
    shown, original = {}, Answerer.answer
    answerer.answer = lambda prompts: shown.update(prompts=prompts) or original(answerer, prompts)
    for columns in ([name], ["farthest", name], [name, "bsm", "uniform"]):
        evaluate({"tiny": answerer}, [record], {column: SELECTIONS[column] for column in columns}, blind=False)
        place = list(dict.fromkeys(columns)).index(name) * len(record.questions)
        torch.testing.assert_close(shown["prompts"][place].visual, expected)


@pytest.mark.parametrize("kept", [9, 6])  # 6: what the scenes need, so that all of them are taken
@pytest.mark.parametrize("name", ["kmeans", "farthest"])
def test_thinned_pools_are_those_of_the_pipeline(kept, name, model, records) -> None:
    pipe = VideoTextToTextPipeline(model, processor=tiny_processor())
    answerer = Answerer(model, tiny_processor(), num_scenes=2, encoded_candidates=kept)
    record = records[0]
    pool = answerer.read(record)
    prompts, _ = answerer.about_video(record, pool, answerer.encode(pool), SELECTIONS[name])
    options = {"num_scenes": 2, "encoded_candidates": kept, "selection": name}
    processor = pipe.processor.bind(model)
    inputs = processor(text="<video>", videos=[str(record.path)], return_scenes=True, return_tensors="pt", **options)
    visual = model.get_video_features(frame_features=inputs["frame_features"], return_dict=True).pooler_output[0]
    assert len(pool.frames) > kept
    torch.testing.assert_close(prompts[0].visual, visual)


def test_scenes_that_are_chosen_already_are_not_thinned(model, records) -> None:
    selection = Precomputed(torch.tensor([[0, 1, 2], [9, 10, 11]]))
    prompts = []
    for kept in (None, 6):
        answerer = Answerer(model, tiny_processor(), num_scenes=2, encoded_candidates=kept)
        pool = answerer.read(records[0])
        prompts.append(answerer.about_video(records[0], pool, answerer.encode(pool), selection)[0])
    for whole, thinned in zip(*prompts, strict=True):
        assert whole.text == thinned.text and torch.equal(whole.visual, thinned.visual)


def test_blind_answers_are_those_of_the_pipeline_without_a_video(model, records, results) -> None:
    pipe = VideoTextToTextPipeline(model, processor=tiny_processor())
    for row in results["tiny"]["questions"][:3]:
        text = records[0].questions[row["number"]].text
        expected = pipe(text=text, max_new_tokens=LENGTH, do_sample=False, return_full_text=False)
        assert row["answers"]["blind"] == expected[0]["generated_text"]


def test_an_image_is_answered_as_the_processor_has_it(model, records, results) -> None:
    processor = tiny_processor()
    content = [
        {"type": "image", "path": str(records[-1].path)},
        {"type": "text", "text": records[-1].questions[0].text},
    ]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    )
    generated = model.generate(**inputs, max_new_tokens=LENGTH, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert results["tiny"]["questions"][-1]["answers"]["kmeans"] == processor.decode(
        generated, skip_special_tokens=True
    )


@pytest.mark.parametrize(("scenes", "times"), [(4, 1), (2, 2)])
def test_frames_are_read_and_encoded_once_for_all_that_choose_from_them(
    scenes, times, model, records, monkeypatch
) -> None:
    """With four scenes all frames are shown; with two, uniform ones are read beside the pool of the others."""
    answerers = {
        name: Answerer(model, tiny_processor(num_scenes=scenes), max_new_tokens=2) for name in ("first", "second")
    }
    read, encoded = [], []
    original_read, original_encode = Answerer.read, Answerer.encode
    monkeypatch.setattr(
        Answerer, "read", lambda self, record, *rest: read.append(record.id) or original_read(self, record, *rest)
    )
    monkeypatch.setattr(Answerer, "encode", lambda self, pool: encoded.append(1) or original_encode(self, pool))
    results = evaluate(answerers, records, SELECTIONS, blind=False)
    assert read == [name for name in ("test_0", "test_1", "test_2") for _ in range(times)]
    assert len(encoded) == 6 * times
    assert results["first"] == results["second"]


def test_models_whose_pools_differ_read_for_themselves(model, records) -> None:
    def pool_settings(answerer, duration=6.0):
        return answerer.pool_settings(SELECTIONS["kmeans"], duration)

    few, many = (Answerer(model, tiny_processor(min_candidates=count)) for count in (12, 18))
    assert pool_settings(few) != pool_settings(many)
    assert pool_settings(few) != pool_settings(few, 1e4)
    fewer_scenes = Answerer(model, tiny_processor(min_candidates=12), num_scenes=2)
    assert pool_settings(fewer_scenes) == pool_settings(few)  # which need no other pool
    more_scenes = Answerer(model, tiny_processor(min_candidates=12), num_scenes=5)
    assert pool_settings(more_scenes) != pool_settings(few)
    assert len(few.read(records[0]).frames) == 12 and len(many.read(records[0]).frames) == 18
    modes = ("auto", "exact", "keyframe")
    assert len({pool_settings(Answerer(model, tiny_processor(seek_mode=mode))) for mode in modes}) == 3


def test_models_that_differ_in_one_weight_are_told_apart() -> None:
    model = model_for(tiny_processor())
    answerer = Answerer(model, tiny_processor())
    before = answerer.digest
    with torch.no_grad():
        model.lm_head.weight.flatten()[63] += 1
    assert answerer.digest != before


def test_single_frames_take_as_many_tokens_and_merge_to_themselves(model, records) -> None:
    answerer = Answerer(model, tiny_processor())
    pool = answerer.read(records[0])
    indices = SELECTIONS["uniform_single"].scenes(torch.rand(len(pool.frames), 4), 4, 3, seed=0)
    assert indices.tolist() == [[place] * 3 for place in (0, 4, 7, 11)]
    features = answerer.encode(pool)
    lengths = [
        len(prompt.visual)
        for selection in SELECTIONS.values()
        for prompt in answerer.about_video(records[0], pool, features, selection)[0]
    ]
    assert len(set(lengths)) == 1


def test_the_largest_changes_part_a_video_into_shots_of_which_the_middle_counts() -> None:
    features = torch.tensor([0.0, 0.1, 0.0, 9.0, 9.1, 9.0, 9.1, 9.0, 2.0, 2.1])[:, None] + 1
    features = torch.cat([features, torch.ones(10, 1)], dim=1)
    scenes = find_selection("changes", "random").scenes(features, 3, 2, seed=0)
    assert scenes[:, -1].tolist() == [1, 5, 8]
    assert scenes[1, 0] in (3, 4) and scenes[0].tolist() == [0, 1]
    every = find_selection("changes").scenes(features, 20, 1, seed=0)
    assert every.flatten().tolist() == list(range(10))
    assert find_selection("changes").scenes(features[:1], 3, 2, seed=0).tolist() == [[0, 0]]


def test_what_questions_find_is_counted_for_each_of_them(records, selected) -> None:
    recalls = selected["tiny"]["recall"]
    for record in records[:3]:
        counted = recalls["question"][record.id]
        assert counted["events"] == len(record.questions) * recalls["kmeans"][record.id]["events"]
        assert 0 <= counted["represented"] <= counted["found"] <= counted["events"]


def test_a_model_that_never_answers_is_wrong_and_ends(model, records) -> None:
    answerer = Answerer(model, tiny_processor(), max_new_tokens=3)
    eos = model.config.text_config.eos_token_id
    original = model.lm_head.forward
    model.lm_head.forward = lambda hidden: original(hidden).index_fill(-1, torch.tensor([eos]), 1e4)
    try:
        results = evaluate({"silent": answerer}, records, {"kmeans": find_selection("kmeans")})
    finally:
        del model.lm_head.forward
    rows = results["silent"]["questions"]
    assert {answer for row in rows for answer in row["answers"].values()} == {""}
    assert sum(sum(row["right"].values()) for row in rows) == 0
    assert "| all but captions | 7 | 0.0 (0.0 to 0.0) | 0.0 (0.0 to 0.0) |" in summary([results["silent"]])


def test_prompts_of_other_lengths_beside_it_leave_an_answer_as_it_is(model, records) -> None:
    prompts = []
    for num_scenes in (1, 4):
        answerer = Answerer(model, tiny_processor(), num_scenes=num_scenes, max_new_tokens=3)
        pool = answerer.read(records[0])
        prompts += answerer.about_video(records[0], pool, answerer.encode(pool), SELECTIONS["kmeans"])[0][:2]
    seen = []
    hook = model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(output[:, -1]))
    try:
        answerer.answer(prompts)
        together = torch.stack(seen[1:])
        for place, prompt in enumerate(prompts):
            seen.clear()
            answerer.answer([prompt])
            torch.testing.assert_close(together[:, place], torch.stack(seen[1:])[:, 0], atol=1e-4, rtol=1e-4)
    finally:
        hook.remove()


def test_a_prompt_longer_than_the_context_is_refused(records) -> None:
    processor = tiny_processor(num_scenes=4)
    answerer = Answerer(model_for(processor), processor)
    answerer.model.config.text_config.max_position_embeddings = 20
    pool = answerer.read(records[0])
    prompts, _ = answerer.about_video(records[0], pool, answerer.encode(pool), SELECTIONS["kmeans"])
    with pytest.raises(ValueError, match=r"A prompt takes \d+ tokens .* has 20"):
        answerer.answer(prompts)


def test_the_constant_answer_is_the_best_of_each_wording() -> None:
    def asked(text, answer, times, form="free"):
        return [Question(text, answer, "color", form)] * times

    baseline = BlindBaseline(
        [*asked("What colour is first?", "red", 40), *asked("What colour is first?", "blue", 10)]
        + [*asked("What colour is last?", "green", 45)]
        + asked("Which?\nA. red\nB. green", "B", 31, "choice")
        + asked("What colour comes after the red one?", "blue", 20)
        + asked("What colour comes after the green one?", "green", 11)
    )
    assert baseline.answer(Question("What colour is first?", "?", "color")) == "red"
    assert baseline.chance(Question("What colour is first?", "?", "color")) == 1 / 2
    # Asked too seldom with that color: those that differ in the color alone count.
    assert baseline.answer(Question("What colour comes after the green one?", "?", "color")) == "blue"
    # Never asked: what is most frequent in its kind.
    assert baseline.answer(Question("What colour is in the middle?", "?", "color")) == "green"
    assert baseline.answer(Question("What is heard?", "?", "sound")) == ""
    choice = Question("Which?\nA. blue\nB. red\nC. green", "A", "color", "choice")
    assert baseline.answer(choice) == "C" and baseline.chance(choice) == 1 / 3


def test_one_of_two_named_things_is_guessed_by_its_place() -> None:
    def asked(first, second, answer):
        return Question(f"Which appears first, the {first} or the {second}?", f"the {answer}", "first")

    things = [f"{color} {shape}" for color in ("red", "green", "blue") for shape in ("star", "ring")]
    pairs = [(one, other) for one in things for other in things if one != other]
    baseline = BlindBaseline([asked(*pair, pair[number % 3 > 0]) for number, pair in enumerate(pairs * 2)])
    question = asked("blue star", "red ring", "red ring")
    assert baseline.answer(question) == "red ring" and baseline.chance(question) == 1 / 2


def test_event_recall_is_what_a_hand_counts() -> None:
    times = torch.tensor([[1.0, 2.0, 5.0], [5.2, 5.2, 5.4], [8.0, 9.0, 9.5], [20.0, 20.0, 20.0]])
    # Found by a supplement alone; two scenes represent it, one is pure; no frame; a repeated frame; just missed.
    events = [(1.5, 3.0), (5.0, 5.5), (6.0, 7.0), (19.0, 21.0), (9.6, 9.9), (9.0, 9.5)]
    recall = event_recall(events, times)
    assert (recall.events, recall.found, recall.represented) == (6, 4, 2)
    assert (recall.scenes, recall.pure) == (3, 2)


def test_the_interval_is_the_binomial_one_where_every_video_has_one_question() -> None:
    right = np.zeros((1, 100))
    right[0, :80] = 1
    middle, low, high = accuracy(right, np.ones(100))
    assert middle == 0.8
    assert low == pytest.approx(0.8 - 1.96 * 0.04, abs=0.012) and high == pytest.approx(0.8 + 1.96 * 0.04, abs=0.012)


def test_questions_of_one_video_count_together() -> None:
    """Ten questions that stand or fall with their video tell no more than one."""
    right = np.zeros((1, 100))
    right[0, :80] = 10
    ten = accuracy(right, np.full(100, 10))
    assert ten == pytest.approx(accuracy(right / 10, np.ones(100)))
    independent = accuracy(np.full((1, 100), 8), np.full(100, 10))
    assert independent == pytest.approx((0.8, 0.8, 0.8))


def test_an_interval_divides_by_the_questions_of_the_videos_that_are_drawn() -> None:
    asked = np.array([1, 9, 40])
    assert accuracy(asked[None], asked) == pytest.approx((1.0, 1.0, 1.0))


def test_seeds_that_differ_widen_the_interval_and_a_common_change_does_not() -> None:
    asked = np.full(50, 4)
    right = np.stack([np.full(50, 1), np.full(50, 2), np.full(50, 3)])
    assert accuracy(right, asked) == pytest.approx((0.5, 0.25, 0.75))
    assert difference(right + 1, right, asked) == pytest.approx((0.25, 0.25, 0.25))


def test_without_questions_there_is_no_accuracy() -> None:
    with pytest.raises(ValueError, match="no questions"):
        accuracy(np.zeros((1, 2)), np.zeros(2))


def test_results_return_from_their_file_and_give_the_same_tables(results, tmp_path) -> None:
    save_results(results, tmp_path / "results.json")
    loaded = load_results(tmp_path / "results.json")
    assert loaded == results
    table = summary([results["tiny"]])
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:8]] == [
        "all but captions",
        "all but captions, free",
        "all but captions, choice",
        "what",
        "color",
        "captions, word for word",
    ]
    assert "| uniform | 83.3 |" in table or "| uniform | 100.0 |" in table


@pytest.mark.parametrize("content", ["{}", "[]", "not json", '{"a": {"questions": []}}'])
def test_a_file_without_results_is_refused(content, tmp_path) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(ValueError, match="holds no results"):
        load_results(tmp_path / "results.json")


def test_the_command_prints_the_table_and_keeps_every_answer(records_file, folder, tmp_path, capsys) -> None:
    output = tmp_path / "answers.json"
    status = answer_questions.main(
        ["--model", folder, "--records", str(records_file), "--train", str(records_file), "--limit", "2"]
        + ["--selection", "uniform", "--selection", "kmeans", "--max-new-tokens", "4", "--output", str(output)]
    )
    assert status == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == "| questions | number | uniform | kmeans | blind | constant | chance |"
    assert "| all but captions | 4 |" in printed and "| selection | events found |" in printed
    rows = json.loads(output.read_text())[folder]["questions"]
    assert len(rows) == 6 and set(rows[0]["answers"]) == {"uniform", "kmeans", "blind"}


def test_the_models_own_selection_is_asked_where_none_is_named(records_file, folder, capsys) -> None:
    arguments = [
        "--model",
        folder,
        "--records",
        str(records_file),
        "--limit",
        "1",
        "--no-blind",
        "--max-new-tokens",
        "2",
    ]
    assert answer_questions.main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[0] == "| questions | number | kmeans |"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--selection", "best"], "Unknown selection 'best': use one of uniform"),
        (
            ["--selection", "kmeans_random", "--init", "k-means++"],
            "`--init` is of kmeans and kmeans_dissimilar, but kmea",
        ),
        (["--encoded-candidates", "-5"], "`encoded_candidates` must be at least 1 or `None`, got -5"),
        (["--limit", "0"], "limit of records must be at least 1"),
        (["--records", "absent.jsonl"], "absent.jsonl"),
        (["--model", "absent"], "no model absent"),
    ],
)
def test_the_command_names_what_is_wrong(arguments, message, records_file, folder, capsys) -> None:
    assert answer_questions.main(["--model", folder, "--records", str(records_file), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_records_are_not_written_over_by_the_answers(records_file, folder, capsys) -> None:
    before = records_file.read_bytes()
    given = ["--model", folder, "--records", str(records_file), "--output", str(records_file)]
    assert answer_questions.main(given) == 2
    assert "would take the place of what is read: name another file" in capsys.readouterr().err
    assert records_file.read_bytes() == before


def test_what_was_answered_is_kept_where_a_record_cannot_be_read_and_gone_on_with(
    records_file, folder, tmp_path, capsys, monkeypatch
) -> None:
    lines = [json.loads(line) for line in records_file.read_text().splitlines()[:2]]
    for line in lines:
        line["video"] = str(records_file.parent / line["video"])
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    file = write_lines(tmp_path / "records.jsonl", [*lines, {**lines[0], "id": "third", "video": str(broken)}])
    output, part = tmp_path / "answers.json", tmp_path / "answers.json.part"
    given = ["--model", folder, "--records", str(file), "--no-blind", "--max-new-tokens", "2"]
    kept = [*given, "--output", str(output)]
    for arguments in (given, kept):
        assert answer_questions.main(arguments) == 2
        assert "Record 'third': " in (said := capsys.readouterr().err) and "broken.mp4" in said
    assert f"The answers to the 2 before it are kept in {part}" in said and not output.exists()

    assert answer_questions.main([*kept, "--num-scenes", "2"]) == 2
    assert "holds the answers of a run that broke off, with other models than now" in capsys.readouterr().err
    with open(part, "a") as torn:
        torn.write('{"record": "')
    broken.write_bytes((records_file.parent / "video_2.mp4").read_bytes())
    asked, original = [], Answerer.read
    monkeypatch.setattr(
        Answerer, "read", lambda self, record, *r: asked.append(record.id) or original(self, record, *r)
    )
    assert answer_questions.main(kept) == 0
    assert asked == ["third"] and not part.exists()
    resumed = output.read_text()
    assert answer_questions.main(kept) == 0
    assert output.read_text() == resumed and asked[1:] == ["test_0", "test_1", "third"]


@pytest.mark.parametrize("name", ["results.part", "run_v1.5"])
def test_answers_are_kept_beside_the_output_whatever_its_name(name, records_file, folder, tmp_path) -> None:
    (tmp_path / "run_v1.part").write_text("of another output")
    given = ["--model", folder, "--records", str(records_file), "--no-blind", "--max-new-tokens", "2", "--limit", "1"]
    assert answer_questions.main([*given, "--output", str(tmp_path / name)]) == 0
    assert load_results(tmp_path / name) and {file.name for file in tmp_path.iterdir()} == {"run_v1.part", name}


def test_answers_are_written_to_a_pipe(records_file, folder, tmp_path) -> None:
    given = ["--model", folder, "--records", str(records_file), "--no-blind", "--max-new-tokens", "2", "--limit", "1"]
    read, write = os.pipe()
    assert answer_questions.main([*given, "--output", f"/dev/fd/{write}"]) == 0
    os.close(write)
    with open(read, "rb") as pipe:
        (result,) = json.loads(pipe.read()).values()
    assert {row["id"] for row in result["questions"]} == {"test_0"}


def test_an_image_is_seen_upright_on_white_and_in_all_its_depth(model, tmp_path) -> None:
    """As in training and in the pipeline."""
    red = np.zeros((64, 64, 3), np.uint8)
    red[:32] = (255, 0, 0)
    turned, clear = Image.Exif(), np.zeros((64, 64, 4), np.uint8)
    turned[0x0112] = 6
    Image.fromarray(red).save(tmp_path / "turned.jpg", exif=turned)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    Image.fromarray((np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16)).save(tmp_path / "deep.png")
    answerer = Answerer(model, tiny_processor())
    for file in tmp_path.iterdir():
        pixels = tiny_processor()(images=[str(file)], return_tensors="pt")["pixel_values"]
        record = Record(file.name, file, False, [Question("What?", "red", "what")])
        (prompt,) = answerer.about_image(record)
        torch.testing.assert_close(prompt.visual, model.get_image_features(pixels, return_dict=True).pooler_output[0])


def test_an_interval_without_width_is_explained() -> None:
    assert "rule of three" in explained("| all | 60 | 100.0 (100.0 to 100.0) |\n")
    assert explained("| all | 60 | 90.0 (80.0 to 100.0) |\n") == "| all | 60 | 90.0 (80.0 to 100.0) |\n"
