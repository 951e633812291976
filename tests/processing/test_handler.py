"""The handler of Inference Endpoints, called as the service calls it: with what JSON can hold."""

import base64
import importlib.util
import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent.parent
VIDEO = (ROOT / "examples" / "shapes.mp4").read_bytes()
ENCODED = base64.b64encode(VIDEO).decode()
QUESTION = "Which object appears right after the white star?"


@pytest.fixture(scope="module")
def handler():
    spec = importlib.util.spec_from_file_location("handler", ROOT / "handler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.EndpointHandler(str(ROOT))


def film(kind: str = "PNG", head: str = "") -> list[str]:
    """A video of more pictures than a request may have media."""
    pictures = []
    for shade in range(0, 200, 5):
        buffer = io.BytesIO()
        Image.new("RGB", (32, 32), (shade, 90, 30)).save(buffer, kind)
        pictures.append(head + base64.b64encode(buffer.getvalue()).decode())
    return pictures


def ask(handler, inputs, **parameters):
    """The answer to a request that went through JSON both ways."""
    request = json.loads(json.dumps({"inputs": inputs, "parameters": {"max_new_tokens": 8, **parameters}}))
    return json.loads(json.dumps(handler(request)))


@pytest.mark.parametrize(
    "inputs",
    [
        {"video": ENCODED, "text": QUESTION},
        {"video": base64.encodebytes(VIDEO).decode(), "text": QUESTION},
        {"videos": [f"data:video/mp4;base64,{ENCODED}"], "text": QUESTION},
        {"videos": [f"DATA:video/mp4;base64,{ENCODED}"], "text": QUESTION},
        [{"role": "user", "content": [{"type": "video", "base64": ENCODED}, {"type": "text", "text": QUESTION}]}],
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{ENCODED}"}},
                        {"type": "text", "text": QUESTION},
                    ],
                }
            ]
        },
        {"video": None, "videos": ENCODED, "text": QUESTION},
        {"video": ENCODED, "videos": None, "text": QUESTION},
    ],
    ids=[
        "base64",
        "base64 in lines",
        "data URL",
        "data URL in capitals",
        "chat",
        "OpenAI's chat",
        "no video beside videos",
        "no videos beside a video",
    ],
)
def test_a_question_about_a_video_in_the_request_is_answered(handler, inputs) -> None:
    assert ask(handler, inputs) == [{"generated_text": "a green ring"}]


def test_several_inputs_are_answered_in_their_order_and_scenes_are_lists(handler) -> None:
    inputs = [{"video": ENCODED, "text": QUESTION}, {"video": ENCODED, "text": "Which object appears first?"}]
    first, second = ask(handler, inputs, return_scenes=True, num_scenes=4)
    assert first[0]["generated_text"] and second[0]["generated_text"]
    (scenes,) = first[0]["scenes"]
    assert len(scenes["timestamps"]) == len(scenes["indices"]) == 4
    assert scenes["duration"] > 0
    ((answer, *_),) = [ask(handler, inputs[0], return_scenes=True, num_scenes=4, selection="question")]
    assert len(answer["scenes"][0]["scores"]["values"]) > 4
    with pytest.raises(ValueError, match="true or false"):
        ask(handler, inputs[0], return_scenes="pictures")


