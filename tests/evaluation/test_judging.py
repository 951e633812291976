"""Which answers are right: of free questions by their meaning, and of choices by their options, in all their forms."""

import pytest
from fila_video.evaluation.judging import BlindBaseline, is_right
from fila_video.evaluation.records import Question
from fila_video.evaluation.texts import chosen_option, normalize, split_choice
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
        ("5", "$5$", True),
        ("5", "$5", False),
        ("red", "<red>", True),
        ("5", "<5", False),
        ("5-6", "5 - 6", True),
        ("5-6", "5 -6", False),
        ("1:1", "1 : 1", True),
        ("Coca-Cola\u00ae", "Coca-Cola", True),
        ("iPhone\u2122", "iphone", True),
        ("red", "red \U0001f600", True),
        ("red", "red \u2764\ufe0f", True),
        ("10\u00b0", "10", False),
        ("B\u266d", "B", False),
        ("\U0001f1eb\U0001f1f7 flag", "\U0001f1e9\U0001f1ea flag", False),
        ("red | blue", "red blue", True),
        ("left -> right", "left right", True),
        ("left <- right", "left right", False),
        ("red", "red \u00b4", True),
        ("red", "red-", True),
        ("AB-", "AB", False),
        ("50", "50%", False),
        ("5", "+5", False),
    ],
)
def test_only_answers_of_the_same_meaning_are_the_same(expected, answer, right) -> None:
    assert is_right(Question("What?", expected, "what"), answer) is right


@pytest.mark.parametrize(
    ("expected", "answer", "right"),
    [
        ("7 \u2665", "7 \u2660", False),
        ("turn \u2b05", "turn \u27a1", False),
        ("left \u2b05 right", "left \u2192 right", False),
        ("left \u27a1\ufe0f right", "left -> right", True),
        ("\u25b2 x", "\u25bc x", False),
        ("a \U0001f534 ball", "a \U0001f7e2 ball", False),
        ("option \u2611", "option \u2612", False),
        ("\u2600 sunny", "\u2601\ufe0f sunny", False),
        ("rated \u2605\u2605", "rated \u2605\u2605\u2605", False),
        ("\U0001f44d\U0001f3fb up", "\U0001f44d\U0001f3ff up", False),
        ("7\u2665", "7 \u2665.", True),
        ("red \u2764\ufe0f", "red \u2764", True),
        ("red", "\u25cf red", True),
        ("Coca-Cola\u00ae", "Coca-Cola \U0001f600", True),
        ("iPhone\u2122 \U0001f600", "iPhone \U0001f600", True),
    ],
)
def test_symbols_tell_answers_apart_where_both_have_some(expected, answer, right) -> None:
    assert is_right(Question("What?", expected, "what"), answer) is right
    assert is_right(Question("What?", answer, "what"), expected) is right
    if not right:
        options = Question(f"Which?\nA. {expected}\nB. {answer}", "A", "what", "choice")
        assert is_right(options, expected) and not is_right(options, answer)


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
    "lower": "Which?\na. red\nb. green\nc. blue",
    "lower round": "Which? (a) red (b) green (c) blue",
    "no blank": "Which?\nA.red\nB.green\nC.blue",
    "round without blank": "Which?\n(A)red\n(B)green\n(C)blue",
    "dash": "Which?\nA - red\nB \u2013 green\nC - blue",
    "tab": "Which?\nA\tred\nB\tgreen\nC\tblue",
    "wide": "Which?\nA\uff0ered\nB\uff0egreen\n\uff23\uff0eblue",
    "Chinese": "\u54ea\u4e2a\uff1fA\u3001red B\u3001green C\u3001blue",
    "bold": "Which?\n**A.** red\n**B.** green\n**C. blue**",
    "breaks": "Which?<br>A. red<br/>B. green<br>C. blue",
    "bullets": "Which?\n- A. red\n- B. green\n- C. blue",
    "an example behind": "Which?\nA. red\nB. green\nC. blue\nAnswer like this:\nA. red",
    "an example before": "Such as:\nA. one\nB. two\nWhich?\nA. red\nB. green\nC. blue",
    "a request behind": "Which? (A) red (B) green (C) blue. Answer (A) or (B) only.",
    "statements before": "1. It is red.\n2. It is green.\nWhich?\nA. red\nB. green\nC. blue",
    "two lines": "Which?\n(A) red (B) green\n(C) blue",
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("expected", ["B", "(B)", "B. green", "green"])
def test_a_choice_counts_in_all_forms_of_its_options(text, expected) -> None:
    assert {letter: text.strip(".") for letter, text in split_choice(text)[1].items()} == {
        "A": "red",
        "B": "green",
        "C": "blue",
    }
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


