"""Chats as people write them: what is plain is taken, what is not is refused with what is wrong."""

import copy
import logging
from collections import UserList

import PIL.Image
import pytest
from fila_video.chat_inputs_fila_video import normalize_chat
from fila_video.video_reading_fila_video import VideoSegment, read_frames
from helpers.tiny_processor import tiny_processor
from helpers.video_files import make_video

QUESTION = {"type": "text", "text": "What?"}


def blocks_of(*content) -> list[dict]:
    return normalize_chat([{"role": "user", "content": list(content)}])[0]["content"]


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ({"text": "What?"}, QUESTION),
        ("What?", QUESTION),
        ({"type": "input_text", "text": "What?"}, QUESTION),
        ({"type": "text", "text": "What?", "video": None}, QUESTION),
        ({"video": "a.mp4"}, {"type": "video", "video": "a.mp4"}),
        ({"type": "video", "path": "a.mp4", "text": None}, {"type": "video", "video": "a.mp4"}),
        ({"type": "video_url", "video_url": {"url": "https://a.mp4"}}, {"type": "video", "url": "https://a.mp4"}),
        ({"type": "video_url", "video_url": "a.mp4"}, {"type": "video", "video": "a.mp4"}),
        ({"type": "video_url", "video_url": {"url": "data:;base64,AAE="}}, {"type": "video", "video": b"\0\1"}),
        ({"type": "image_url", "image_url": {"url": "a.png"}}, {"type": "image", "image": "a.png"}),
        ({"type": "image", "image": "a.png", "url": None, "text": ""}, {"type": "image", "image": "a.png"}),
        ({"type": "video"}, {"type": "video"}),
        (
            {"type": "video", "video": "a.mp4", "video_start": 2, "video_end": 6.5},
            {"type": "video", "video": [VideoSegment("a.mp4", 2, 6.5)]},
        ),
        (
            {"type": "video", "video": {"url": "a.mp4", "video_start": 2}},
            {"type": "video", "video": [VideoSegment("a.mp4", 2)]},
        ),
        # The place of a medium that comes by another way, as data sets and clients write it.
        ({"type": "image", "index": 0, "text": None, "cache_control": {"type": "ephemeral"}}, {"type": "image"}),
        ({"type": "video", "video": None, "fps": 1.0}, {"type": "video"}),
    ],
)  # fmt: skip
def test_a_block_is_read_as_it_is_plainly_meant(block, expected) -> None:
    before = copy.deepcopy(block)
    assert blocks_of(block, QUESTION)[0] == expected and block == before


def test_an_empty_text_beside_the_question_is_left_out() -> None:
    assert blocks_of({"type": "text", "text": ""}, {"type": "video"}, QUESTION) == [{"type": "video"}, QUESTION]


def test_an_assistants_message_may_be_empty_and_other_keys_are_kept() -> None:
    chat = [
        {"role": "user", "content": "Who?", "images": []},
        {"role": "assistant", "content": None, "tool_calls": [], "refusal": None},
    ]
    assert normalize_chat(chat) == [
        {"role": "user", "content": [{"type": "text", "text": "Who?"}], "images": []},
        {"role": "assistant", "content": [{"type": "text", "text": ""}], "tool_calls": []},
    ]