@pytest.mark.parametrize(
    ("medium", "message"),
    [
        ("http://127.0.0.1:1/video.mp4", "private|loopback"),
        ("http://localhost/video.mp4", "private|loopback"),
        ("/etc/hostname.mp4", "neither an http or https URL nor base64"),
        ("file:///etc/hostname", "neither an http or https URL nor base64"),
        (str(ROOT / "examples" / "shapes.mp4"), "neither an http or https URL nor base64"),
        ({"path": "examples/shapes.mp4"}, "cannot name files of the server"),
        (base64.b64encode(b"not a video at all").decode(), "."),
    ],
)
def test_what_a_stranger_may_not_reach_and_what_is_no_video_are_errors(handler, medium, message) -> None:
    with pytest.raises(ValueError, match=message):
        ask(handler, {"video": medium, "text": QUESTION})


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"max_new_tokens": 10**6}, "from 1 to 4096"),
        ({"max_new_tokens": "many"}, "from 1 to 4096"),
        ({"max_new_tokens": True}, "from 1 to 4096"),
        ({"num_beams": 1000}, "from 1 to 8"),
        ({"num_return_sequences": 0}, "from 1 to 8"),
        ({"stop_strings": "a" * 65}, "`stop_strings` are at most 16 texts of at most 64 characters"),
        ({"stop_strings": ["a"] * 17}, "`stop_strings` are at most 16 texts of at most 64 characters"),
        ({"num_scenes": 65}, "`num_scenes` is a whole number from 1 to 64 in a request, got 65"),
        ({"num_scenes": 0}, "from 1 to 64"),
        ({"num_scenes": 4.5}, "from 1 to 64"),
        ({"max_length": 4097}, "from 1 to 4096"),
        ({"selection": "question", "question_tokens": 10**5}, "`question_tokens` is a whole number from 1 to 16 in"),
    ],
)
def test_what_an_answer_may_cost_has_an_end(handler, parameters, message) -> None:
    with pytest.raises(ValueError, match=message):
        handler({"inputs": {"video": ENCODED, "text": QUESTION}, "parameters": parameters})