@pytest.mark.parametrize(
    "answer",
    [
        *(
            "B",
            "b",
            "b.",
            "(b)",
            "[B]",
            "B,",
            "B;",
            "B!",
            "B.?",
            'B."',
            "B.}",
            "B)",
            "\uff08B\uff09",
            "\uff22",
            "B\u3002",
        ),
        *(
            "B.The thing is green",
            "(B)The thing",
            "(B), because",
            "(B)\u2014green",
            "(B)!",
            "(B);",
            "(B)\u3002",
            "(B)**",
        ),
        *(
            "B.\u56e0\u4e3a\u5b83\u662f\u7eff\u8272\u7684",
            "B:\u7eff\u8272\u7684",
            "(B)\u7eff\u8272\u7684",
            "\u7b54\u6848\u662fB",
        ),
        *("B.</s>", "B.<|im_end|>", "<answer>B</answer>", "**B**", "**B. green**", "**B.** green", "`B`", "'B'"),
        *(
            "The answer is B",
            "The correct answer is (B).",
            "Answer: B",
            "Option B",
            "Final answer: B",
            "Best option: (B)",
        ),
        *(r"\boxed{B}", r"$\boxed{\text{B}}$", "So the answer is **B**.", "B - green", "B green", "B. A thing, green"),
    ],
)
def test_an_answer_may_name_its_letter_in_many_ways(answer) -> None:
    question = Question(CHOICE, "B", "color", "choice")
    assert is_right(question, answer)
    assert not is_right(Question(CHOICE, "A", "color", "choice"), answer)


@pytest.mark.parametrize(
    "answer",
    [
        *(
            "A.B.C.",
            "A.C.",
            "A.M.",
            "A.5",
            "A or B",
            "A and B",
            "(A) or (B)",
            "(A), (B)",
            "A, B",
            "A, B and C",
            "A. B.",
        ),
        *("A red thing", "a thing", "A", "Apples", "a.m.", "A+", "A's", "The answer is a red thing", "Option A or B"),
    ],
)
def test_several_letters_words_and_initials_name_no_option(answer) -> None:
    question = Question("Which?\nA. green\nB. blue\nC. red", "A", "color", "choice")
    assert is_right(question, answer) is (answer == "A")
    article = Question("Which?\nA. red thing\nB. blue thing", "A", "what", "choice")
    assert is_right(article, "A red thing") and is_right(article, "a red thing.")


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("Which?\nA. red\nB. green\nD. blue", {"A": "red", "B": "green", "D": "blue"}),
        ("Which?\nA. red\nB.\nC. blue", {"A": "red", "B": "", "C": "blue"}),
        ("Which?\nA. red\nB. green\nC. green", {"A": "red", "B": "green", "C": "green"}),
        ("Which?\n1. red\n2. green", {"1": "red", "2": "green"}),
        ("Which?\nA/ red\nB/ green", {}),
        ("Which? ['red', 'green']", {}),
    ],
)
def test_a_letter_is_judged_also_of_options_that_are_odd_or_cannot_be_told(text, options) -> None:
    assert split_choice(text)[1] == options
    question = Question(text, "B", "color", "choice")
    assert [is_right(question, answer) for answer in ("B", "(b)", "A", "", "C")] == [True, True, False, False, False]


