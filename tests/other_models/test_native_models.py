"""Chosen frames in front of video models of transformers itself: their processors, prompts and forwards."""

import re
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from fila_video import read_frames, select_frames
from helpers.native_models import NATIVE, NativeModel
from helpers.video_files import make_video, number_of
from transformers.utils.import_utils import is_num2words_available, is_timm_available

# Of a film with a variable rate, in milliseconds: no frame number over any constant rate gives them.
MILLISECONDS = np.cumsum(np.random.default_rng(7).integers(20, 180, 160)).tolist()
NAMES = [
    pytest.param("perception_lm", marks=pytest.mark.skipif(not is_timm_available(), reason="timm is not installed")),
    pytest.param("smolvlm", marks=pytest.mark.skipif(not is_num2words_available(), reason="needs num2words")),
    *(name for name in NATIVE if name not in ("perception_lm", "smolvlm")),
]


@cache
def native(name: str) -> NativeModel:
    torch.manual_seed(0)
    model = NATIVE[name]()
    model.model.eval()
    return model


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> list[str]:
    """A variable rate, a constant one, and a tall one of few frames."""
    folder = tmp_path_factory.mktemp("films")
    make_video(folder / "variable.mp4", 160, fps=30, times=MILLISECONDS)
    make_video(folder / "constant.mp4", 130, fps=25, width=96, height=64)
    make_video(folder / "tall.mp4", 12, fps=10, width=64, height=96)
    return [str(folder / name) for name in ("variable.mp4", "constant.mp4", "tall.mp4")]


def true_times(frames: np.ndarray) -> list[float]:
    """The times of frames of the film with a variable rate, by the numbers that stand in the pictures."""
    return [(MILLISECONDS[number_of(frame)] - MILLISECONDS[0]) / 1000 for frame in frames]


def pairs(times: list[float]) -> list[float]:
    return [(first + second) / 2 for first, second in zip(times[::2], times[1::2], strict=True)]