def test_saved_savings_cannot_be_left_aside(tmp_path) -> None:
    for file in (*ROOT.glob("*.py"), *ROOT.glob("*.json"), *ROOT.glob("*.jinja"), ROOT / "model.safetensors"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    saved["video_processor"] |= {"encoded_candidates": 96, "question_tokens": 4}
    (tmp_path / "processor_config.json").write_text(json.dumps(saved))
    spec = importlib.util.spec_from_file_location("handler", ROOT / "handler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    handler = module.EndpointHandler(str(tmp_path))
    for option in ({"selection": "bsm"}, {"question_diversity": "xcomp"}):
        with pytest.raises(ValueError, match="would cost more than the saved settings"):
            ask(handler, {"video": ENCODED, "text": QUESTION}, **option)
    with pytest.raises(ValueError, match="`encoded_candidates` is a whole number from 1 to 96"):
        ask(handler, {"video": ENCODED, "text": QUESTION}, encoded_candidates=97)


def test_a_chat_of_one_message_needs_no_list(handler) -> None:
    message = {"role": "user", "content": [{"type": "video", "base64": ENCODED}, {"type": "text", "text": QUESTION}]}
    assert ask(handler, message) == ask(handler, [message])


def test_a_request_has_so_many_inputs_at_most(handler) -> None:
    with pytest.raises(ValueError, match="at most 32 inputs, got 33"):
        ask(handler, [{"video": "http://example.com/video.mp4", "text": QUESTION}] * 33)


@pytest.mark.parametrize(
    "inputs",
    [
        {"videos": [ENCODED] * 33, "text": QUESTION},
        {"videos": film()[:33], "text": QUESTION},
        {"video": [*film()[:32], ENCODED], "text": QUESTION},
        {"video": [ENCODED], "videos": [[ENCODED] * 16] * 2, "text": QUESTION},
        {"messages": [{"role": "user", "content": [*[{"type": "video", "base64": ENCODED}] * 33, QUESTION]}]},
        [{"role": "user", "content": [*[{"image_url": {"url": ENCODED}}] * 33, {"text": QUESTION}]}],
        [{"videos": [ENCODED] * 11, "text": QUESTION}] * 3,
    ],
)
def test_a_request_has_so_many_media_at_most_in_all_its_inputs(handler, inputs) -> None:
    with pytest.raises(ValueError, match="at most 32 videos and images in all its inputs, got 33"):
        ask(handler, inputs)


@pytest.mark.parametrize(
    ("inputs", "num_videos"),
    [
        ({"video": film()}, 1),
        ({"video": film("JPEG")}, 1),
        ({"video": film("WebP")}, 1),
        ({"video": film("WEBP", "data:image/webp;base64,")}, 1),
        ({"videos": [film()]}, 1),
        ({"videos": [film(), ENCODED]}, 2),
        ({"video": film(), "videos": [film(), film()]}, 3),
    ],
    ids=["PNG", "JPEG", "WebP", "data URLs", "in videos", "beside a file", "three"],
)
def test_a_video_given_as_many_pictures_is_one_medium(handler, inputs, num_videos) -> None:
    (answer,) = ask(handler, {**inputs, "text": QUESTION}, return_scenes=True, num_scenes=4)
    assert [len(scenes["indices"]) for scenes in answer["scenes"]] == [4] * num_videos


def test_a_batch_of_videos_given_as_pictures_has_a_medium_an_input(handler) -> None:
    answers = ask(handler, [{"video": film(), "text": QUESTION}] * 2, num_scenes=4)
    content = [{"type": "video", "video": film()}, {"type": "text", "text": QUESTION}]
    assert answers == [ask(handler, [{"role": "user", "content": content}], num_scenes=4)] * 2


@pytest.mark.parametrize(
    "name",
    [
        "allow_private_hosts",
        "limits",
        "processor_kwargs",
        "num_workers",
        "no_such_option",
        "max_candidates",
        "fps",
        "hwaccel",
        "candidate_fps",
        "min_candidates",
        "seek_mode",
        "time_template",
        "use_cache",
        "cache_implementation",
        "compile_config",
        "prefill_chunk_size",
        "guidance_scale",
        "prompt_lookup_num_tokens",
        "output_attentions",
    ],
)
def test_a_request_cannot_change_what_the_service_decides(handler, name) -> None:
    with pytest.raises(ValueError, match=f"may not have {name}"):
        ask(handler, {"video": ENCODED, "text": QUESTION}, **{name: True})


def test_what_json_makes_of_options_is_taken(handler) -> None:
    inputs = {"video": ENCODED, "text": QUESTION}
    options = {"num_scenes": 4.0, "selection": None, "return_scenes": True}
    (whole,) = ask(handler, inputs, **options)
    first, second, *_ = whole["generated_text"].split()
    (answer,) = ask(handler, inputs, stop_strings=[second], **options)
    assert answer["generated_text"] == f"{first} {second}" and len(answer["scenes"][0]["indices"]) == 4
    with pytest.raises(ValueError, match=r"`num_scenes` is a whole number from 1 to .* got '4'"):
        ask(handler, inputs, num_scenes="4")


def test_subtitles_come_with_a_request_and_never_from_a_file_of_the_server(handler, tmp_path, monkeypatch) -> None:
    words = "1\n00:00:00,000 --> 00:00:20,000\nHello there\n"
    inputs, options = {"video": ENCODED, "text": QUESTION}, {"return_scenes": True, "num_scenes": 4}
    encoded = base64.b64encode(words.encode()).decode()
    (answer,) = ask(handler, inputs, subtitles=encoded, **options)
    assert any("Hello there" in str(text) for text in answer["scenes"][0]["subtitles"])
    file = tmp_path / "words.srt"
    file.write_text(words)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").write_text(words)
    (tmp_path / "äöü").write_text(words)
    for subtitles in (str(file), [str(file)], f"file://{file}", "a", "äöü"):
        with pytest.raises(ValueError, match="neither an http or https URL nor base64"):
            ask(handler, inputs, subtitles=subtitles, **options)
    with pytest.raises(ValueError, match=r"private|loopback|not public"):
        ask(handler, inputs, subtitles="http://127.0.0.1:1/words.srt", **options)
    with pytest.raises(ValueError, match="subtitle"):  # a track, which this film has not
        ask(handler, inputs, subtitles="0", **options)


def test_the_subtitles_of_one_input_are_not_those_of_another(handler, tmp_path, monkeypatch) -> None:
    words = "1\n00:00:00,000 --> 00:00:20,000\nHello there\n"
    one = {"video": ENCODED, "text": QUESTION}
    encoded, options = base64.b64encode(words.encode()).decode(), {"return_scenes": True, "num_scenes": 4}
    with pytest.raises(ValueError, match="`subtitles` is one file for 2 inputs: pass a list with one for each"):
        ask(handler, [one, one], subtitles=encoded, **options)
    for inputs, given in (([one, one], {"subtitles": [encoded, None]}), ([{**one, "subtitles": encoded}, one], {})):
        first, second = ask(handler, inputs, **options, **given)
        assert any("Hello there" in str(text) for text in first[0]["scenes"][0]["subtitles"])
        assert "subtitles" not in second[0]["scenes"][0]
    file = tmp_path / "words.srt"
    file.write_text(words)
    for inputs in ({**one, "subtitles": str(file)}, [one, {**one, "subtitles": [str(file)]}]):
        with pytest.raises(ValueError, match="neither an http or https URL nor base64"):
            ask(handler, inputs, **options)


def test_the_length_of_prompt_and_answer_together_can_be_set(handler) -> None:
    with pytest.raises(ValueError, match="`max_length` is set to 5"):
        handler({"inputs": {"video": ENCODED, "text": QUESTION}, "parameters": {"max_length": 5}})


@pytest.mark.parametrize("request_", [{}, {"inputs": ""}, {"inputs": []}, {"inputs": ["What?"]}, [], "What?"])
def test_a_request_without_a_video_and_a_question_is_an_error(handler, request_) -> None:
    with pytest.raises(ValueError, match=r"needs `inputs`|An input is"):
        handler(request_)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"max_new_tokens": 8}, r"`inputs` and `parameters`, but this one also has max_new_tokens: options go into"),
        ({"parameter": {"max_new_tokens": 8}}, "this one also has parameter"),
        ({"parameters": []}, "`parameters` is a dictionary of options, got list"),
        ({"parameters": ""}, "`parameters` is a dictionary of options, got str"),
        (
            {"inputs": {"messages": [{"role": "user", "content": QUESTION}], "video": ENCODED}},
            "`messages` has nothing beside them, but this one has video: put it into a message's `content`",
        ),
        ({"inputs": [{"role": "user", "content": QUESTION, "images": [ENCODED]}]}, "`images` beside its `content`"),
        ({"inputs": {"video": None, "text": QUESTION}}, "There is no video in `video`: leave it out to ask without"),
        ({"inputs": [{"videos": None, "text": QUESTION}]}, "There is no video in `videos`"),
        (
            {
                "inputs": [
                    {
                        "role": "user",
                        "content": [{"type": "video", "video": ENCODED, "base64": ENCODED}, QUESTION],
                    }
                ]
            },
            "one source, but this one has",
        ),
    ],
)
def test_no_part_of_a_request_is_left_out_without_a_word(handler, request_, message) -> None:
    with pytest.raises(ValueError, match=message):
        handler({"inputs": {"video": ENCODED, "text": QUESTION}, **request_})