def test_numbered_options_are_named_by_their_numbers() -> None:
    question = Question("Which?\n1. red\n2. green\n3. blue", "2", "color", "choice")
    for answer, right in {"2": True, "2.": True, "(2) green": True, "green": True, "3": False, "2, 3": False}.items():
        assert is_right(question, answer) is right, answer
    assert not is_right(question, "2.5") and not is_right(question, "12")
    for answer in ("2", "2.", "(2)", "B. 2"):
        assert chosen_option({"A": "1", "B": "2", "C": "3"}, answer) == "B", answer


COLOURS = "Which?\nA. red\nB. green\nC. blue\nD. yellow"


@pytest.mark.parametrize(
    "answer",
    [
        "A. red\nB. green",
        "(A) red (B) green (C) blue (D) yellow",
        "A) red and B) green",
        "A. The ring is red B. The ring is green",
        "A.The ring is red\nB.The ring is green",
        "A\nB\nC\nD",
        "A, B are right",
        "A is correct and B is right",
        "(A) is wrong, it is (B)",
        "(A), no, it is b",
        "A: no. It is B.",
        "A: incorrect. B: correct",
        "A: it's wrong",
        "A) is incorrect",
        "(A) is certainly not it",
        "(A) isn\u2019t it",
        "A\nNo. Answer: B",
        "<think>A. red",
    ],
)
def test_an_answer_that_names_several_options_or_denies_its_own_names_none(answer) -> None:
    assert chosen_option(split_choice(COLOURS)[1], answer) is None


def test_of_numbered_options_too_an_answer_that_names_several_names_none() -> None:
    options = {"1": "red", "2": "green", "3": "blue"}
    for answer in (
        "1. It is red\n2. It is green",
        "1) red and 2) green",
        "(1) is wrong, it is (2)",
        "(1) or else it is (B)",
    ):
        assert chosen_option(options, answer) is None, answer
    assert chosen_option(options, "2 because it is green") == chosen_option(options, "(2) It is green") == "2"


@pytest.mark.parametrize(
    "answer",
    [
        "A because it is red",
        "A is correct",
        "A is the right answer.",
        "A, since it is red",
        "A\nThe ring is red.",
        "A - the ring",
        "A. red. So the answer is A",
        "A. The ring is red, i.e. not green.",
        "<think>B. green? No, (C)</think>A",
        "perhaps B</think>\n\nA",
        "<thinking>B</thinking><answer>A</answer>",
    ],
)
def test_an_answer_may_reason_before_or_behind_its_letter(answer) -> None:
    assert chosen_option(split_choice(COLOURS)[1], answer) == "A"
    assert chosen_option({}, answer) == "A"


@pytest.mark.parametrize(
    "answer", ["A ring", "A-frame", "a because", "a, since", "D major", "D-day", "A ring\nIt is red"]
)
def test_a_word_or_a_name_is_no_letter(answer) -> None:
    assert chosen_option(split_choice(COLOURS)[1], answer) is None


def test_an_initial_of_an_option_is_not_the_letter_of_another() -> None:
    options = {"A": "I. Newton", "B": "A. Einstein"}
    for answer in ("A. Einstein.", "a. einstein", "The answer is A. Einstein", "B", "B. A. Einstein, a physicist"):
        assert chosen_option(options, answer) == "B", answer
    assert chosen_option(options, "A") == chosen_option(options, "A. I. Newton") == "A"


def test_what_an_option_itself_says_neither_denies_it_nor_names_another() -> None:
    options = {"A": "false alarm", "B": "vitamin (A) or C. D", "C": "red", "D": "is not shown"}
    assert chosen_option(options, "A. False alarm, as the bell rings") == "A"
    assert chosen_option(options, "(B) Vitamin (A) or C. D, as the label says") == "B"
    assert chosen_option(options, "D: is not shown at all") == "D"


RINGS = split_choice(COLOURS)[1]
BOTH = {"A": "red", "B": "green", "C": "Both A and B", "D": "None of the above"}
ALL = {"A": "red", "B": "green", "C": "blue", "D": "All of the above"}