@pytest.mark.parametrize(
    ("name", "pattern", "expected"),
    [
        # One time for two frames, in the middle of theirs.
        ("qwen3_vl", r"<(\d+\.\d) seconds>", lambda times: [f"{time:.1f}" for time in pairs(times)]),
        # The first time of two frames.
        ("glm4v", r"<\|end_of_image\|>(\d+\.?\d*)", lambda times: [str(int(time)) for time in times[::2]]),
        ("video_llama_3", r"Time (\d+\.\d)s", lambda times: [f"{time:.1f}" for time in times]),
        pytest.param(
            "smolvlm",
            r"Frame from (\d\d:\d\d)",
            lambda times: [f"{int(time // 60):02d}:{int(time % 60):02d}" for time in times],
            marks=NAMES[1].marks,
        ),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_the_prompt_names_the_times_of_the_chosen_frames(films, name, pattern, expected, nested) -> None:
    frames, metadata = select_frames(films[0], 10)
    # Nested metadata is copied field by field: what is no field is lost there.
    inputs = native(name).inputs([frames], [[metadata]] if nested else [metadata], do_sample_frames=False)
    prompt = native(name).processor.tokenizer.decode(inputs["input_ids"][0])
    assert re.findall(pattern, prompt) == expected(true_times(frames))


@pytest.mark.parametrize("selection", ["uniform", "kmeans", "farthest"])
def test_frames_and_times_belong_together(films, selection) -> None:
    frames, metadata = select_frames(films[0], 9, selection=selection)
    assert frames.shape == (9, 48, 64, 3) and frames.dtype == np.uint8
    numbers = [number_of(frame) for frame in frames]
    assert numbers == sorted(set(numbers))
    assert np.abs(np.array(metadata.timestamps) - true_times(frames)).max() < 1e-6


def test_the_rate_that_a_model_is_told_is_that_of_the_chosen_frames(films) -> None:
    frames, metadata = select_frames(films[0], 10)
    inputs = native("qwen2_5_vl").inputs([frames], [metadata], do_sample_frames=False)
    assert float(inputs["second_per_grid_ts"][0]) == pytest.approx(2 * metadata.duration / 10, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_models_own_sampling_gives_the_inputs_that_it_makes_itself(films, name) -> None:
    model = native(name)
    whole = read_frames(films[1], num_frames=130)
    count = {} if name == "glm4v" else {"num_frames": 8}  # which samples by its rate alone
    if name == "qwen3_vl":
        count["fps"] = None  # its default, which goes with no number of frames
    own = model.inputs([whole.frames], [whole.metadata], do_sample_frames=True, **count)
    frames, metadata = select_frames(films[1], 8, selection=model.processor.video_processor.sample_frames)
    ours = model.inputs([frames], [metadata], do_sample_frames=False)
    assert own.keys() == ours.keys()
    for key, value in own.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(ours[key])), key


@pytest.mark.parametrize("name", ["llava_onevision", "llava_next_video", "video_llava", "qwen2_5_vl", "video_llama_3"])
def test_uniform_is_the_sampling_of_most_models(films, name) -> None:
    chosen = native(name).processor.video_processor.sample_frames
    for film in films[1:]:
        frames, metadata = select_frames(film, 8, selection="uniform")
        own_frames, own_metadata = select_frames(film, 8, selection=chosen)
        assert np.array_equal(frames, own_frames) and metadata == own_metadata


@pytest.mark.parametrize("name", NAMES)
def test_films_of_unequal_length_rate_and_shape_make_one_batch(films, name) -> None:
    model = native(name)
    selected = [select_frames(film, 8) for film in films]
    alone = [model.inputs([frames], [metadata], do_sample_frames=False) for frames, metadata in selected]
    batch = model.inputs(*map(list, zip(*selected, strict=True)), do_sample_frames=False)
    with torch.no_grad():
        together = model.model(**batch).logits
        for row, inputs in enumerate(alone):
            length = inputs["input_ids"].shape[1]
            assert torch.equal(batch["input_ids"][row, -length:], inputs["input_ids"][0])
            torch.testing.assert_close(together[row, -1], model.model(**inputs).logits[0, -1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl", "glm4v", "video_llama_3"])
def test_models_whose_batches_may_hold_unequal_numbers_of_frames_take_them(films, name) -> None:
    model = native(name)
    selected = [select_frames(film, count) for film, count in zip(films, (10, 6, 4), strict=True)]
    batch = model.inputs(*map(list, zip(*selected, strict=True)), do_sample_frames=False)
    assert [int(grid[0]) for grid in batch["video_grid_thw"]] in ([5, 3, 2], [10, 6, 4])
    with torch.no_grad():
        assert model.model(**batch).logits.isfinite().all()


CHAT = """{%- for message in messages -%}<|im_start|>{{ message.role }}
{% for part in message.content -%}
{{ "<|vision_start|><|video_pad|><|vision_end|>" if part.type == "video" else part.text }}{%- endfor -%}<|im_end|>
{% endfor -%}{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""


def test_the_example_of_the_page_answers(films, tmp_path, monkeypatch, capsys) -> None:
    """As it stands there, with a tiny Qwen3-VL under its name; the chat template is in the form of the real one."""
    page = Path(__file__).resolve().parent.parent.parent / "other_models" / "README.md"
    example = re.search(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL).group(1)
    small = native("qwen3_vl")
    small.processor.chat_template = CHAT
    monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", lambda name: small.processor)
    load = lambda name, device_map: small.model  # noqa: E731
    monkeypatch.setattr(transformers.AutoModelForImageTextToText, "from_pretrained", load)
    shutil.copy(films[1], tmp_path / "film.mp4")
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(example, scope)
    assert len(scope["frames"]) == 32
    text = small.processor.tokenizer.decode(scope["inputs"]["input_ids"][0])
    times = [float(time) for time in re.findall(r"<(\d+\.\d) seconds>", text)]
    assert times == [float(f"{time:.1f}") for time in pairs(scope["metadata"].timestamps)]
    assert capsys.readouterr().out.strip()


def test_the_chosen_frames_are_those_that_a_model_generates_from(films) -> None:
    model = native("qwen3_vl")
    answers = []
    for selection in ("farthest", "uniform"):
        frames, metadata = select_frames(films[1], 4, selection=selection)
        inputs = model.inputs([frames], [metadata], do_sample_frames=False)
        answers.append(model.model.generate(**inputs, max_new_tokens=3, do_sample=False))
        assert answers[-1].shape[1] == inputs["input_ids"].shape[1] + 3
    assert not torch.equal(*answers)  # their times differ
