"""Pairs that the data never show: what of them is no choice in the loss."""

import pytest
import tokenizers
from fila_video.processing_fila_video import FilaVideoProcessor
from fila_video.training.settings import TrainingError
from fila_video.training.unseen_pairs import UnseenPairs
from transformers import PreTrainedTokenizerFast

from ..helpers.command_line import ROOT

PAIRS = [["red", "ring"], ["blue", "star"], ["white", "star"], ["green", "triangle"]]
TOKENIZER = FilaVideoProcessor.from_pretrained(ROOT).tokenizer


def left_out(*turns: tuple[str, str], pairs=PAIRS, before="assistant\n", tokenizer=TOKENIZER) -> list[list[str]]:
    """Of each turn, what is no choice: `place: what` by the text of the label and of the token."""
    ids, labels, ends = [], [], []
    for question, answer in turns:
        asked = tokenizer(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>{before}", add_special_tokens=False)
        said = tokenizer(f"{answer}<|im_end|>", add_special_tokens=False)
        labels += [-100] * len(asked["input_ids"]) + said["input_ids"]
        ids += asked["input_ids"] + said["input_ids"]
        ends.append(len(ids))
    found: list[list[str]] = [[] for _ in turns]
    for position, token in UnseenPairs(pairs, tokenizer).left_out(ids, labels):
        assert labels[position] not in (-100, token)
        turn = next(turn for turn, end in enumerate(ends) if position < end)
        found[turn].append(f"{tokenizer.decode([labels[position]])}: {tokenizer.decode([token])}")
    return [sorted(places) for places in found]


def test_beside_a_word_that_is_said_its_pair_is_no_choice() -> None:
    (found,) = left_out(("What happens?", "A red star, then a green ring."))
    assert found == [" green:  red", " red:  blue", " red:  white", " ring:  triangle", " star:  ring"]


@pytest.mark.parametrize(
    "question",
    ["What shape is the red object?", "WHAT SHAPE IS THE RED OBJECT?", "which shape is redd", "What are the reds?"],
)
def test_what_was_asked_about_counts_where_an_answer_has_one_word(question) -> None:
    (found,) = left_out((question, "cross"))
    assert found == []  # a word without a pair
    (found,) = left_out((question, "star"))
    assert "st: ring" in found


def test_each_question_is_the_answers_own() -> None:
    first, second = left_out(("What shape is the red object?", "star"), ("What shape is the object?", "star"))
    assert "st: ring" in first and "st: ring" not in second


def test_a_word_of_several_tokens_parts_where_it_differs() -> None:
    """At the start of an answer, black and blue begin alike, and black stays a choice."""
    pairs = [*PAIRS, ["black", "square"]]
    (found,) = left_out(("What color is the star?", "black"), pairs=pairs)
    assert found == ["b: s", "b: w", "la: l"]
    (found,) = left_out(("What color is the star?", "red"), pairs=pairs)
    assert found == ["red: ring", "red: w"]


@pytest.mark.parametrize(
    ("before", "answer", "left"),
    [("Assistant:", " star", " star:  ring"), ("A:\n", "Star", "S: R"), ("", '"star"', "st: ring")],
)
def test_a_word_is_known_behind_a_space_with_a_capital_and_in_quotes(before, answer, left) -> None:
    (found,) = left_out(("What shape is the red object?", answer), before=before)
    assert left in found


def test_words_that_only_look_alike_were_not_asked_about() -> None:
    alike = "During the first quarter, while it starts, read across the string: back at the start, what do you write?"
    assert left_out((alike, "cross"), pairs=[*PAIRS, ["black", "cross"]]) == left_out(
        ("What?", "cross"), pairs=[*PAIRS, ["black", "cross"]]
    )


@pytest.mark.parametrize("typo", ["rde", "rred", "redd", "rd", "REDS"])
def test_a_word_with_a_typo_was_asked_about(typo) -> None:
    (found,) = left_out((f"What shape is the {typo} object?", "star"))
    assert "st: ring" in found


def test_of_words_that_begin_alike_the_longer_one_is_said() -> None:
    pairs = [["red", "star"], ["blue", "starfish"]]
    assert left_out(("What?", "a blue starfish"), pairs=pairs) == [[]]
    (found,) = left_out(("What?", "a blue star"), pairs=pairs)
    assert " blue:  red" in found


def test_a_word_may_stand_in_both_places() -> None:
    pairs = [["red", "ring"], ["ring", "star"], ["blue", "cross"]]
    (found,) = left_out(("What?", "a blue ring"), pairs=pairs)
    assert " ring:  cross" in found


def test_capitals_in_the_settings_say_nothing() -> None:
    turn = ("What shape is the red object?", "star")
    assert left_out(turn, pairs=[[first.title(), second.upper()] for first, second in PAIRS]) == left_out(turn)


def test_tokens_that_hold_their_space_are_words_at_the_start_of_an_answer_too() -> None:
    """As Llama's: a space is a part of the word behind it."""
    bpe = tokenizers.SentencePieceBPETokenizer()
    texts = ["what shape is the red object? star ring cross", "a blue star, a white ring, a green triangle"] * 50
    bpe.train_from_iterator(texts, vocab_size=400, special_tokens=["<unk>", "<|im_start|>", "<|im_end|>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, unk_token="<unk>")
    for before, answer in (("assistant:", " star"), ("assistant: ", "star")):
        (found,) = left_out(("What shape is the red object?", answer), before=before, tokenizer=tokenizer)
        assert "star: ring" in found


def test_what_comes_together_stays_a_choice_even_where_it_is_an_unseen_pair() -> None:
    (found,) = left_out(("What happens?", "A red ring."))
    assert found == []
    assert left_out(("What happens?", "A yellow cross.")) == [[]]


def test_a_word_without_tokens_of_its_own_is_refused() -> None:
    with pytest.raises(TrainingError, match="no tokens for the word '' of `unseen_pairs`"):
        UnseenPairs([["", "ring"]], TOKENIZER)