@pytest.mark.parametrize(
    "answer",
    [
        "B, not C",
        "B. green (not A)",
        "B. green, not C. blue",
        "B. green. It is not A, C or D.",
        "B. green. Option C is wrong because it is not blue.",
        "B. green. A, C and D are wrong.",
        "B. green, A and C are wrong",
        "B: green. The others (A, C, D) are not shown.",
        "B. green, rather than (C) blue",
        "B. None of A, C or D",
        "B. green\nA is not shown",
        "B. green\nA: wrong, it is not red",
        "B\n\nOption C is not right",
        "(B) green\n\n(A) is wrong because the ring is not red.",
        "The correct answer is B. The ring is green, so options A, C and D are wrong.",
        "The answer is (B) green. (C) is wrong.",
        "The answer is (B) green; A is wrong.",
        "B. The letter shown is C",
    ],
)
def test_an_explanation_may_speak_of_other_options(answer) -> None:
    assert chosen_option(RINGS, answer) == "B"


@pytest.mark.parametrize(
    ("options", "answer", "letter"),
    [
        (BOTH, "C. A and B", "C"),
        (BOTH, "C. Both A and B. The video shows A and then B.", "C"),
        (BOTH, "D. None of the above, as neither A nor B is shown", "D"),
        (BOTH, "D. Neither A nor B", "D"),
        (BOTH, "C, B", None),
        (ALL, "D. All of the above (A, B and C)", "D"),
        (ALL, "D. All of the above: A, B, and C are shown.", "D"),
        (ALL, "D. All of the above. A, B and C are shown.", "D"),
    ],
)
def test_an_option_that_speaks_of_others_is_named_like_any_other(options, answer, letter) -> None:
    assert chosen_option(options, answer) == letter


@pytest.mark.parametrize("texts", [("True", "False"), ("Yes", "No"), ("Correct", "Incorrect")])
def test_an_option_that_denies_is_affirmed_by_a_denial(texts) -> None:
    options = dict(zip("AB", texts, strict=True))
    said = ("This is false because no dog is shown.", "It is incorrect.", "Incorrect", "It's wrong, no dog is shown.")
    for answer in said:
        assert chosen_option(options, f"B. {answer}") == "B", answer
    for answer in ("B is wrong", "(B) is wrong", "A. It is false", f"A. {texts[0]} or B. {texts[1]}"):
        assert chosen_option(options, answer) is None, answer
    assert chosen_option({"A": "It is not raining", "B": "It is raining"}, "A. Is not raining") == "A"


def test_small_letters_of_an_explanation_are_no_labels() -> None:
    options = RINGS | {"E": "none"}
    for answer in (
        "B. green (a.k.a. lime)",
        "B. green, a.k.a. lime",
        "B. green (c. 1900)",
        "B. green, c. 1900",
        "B. green: d. 1950",
        "B. green, e.g. a leaf",
        "B. green (e.g. a leaf)",
        "B. green and a ring",
    ):
        assert chosen_option(options, answer) == "B", answer


@pytest.mark.parametrize(
    "answer",
    [
        *('The answer is "B".', "The answer is 'B'.", "'B'.", '"B".', "### Answer: B", "# B", "## B", r"\(B\)", "<B>"),
        *("\u6b63\u786e\u7b54\u6848\u662fB", "\u9009B", "\u9009\u9879B", "Answer - B", "It is B.", "\n\nB"),
        *("Based on the video, the answer is B.", "The ring is green. So the answer is B."),
    ],
)
def test_what_is_set_around_a_letter_or_leads_to_it_is_not_read(answer) -> None:
    assert chosen_option(RINGS, answer) == "B"


