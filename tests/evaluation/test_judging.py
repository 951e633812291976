"""Which answers are right: of free questions by their meaning, and of choices by their options, in all their forms."""

import pytest
from fila_video.evaluation.judging import BlindBaseline, is_right
from fila_video.evaluation.records import Question
from fila_video.evaluation.texts import normalize, split_choice
from helpers.evaluation_files import CHOICE


@pytest.mark.parametrize(
    ("answer", "right"),
    [("a red circle", True), ("Red circle.", True), ("the  RED, circle!", True), ("a red square", False), ("", False)],
)
def test_a_free_answer_counts_whatever_its_case_articles_and_punctuation(answer, right) -> None:
    assert is_right(Question("What appears?", "A red circle", "what"), answer) is right


def test_normalization_keeps_points_within_numbers() -> None:
    assert normalize("At 12.5 seconds.") == "at 12.5 seconds" and normalize("the **red-ish** `one`") == "red ish one"


@pytest.mark.parametrize(
    ("expected", "answer", "right"),
    [
        *(("A", answer, False) for answer in ("", "the", ".", "B")),
        *(("A", answer, True) for answer in ("a", "A.", "(A)", "the A")),
        *(("?", answer, answer == "?") for answer in ("?", "", "!")),
        ("Vitamin A", "vitamin", False),
        ("A, C", "C", False),
        ("A-", "A", False),
        ("A+", "+", False),
        *(("5", answer, False) for answer in ("-5", "$5", "5%", ".5", "<5")),
        ("-5", "\u22125", True),
        ("-$5", "$5", False),
        ("5 %", "5%.", True),
        ("+", "-", False),
        ("1,000,000", "1000000", True),
        ("1,2", "1, 2", True),
        ("1,2", "12", False),
        ("C++", "C", False),
        ("C#", "C", False),
        ("C#", "# C", False),
        ("red", "# red", True),
        ("10:30", "10 30", False),
        ("1\u00bd", "11/2", False),
        ("10\u00b2", "102", False),
        ("\uff11\uff10", "10", True),
        ("\u0915\u0940", "\u0915\u093e", False),  # Hindi, with other vowel signs
        ("e\u0301", "\u00e9", True),
        ("Stra\u00dfe", "STRASSE", True),
    ],
)
def test_only_answers_of_the_same_meaning_are_the_same(expected, answer, right) -> None:
    assert is_right(Question("What?", expected, "what"), answer) is right


def test_any_of_several_answers_is_right() -> None:
    question = Question("Which colour?", "red", "color", "free", ("crimson",))
    assert [is_right(question, answer) for answer in ("Red.", "crimson", "blue")] == [True, True, False]
    question = Question(CHOICE, "A", "color", "choice", ("green",))
    assert [is_right(question, answer) for answer in ("red", "(B)", "C")] == [True, True, False]


FORMS = {
    "lines": "Which?\nA. red\nB. green\nC. blue",
    "round": "Which?\n(A) red\n(B) green\n(C) blue\nAnswer with the letter.",
    "bracket": "Which?\n A) red\n B) green\n C) blue",
    "colon": "Which?\nA: red\nB: green\nC: blue",
    "one line": "Which does Mr. A. show? A. red B. green C. blue",
    "two lines": "Which?\n(A) red (B) green\n(C) blue",
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("expected", ["B", "(B)", "B. green", "green"])
def test_a_choice_counts_in_all_forms_of_its_options(text, expected) -> None:
    assert split_choice(text)[1] == {"A": "red", "B": "green", "C": "blue"}
    question = Question(text, expected, "color", "choice")
    for answer in ("B", "b.", "B.", "(B)", "B. green", "(B) green", "B.green", "Green", "the green."):
        assert is_right(question, answer), answer
    for answer in ("A", "blue", "Bob", "", "D", "Z", "A. red"):
        assert not is_right(question, answer), answer
    assert BlindBaseline([]).chance(question) == 1 / 3
    learned = BlindBaseline([question] * 30)
    assert is_right(question, learned.answer(question))


def test_the_very_text_of_an_option_counts_before_letters_and_signs_tell_options_apart() -> None:
    capital = Question("Which?\nA. D.C.\nB. Rome\nC. Paris\nD. Bern", "A", "k", "choice")
    assert is_right(capital, "D.C.") and is_right(capital, "d.c.") and not is_right(capital, "D. Bern")
    person = Question("Who?\nA. B. Smith\nB. Rome", "A", "k", "choice")
    assert is_right(person, "B. Smith") and not is_right(person, "B. Rome")
    signs = Question("Which?\nA. +5\nB. -5", "B", "k", "choice")
    assert is_right(signs, "-5") and not is_right(signs, "+5") and not is_right(signs, "5")
