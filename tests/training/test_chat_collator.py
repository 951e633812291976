"""Rows of chats become batches that a trainer can use: pixels, and labels on the assistant's turns alone."""

import pytest
import torch
from fila_video import ChatCollator
from helpers.tiny_processor import clip, conversation, model_for, tiny_processor
from transformers import Trainer, TrainingArguments

SHOWN = [{"role": "assistant", "content": [{"video": clip(20)}, {"type": "text", "text": "Here."}]}]


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


def answers(batch, row: int, processor) -> str:
    labels = batch["labels"][row]
    return processor.tokenizer.decode(labels[labels != -100])


def test_every_turn_of_the_assistant_is_learned_and_nothing_else(processor) -> None:
    chat = [
        *conversation(clip(20), "What?", answer="a green ring"),
        {"role": "user", "content": [{"type": "text", "text": "And then?"}]},
        {"role": "assistant", "content": "a red star"},
    ]
    batch = ChatCollator(processor)([{"messages": chat}, {"messages": conversation("Hello?", answer="hi")}])
    assert answers(batch, 0, processor) == "a green ring<|im_end|>a red star<|im_end|>"
    assert answers(batch, 1, processor) == "hi<|im_end|>"
    assert batch["pixel_values_videos"].shape[0] == 1
    learned = batch["labels"] != -100
    assert torch.equal(batch["labels"][learned], batch["input_ids"][learned])
    assert not learned[batch["attention_mask"] == 0].any()


def test_of_a_prompt_and_its_completion_only_the_completion_is_learned(processor) -> None:
    prompt = [
        *conversation(clip(20), "What?", answer="a green ring"),
        {"role": "user", "content": [{"type": "text", "text": "And then?"}]},
    ]
    completion = [{"role": "assistant", "content": [{"type": "text", "text": "a red star"}]}]
    batch = ChatCollator(processor)([{"prompt": prompt, "completion": completion}])
    assert answers(batch, 0, processor) == "a red star<|im_end|>"


def test_keys_that_datasets_fills_with_none_are_ignored(processor) -> None:
    """An Arrow table gives every block of a column the same keys."""
    chat = conversation(clip(20), "What?", answer="yes")
    missing = dict.fromkeys(("type", "text", "video", "path"))
    filled = [message | {"content": [missing | block for block in message["content"]]} for message in chat]
    collator = ChatCollator(processor)
    plain, from_datasets = collator([{"messages": chat}]), collator([{"messages": filled}])
    assert plain.keys() == from_datasets.keys()
    assert all(torch.equal(plain[name], from_datasets[name]) for name in plain)


def test_tokens_of_media_are_never_learned(processor, monkeypatch) -> None:
    monkeypatch.setattr("fila_video.training.chat_collator._check_answer", lambda index, message: None)
    shown = [{"role": "assistant", "content": [{"type": "video", "video": clip(20)}, *SHOWN[0]["content"][1:]]}]
    batch = ChatCollator(processor)([{"messages": conversation("Show") + shown}])
    assert (batch["input_ids"] == processor.video_token_id).any()
    assert "<video>" not in answers(batch, 0, processor) and "Here." in answers(batch, 0, processor)


def test_options_reach_the_processor(processor) -> None:
    row = {"messages": conversation(clip(30), "What?", answer="yes")}
    frames = {n: ChatCollator(processor, num_scenes=n)([row])["pixel_values_videos"].shape[1] for n in (2, 3)}
    assert frames == {2: 6, 3: 9}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"input_ids": [1, 2]}, r"Row 1 .* columns \['input_ids'\].*remove_unused_columns=False"),
        ({"prompt": "What?", "completion": "a ring"}, "Row 1 .* each a list of messages"),
        ({"messages": conversation("What?", answer=" \n")}, "Row 1 .* a turn of the assistant without words"),
        ({"prompt": conversation("What?"), "completion": SHOWN}, "Row 1 .* media stand in questions, not in answers"),
        ({"messages": conversation("What?") + SHOWN}, "Row 1 .* media stand in questions, not in answers"),
        ({"messages": conversation("What?")}, r"Row 1 .* no turn of the assistant.*\['user'\]"),
    ],
)
def test_a_row_that_cannot_be_learned_is_refused_by_its_number(processor, row, message) -> None:
    with pytest.raises(ValueError, match=message):
        ChatCollator(processor)([{"messages": conversation("Hello?", answer="hi")}, row])


def test_a_template_that_marks_no_answers_is_refused() -> None:
    processor = tiny_processor()
    for tag in ("{%- generation -%}", "{%- endgeneration -%}"):
        assert tag in processor.chat_template
        processor.chat_template = processor.chat_template.replace(tag, "")
    with pytest.raises(ValueError, match=r"marks no answers of the assistant.*put {% generation %} before"):
        ChatCollator(processor)


def test_a_plain_trainer_evaluates_batches_with_and_without_videos_by_their_logits(processor, tmp_path) -> None:
    chats = [conversation(clip(20), "What?", answer="a ring"), conversation("Hello?", answer="a ring")]
    arguments = TrainingArguments(
        str(tmp_path),
        per_device_eval_batch_size=1,
        remove_unused_columns=False,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(model_for(processor), arguments, data_collator=ChatCollator(processor))
    predictions = trainer.predict([{"messages": chat} for chat in chats]).predictions
    assert predictions.shape[0] == 2 and predictions.shape[2] == len(processor.tokenizer)


def test_a_plain_trainer_learns_from_chats(processor, tmp_path) -> None:
    model = model_for(processor)
    rows = [{"messages": conversation(clip(20, seed=n), "What?", answer=f"answer {n}")} for n in range(2)]
    arguments = TrainingArguments(
        str(tmp_path),
        max_steps=12,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        remove_unused_columns=False,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = Trainer(model, arguments, train_dataset=rows, data_collator=ChatCollator(processor))
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.8 * losses[0]