@pytest.mark.parametrize(
    "answer",
    [
        *("A/B", "A (or B)", "A. or B.", "A. red or B. green", "A. red; B. green; C. blue", "A, maybe B", "b) or c)"),
        *("A, but B is also possible", "A. red. Actually, B.", "A. Hmm, no. C", "A. red\nNo, it is B."),
        *("not B", "Not (B)", "It is not B.", "The answer is not B", "neither", "Neither A nor B", "Either A or B"),
        *("(A) is wrong, it is B", "A. red. B. green.", "- A. red\n- B. green", "a. red\nb. green", "I doubt it is B"),
    ],
)
def test_an_answer_that_hedges_or_only_denies_names_none(answer) -> None:
    assert chosen_option(RINGS, answer) is None


def test_only_a_request_is_cut_from_the_last_option() -> None:
    story = "Next?\nA. Bake it.\nB. Chop the onion. Give it a stir."
    assert split_choice(story)[1] == {"A": "Bake it.", "B": "Chop the onion. Give it a stir."}
    for request in (
        "Answer with the letter.",
        "Please select the best option.",
        "Choose one.",
        "Answer A or B.",
        "Answer:",
        "Answer directly.",
        "Please answer the question.",
        "Respond with text.",
        "Select all that apply.",
        "Choose the best.",
    ):
        for text in (f"Which?\nA. red\nB. green. {request}", f"Which? A. red B. green. {request}"):
            stem, options = split_choice(text)
            assert options == {"A": "red", "B": "green."} and request in stem, text
    for last in ("Stop. Answer the phone.", "Chop the onion. Pick the best tomatoes.", "Read it; reply by mail"):
        assert split_choice(f"Next?\nA. Bake it.\nB. {last}")[1]["B"] == last


def test_options_may_be_signs_that_also_set_text() -> None:
    text = "Which sign?\nA. +\nB. *\nC. /\nD. _"
    assert split_choice(text)[1] == {"A": "+", "B": "*", "C": "/", "D": "_"}
    assert is_right(Question(text, "B", "sign", "choice"), "*")


@pytest.mark.parametrize("label", ["\u0130", "\u0131"])  # of Turkish, I in another case
def test_letters_beyond_a_to_z_are_no_labels(label) -> None:
    for answer, letter in {label: None, f"{label}.": None, f"({label})": None, f"B. green\n{label}) no": "B"}.items():
        assert chosen_option(RINGS, answer) == letter, answer
        assert chosen_option({"1": "red", "2": "green"}, answer) == (letter and "2"), answer
    assert split_choice(f"Which?\nA. red\nB. green\n{label}. no")[1] == {"A": "red", "B": "green"}