@pytest.mark.parametrize(
    ("chat", "message"),
    [
        ([], "no messages"),
        (5, "list of messages, got int"),
        ("What?", "list of messages, got str"),
        ({"role": "user", "content": "What?"}, "list of messages, got dict with role, content"),
        ({"messages": [], "id": 5}, "list of messages, got dict with messages, id"),
        (({"role": "user", "content": "?"} for _ in "a"), "list of messages, got generator"),
        ({"messages": []}, "no messages"),
        (["What?"], "A message is a dictionary.*got str"),
        ([{"content": "What?"}], "role is one of system, user, assistant, got None"),
        ([{"role": "tool", "content": "What?"}], "got 'tool'"),
        ([{"role": ["user"], "content": "What?"}], r"got \['user'\]"),
        ([{"role": "user", "content": 5}], "text or a list of blocks, got int"),
        ([{"role": "user", "content": None}], "question is empty"),
        ([{"role": "user"}], "question is empty"),
        ([{"role": "user", "content": []}], "question is empty"),
        ([{"role": "user", "content": [{"type": "text", "text": " "}, {"type": "video"}]}], "question is empty"),
        ([{"role": "user", "content": [{"type": "video", "video": "a.mp4"}]}], "A chat has no question"),
        ([{"role": "system", "content": "Be brief."}], "A chat has no question"),
        ([{"role": "user", "content": [{"video": "a.mp4", "end": 5}, "What?"]}], "`end` of a video is not read"),
        ([{"role": "user", "content": [7]}], "content block is a dictionary.*got int"),
        ([{"role": "user", "content": [{"name": "a"}]}], "needs a `type`.*has 'name'"),
        ([{"role": "user", "content": [{"text": "a", "video": "b"}]}], "needs a `type`.*'text', 'video'"),
        ([{"role": "user", "content": [{"type": "audio", "audio": "a"}]}], "got: 'audio'"),
        ([{"role": "user", "content": [{"type": "text", "text": 5}]}], "holds its text as `text`, got 5"),
        ([{"role": "user", "content": "a \ud800"}], r"not valid Unicode: character 2 is '\\ud800'"),
        ([{"role": "user", "content": [{"type": "text", "text": "\udcff"}]}], "not valid Unicode"),
        ([{"role": "user", "content": [{"video_url": "data:video/mp4;base64,?"}]}], "Cannot read the video"),
        (
            [{"role": "user", "content": "What?", "video": "a.mp4"}],
            r'`video` beside its `content`: put it into the `content`, as {"type": "video", "video": …}\.',
        ),
        ([{"role": "user", "content": "What?", "videos": ["a.mp4"]}], "`videos` beside its `content`"),
        ([{"role": "user", "content": "What?", "video_url": {"url": "a"}}], "`video_url` beside its `content`"),
        (
            [{"role": "user", "content": ["What?"], "images": ["a"]}],
            r'`images` beside .*as {"type": "image", "image": …}',
        ),
        ([{"role": "system", "content": "Be brief.", "image": "a.png"}], "`image` beside its `content`"),
        ([{"role": "user", "content": "What?", "image_url": "a.png"}], "`image_url` beside its `content`"),
        (
            [{"role": "user", "content": [{"type": "text", "text": "What?", "video": "a.mp4"}]}],
            r'block of type text also has `video`: .* a block of its own, as {"type": "video", "video": …}\.',
        ),
        ([{"role": "user", "content": [{"type": "text", "text": "a", "images": [1]}]}], "text also has `images`"),
        ([{"role": "user", "content": [{"type": "image", "image": "a", "video": "b"}, "?"]}], "also has `video`"),
        ([{"role": "user", "content": [{"type": "video", "video": "a", "image": "b"}, "?"]}], "also has `image`"),
        (
            [{"role": "user", "content": [{"type": "image", "image": "a", "text": "What?"}]}],
            r'type image also has `text`: .*as {"type": "text", "text": …}',
        ),
        ([{"role": "user", "content": [{"type": "video", "videos": ["a"]}, "What?"]}], "also has `videos`"),
        (
            [{"role": "user", "content": [{"type": "video", "file": "a.mp4"}, "What?"]}],
            r'type video has no video: nothing is read from its \'file\'. Give it as {"type": "video", "video": …}\.',
        ),
        ([{"role": "user", "content": [{"type": "video", "base64": "AAE="}, "?"]}], "no video: .* its 'base64'"),
        ([{"role": "user", "content": [{"type": "image", "img": "a", "fps": 2}, "?"]}], "no image: .* 'img'"),
        (
            [{"role": "user", "content": [{"type": "image", "url": "https://a.png", "path": "b.png"}, "What?"]}],
            "An image has one source, but this one has `url` and `path`",
        ),
        *(
            ([{"role": "user", "content": "Who?"}, {"role": "assistant", "content": None, **said}], "nothing is read")
            for said in ({"tool_calls": [{"id": "1"}]}, {"function_call": {"name": "a"}}, {"refusal": "I cannot."})
        ),
    ],
)  # fmt: skip
def test_what_is_not_plain_is_refused_with_what_is_wrong(chat, message) -> None:
    with pytest.raises(ValueError, match=message):
        normalize_chat(chat)


@pytest.mark.parametrize("form", ["dictionary", "segment", "segments", "frames", "pictures", "array"])
def test_every_form_of_a_video_reaches_the_frames_through_a_chat(tmp_path, form) -> None:
    """A clip, above all, is the clip and not the whole video."""
    path = make_video(tmp_path / "v.mp4", 50)
    read = read_frames(path, times=[1.0, 1.04, 1.08])
    block = {"type": "video"} | {
        "dictionary": {"url": str(path), "video_start": 1, "video_end": 1.12},
        "segment": {"video": VideoSegment(path, 1, 1.12)},
        "segments": {"video": [VideoSegment(path, 1, 1.04), VideoSegment(path, 1.04, 1.12)]},
        "frames": {"video": read},
        "pictures": {"video": [PIL.Image.fromarray(frame) for frame in read.frames]},
        "array": {"video": read.frames},
    }[form]
    processor = tiny_processor()
    chat = [{"role": "user", "content": [block, QUESTION]}]
    before = copy.deepcopy(chat)
    for given in (chat, [chat]):
        made = processor.apply_chat_template(
            given, tokenize=True, return_dict=True, return_tensors="pt", processor_kwargs={"return_scenes": True}
        )
        assert (
            made["scenes"][0]["indices"].unique().tolist() == read.metadata.frames_indices
            if form == "frames"
            else [0, 1, 2]
        )
    assert len(chat[0]["content"]) == len(before[0]["content"]) == 2


def test_a_row_of_a_data_set_is_its_messages_and_a_column_of_chats_is_several() -> None:
    chat = [{"role": "user", "content": "What?"}]
    processor = tiny_processor()
    expected = processor.apply_chat_template(chat)
    assert processor.apply_chat_template({"messages": chat}) == expected
    for several in ([{"messages": chat}] * 2, UserList([chat, chat])):  # like a column, which is no list either
        assert processor.apply_chat_template(several) == [expected] * 2


def test_what_is_not_read_of_a_picture_is_said(caplog, monkeypatch) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    blocks_of({"type": "image", "image": "a.png", "detail": "low", "resized_height": 280}, "What?")
    assert "`resized_height` of an image is not read" in caplog.text and caplog.text.count("not read") == 1
