"""Chats through the template: turns and their masks, media in them, and control tokens that no user may write."""

import inspect

import pytest
import torch
from fila_video.conversion.repository import FLATTEN_CONTENT
from helpers.tiny_bases import SMOL_TEMPLATE, VICUNA_TEMPLATE
from helpers.tiny_checkpoints import HF_TEMPLATE, SELECTING_TEMPLATE
from helpers.tiny_processor import chat_template, clip, conversation, count_tokens
from helpers.video_files import make_video
from PIL import Image
from transformers.processing_utils import ProcessorMixin

CHAT = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}


def test_the_template_is_qwen2s_with_its_system_message(processor) -> None:
    chat = conversation(clip(), "What?")
    assert processor.apply_chat_template(chat, add_generation_prompt=True) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<video>\nWhat?<|im_end|>\n<|im_start|>assistant\n"
    )
    own = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert processor.apply_chat_template(own) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    )


STRINGS_OF_SYSTEM = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] | trim }}{% else %}"
    "{% for block in message['content'] if block['type'] == 'text' %}[{{ block['text'] }}]{% endfor %}{% endif %}"
    "{% endfor %}"
)
STRINGS_ALONE = "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"


@pytest.mark.parametrize(
    "template",
    [
        chat_template(),
        HF_TEMPLATE,
        SELECTING_TEMPLATE,
        VICUNA_TEMPLATE,
        SMOL_TEMPLATE,
        FLATTEN_CONTENT + STRINGS_ALONE,
        STRINGS_ALONE,
        STRINGS_OF_SYSTEM,
    ],
    ids=["own", "blocks", "selected blocks", "Vicuna", "SmolVLM", "flattened", "strings", "mixed"],
)
def test_no_text_gets_lost_whether_it_is_a_string_or_a_block(processor, template) -> None:
    turns = [("system", "First."), ("user", "Second?"), ("assistant", "Third."), ("user", "Fourth?")]
    strings = [{"role": role, "content": text} for role, text in turns]
    blocks = [message | {"content": [{"type": "text", "text": message["content"]}]} for message in strings]
    one, other = (processor.apply_chat_template(chat, chat_template=template) for chat in (strings, blocks))
    assert one == other and all(one.count(text) == 1 for _, text in turns)


def test_the_sentence_stands_between_the_video_and_the_question(processor) -> None:
    inputs = processor.apply_chat_template(conversation(clip(), "What?"), **CHAT)
    text = processor.decode(inputs["input_ids"][0])
    before, after = text.replace("<video>", "").split("This video samples 4 frames")
    assert before.endswith("<|im_start|>user\n\n")
    assert after.split(" seconds.")[1] == "\nWhat?<|im_end|>\n<|im_start|>assistant\n"


def test_the_generation_mask_covers_the_assistants_turns_alone(processor) -> None:
    chat = [
        *conversation(clip(), "What?", answer="A dog runs."),
        *conversation("And then?", answer="It sleeps."),
    ]
    inputs = processor.apply_chat_template(
        [chat, conversation("Who?", answer="Ann.")], tokenize=True, return_dict=True, return_tensors="pt",
        return_assistant_tokens_mask=True, processor_kwargs={"padding": True},
    )  # fmt: skip
    masks = torch.as_tensor(inputs["assistant_masks"]).bool()
    told = [processor.decode(ids[mask]) for ids, mask in zip(inputs["input_ids"], masks, strict=True)]
    assert told == ["A dog runs.<|im_end|>It sleeps.<|im_end|>", "Ann.<|im_end|>"]


def test_a_final_message_can_be_continued(processor) -> None:
    chat = conversation(clip(), "What?", answer="I see")
    inputs = processor.apply_chat_template(
        chat, **(CHAT | {"add_generation_prompt": False}), continue_final_message=True
    )
    assert processor.decode(inputs["input_ids"][0]).endswith("<|im_start|>assistant\nI see")


def test_a_batch_of_chats_with_and_without_videos_is_padded_left(processor, folder) -> None:
    chats = [conversation("Only text?"), conversation(folder / "steady.mp4", clip(2), "Both?")]
    inputs = processor.apply_chat_template(chats, **CHAT, processor_kwargs={"padding": True, "num_scenes": 3})
    assert inputs["video_num_scenes"].tolist() == [3, 2]
    assert inputs["attention_mask"][0, 0] == 0 and inputs["attention_mask"][:, -1].tolist() == [1, 1]


def test_an_image_in_a_chat_is_one_pooled_frame(processor) -> None:
    chat = [
        {
            "role": "user",
            "content": [{"type": "image", "image": Image.new("RGB", (9, 9))}, {"type": "text", "text": "?"}],
        }
    ]
    inputs = processor.apply_chat_template(chat, **CHAT)
    assert count_tokens(processor, inputs, processor.image_token_id) == 10


@pytest.mark.parametrize("token", ["<video>", "<image>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"])
def test_control_tokens_in_a_users_text_are_refused(processor, token) -> None:
    chats = [
        conversation(f"before {token} after"),
        conversation(clip(2), f"{token}", "x"),
        conversation(token[:3], token[3:]),
        [{"role": "user", "content": f"a{token}"}],
        [{"role": "system", "content": f"a{token}"}, *conversation("b")],
        conversation("a", answer=token),
        [conversation("a"), conversation(token)],
    ]
    for chat in chats:
        with pytest.raises(ValueError, match="is a control token"):
            processor.apply_chat_template(chat, tokenize=False)
    with pytest.raises(ValueError, match="A role is one of"):
        processor.apply_chat_template([{"role": f"user{token}", "content": "a"}], tokenize=False)


def test_sanitised_control_tokens_are_plain_text_or_refused(processor) -> None:
    chat = conversation(clip(2), "What is <video> and <|im_end|>?")
    options = CHAT | {"sanitize_control_tokens": True}
    if "sanitize_control_tokens" not in inspect.signature(ProcessorMixin.apply_chat_template).parameters:
        with pytest.raises(ValueError, match="newer transformers"):
            processor.apply_chat_template(chat, **options)
        return
    inputs = processor.apply_chat_template(chat, **options)
    assert count_tokens(processor, inputs, processor.video_token_id) == 2 * 9 + 1
    assert processor.decode(inputs["input_ids"][0]).endswith(
        "What is <video> and <|im_end|>?<|im_end|>\n<|im_start|>assistant\n"
    )
    plain = processor.apply_chat_template(conversation(clip(2), "What?"), **CHAT)
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert count_tokens(processor, inputs, end) == count_tokens(processor, plain, end)


def test_paths_of_media_may_look_like_control_tokens(processor, tmp_path) -> None:
    path = make_video(tmp_path / "a<video>.mp4", 5)
    inputs = processor.apply_chat_template(conversation(path, "What?"), **CHAT)
    assert inputs["video_num_scenes"].tolist() == [4]


@pytest.mark.parametrize(
    "chat", [[], [[]], conversation(clip(2), ""), conversation("  "), [{"role": "user", "content": ""}]]
)
def test_chats_without_a_question_are_refused(processor, chat) -> None:
    with pytest.raises(ValueError, match=r"is empty|no messages"):
        processor.apply_chat_template(chat, tokenize=False)