@pytest.mark.parametrize(
    ("piece", "letter"),
    [
        (",", "A"),
        (" ", "A"),
        ("* ", "A"),
        ("so, ", "A"),
        ("1,000", "A"),
        ("A, ", "A"),
        ("B. green. ", None),
    ],
)
def test_an_answer_without_end_is_judged_all_the_same(piece, letter) -> None:
    answer = "A. " + piece * (60_000 // len(piece))  # which would take minutes, were the time to grow with the square
    assert chosen_option(RINGS, answer) == letter
    assert split_choice(answer)[1].keys() <= {"A", "B"}


SENTENCES = {
    "A": "The man falls off his bike.",
    "B": "The woman hands him a red cup.",
    "C": "A dog runs across the street.",
    "D": "They both leave the room.",
}


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        # Options that are weighed before the verdict.
        (
            "A. He stays on it.\nB. She hands it over.\nC. No dog.\nD. They stay.\n\nThe answer is B, as she does.",
            "B",
        ),
        ("A. The man falls off his bike. He does not.\nB. The woman hands him a red cup. Yes.\nAnswer: B", "B"),
        ("A: he falls.\nB: she hands it.\nThe answer is unclear.", None),
        # Hedges and corrections behind the letter.
        ("A. The man falls off his bike. or B. The woman hands him a red cup.", None),
        ("A. However, B is also possible.", None),
        ("A is correct, and so is B.", None),
        ("The answer is A. Wait, no, the answer is B.", None),
        ("B. The woman hands him a red cup. But the answer is A because he falls.", None),
        # Reasons first, then a verdict that goes on.
        ("The video shows a kitchen. The answer is B because it is seen.", "B"),
        ("She picks it up.\n\nThe correct answer is B) The woman gives him the cup.", "B"),
        ("It is a cup. The answer is B, not A.", "B"),
        # What a verdict begins with.
        ("I think the answer is B.", "B"),
        ("I would choose B.", "B"),
        ("I'd go with B.", "B"),
        ("The answer should be B.", "B"),
        ("The most likely answer is B.", "B"),
        ("The answer to the question is B.", "B"),
        ("This is not clear, but the best answer is B.", "B"),
        ('{"answer": "B"}', "B"),
        ("因此, 正确答案是B", "B"),
        ("我选择B", "B"),
        ("I don't think the answer is A", None),
        ("I doubt that it is A", None),
        ("It would be A or C", None),
        # What stands behind the letter.
        ("The answer is B as shown in the video.", "B"),
        ("The correct answer is B according to the video.", "B"),
        ("Option B best describes the video.", "B"),
        ("(B", "B"),
        ("Best option: (B", "B"),
        # An option's text with an explanation, and marks of thoughts.
        ("The woman hands him a red cup. This is shown at the start.", "B"),
        ("◁think▷A or B◁/think▷B", "B"),
        ("<REASONING>It is red.</REASONING>\n<CONCLUSION>B</CONCLUSION>", "B"),
        # A letter and its words in one pair of brackets, and an article that is no letter.
        (r"\boxed{B. The woman hands him the cup}", "B"),
        ("(B: she hands it)", "B"),
        ("B. A red cup is what the woman hands him.", "B"),
        # Others that are denied together with the first, or apart from it.
        ("A, C and D are wrong, so B.", None),
        ("B. A, C and D are wrong.", "B"),
        ("B, but C is wrong.", "B"),
        ("B; A and C are wrong", "B"),
        ("(A. He falls) or (B. She hands it)", None),
        # Reasons by numbers, and a verdict that says the same again.
        ("1. A cup is seen.\n2. It is red.\n\nA: he falls.\nB: she hands it.\n\nThe answer is B.", "B"),
        ("B.\n\nA: he falls, no.\nB: she hands it, yes.\n\nThe answer is B.", "B"),
        # A condition is no verdict, nor is what is asked behind an answer.
        ("If we look at the end, the answer is B.", "B"),
        ("If he fell, the answer would be the man falls off his bike.", None),
        ("I doubt that the answer is the man falls off his bike.", None),
        ("B\nQuestion: what now?\nAnswer: The man falls off his bike.", "B"),
        ("If he fell, the answer would be A.", None),
        ("B. She hands it.\nQuestion: what now?\nA. He falls.\nB. She hands it.\nAnswer: A", None),
    ],
)
def test_verdicts_are_told_from_what_leads_to_them_and_what_follows(answer, letter) -> None:
    assert chosen_option(SENTENCES, answer) == letter


def test_options_may_begin_as_answers_do() -> None:
    options = {"A": "It is raining.", "B": "So what", "C": "I think so", "D": "Option 1"}
    for letter, text in options.items():
        for answer in (f"Answer: {text}", f"The answer is {text}", f"\\boxed{{{text}}}"):
            assert chosen_option(options, answer) == letter, answer
    assert chosen_option(options, "The answer is It is raining. The answer is So what") is None
    assert chosen_option({"A": "Vitamin C", "B": "C", "C": "C++"}, "C\u3002") == "C"
    assert chosen_option(RINGS, "B. A green ring") == "B"
    assert chosen_option(RINGS, "(B) or A green") is None


def test_options_in_quotation_marks_are_their_own_texts() -> None:
    options = {"A": '"Happy Birthday"', "B": '"Don\'t stop"', "C": '"The End"'}
    assert chosen_option(options, 'A. "Happy Birthday" or B. "Don\'t stop"') is None
    assert chosen_option(options, 'The text is shown. The answer is C. "The End"') == "C"