@pytest.mark.parametrize("others", [f"data:video/mp4;base64,{ENCODED}", [ENCODED]])
def test_a_video_and_videos_are_asked_about_together(handler, others) -> None:
    inputs = {"video": ENCODED, "videos": others, "text": QUESTION}
    (answer,) = ask(handler, inputs, return_scenes=True, num_scenes=2)
    assert len(answer["scenes"]) == 2


def test_the_packages_of_an_endpoint_are_those_of_the_installation() -> None:
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    installed = re.findall(r"[\w-]+>=[\d.]+", (ROOT / "setup.cfg").read_text())
    assert lines and set(lines) <= set(installed)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"stop_strings": ""}, "`stop_strings` must be a text that is not empty"),
        ({"stop_strings": [""]}, "`stop_strings` must be a text that is not empty"),
        ({"exponential_decay_length_penalty": [1]}, "must be two numbers"),
        ({"length_penalty": "x", "num_beams": 2}, "`length_penalty` must be a number, got 'x'"),
        ({"selection": "nope"}, "Unknown `selection` 'nope'"),
        ({"resample": 99}, r"`resample` must be one of .*3 \(BICUBIC\), .* got 99"),
        ({"subtitles": "eng"}, "Subtitles need a video"),
    ],
)
def test_wrong_parameters_are_refused_also_where_a_request_has_no_video(handler, parameters, message) -> None:
    with pytest.raises(ValueError, match=message):
        ask(handler, {"text": QUESTION}, **parameters)
