"""Pairs that the data never show: what of them is no choice in the loss."""

import pytest
from fila_video.processing_fila_video import FilaVideoProcessor
from fila_video.training.settings import TrainingError
from fila_video.training.unseen_pairs import UnseenPairs

from ..helpers.command_line import ROOT

PAIRS = [["red", "ring"], ["blue", "star"], ["white", "star"], ["green", "triangle"]]
TOKENIZER = FilaVideoProcessor.from_pretrained(ROOT).tokenizer


def left_out(*turns: tuple[str, str], pairs=PAIRS) -> list[list[str]]:
    """Of each turn, what is no choice: `place: what` by the text of the label and of the token."""
    ids, labels, ends = [], [], []
    for question, answer in turns:
        asked = TOKENIZER(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False)
        said = TOKENIZER(f"{answer}<|im_end|>", add_special_tokens=False)
        labels += [-100] * len(asked["input_ids"]) + said["input_ids"]
        ids += asked["input_ids"] + said["input_ids"]
        ends.append(len(ids))
    found: list[list[str]] = [[] for _ in turns]
    for position, token in UnseenPairs(pairs, TOKENIZER).left_out(ids, labels):
        assert labels[position] not in (-100, token)
        turn = next(turn for turn, end in enumerate(ends) if position < end)
        found[turn].append(f"{TOKENIZER.decode([labels[position]])}: {TOKENIZER.decode([token])}")
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


def test_what_comes_together_stays_a_choice_even_where_it_is_an_unseen_pair() -> None:
    (found,) = left_out(("What happens?", "A red ring."))
    assert found == []
    assert left_out(("What happens?", "A yellow cross.")) == [[]]


def test_a_word_without_tokens_of_its_own_is_refused() -> None:
    with pytest.raises(TrainingError, match="no tokens for the word '' of `unseen_pairs`"):
        UnseenPairs([["", "ring"]], TOKENIZER)
