"""Judges answers, and says what can be had without looking: by chance, and by the best constant answer."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

from .records import Question

ARTICLES = {"a", "an", "the"}
ENOUGH = 30  # training questions of one wording, from which its best answer is learned


def normalize(text: str) -> str:
    """Lower case, without articles and punctuation; a point between digits stays."""
    text = re.sub(r"(?<!\d)\.|\.(?!\d)|[^\w\s.]", " ", text.lower())
    return " ".join(word for word in text.split() if word not in ARTICLES)


def options(question: str) -> dict[str, str]:
    """The options of a choice by letter: the lines "A. red", "B. green", ... of the question."""
    return dict(re.findall(r"^\s*([A-Z])[.)]\s+(.+?)\s*$", question, re.MULTILINE))


def is_right(question: Question, answer: str) -> bool:
    """
    Whether `answer` is the expected one: equal after [`normalize`], or for a choice the same option, given by its
    letter ("B", "(b)", "B. red") or its text.
    """
    if question.form == "free":
        return normalize(answer) == normalize(question.answer)
    return _chosen(question, answer) == _chosen(question, question.answer)


def _chosen(question: Question, answer: str) -> str:
    """The letter that an answer names, or the whole answer where it names none."""
    known = options(question.text)
    letter = re.match(r"\s*\(?([A-Za-z])(?:\s*$|[.:)])", answer)
    if letter and letter[1].upper() in known:
        return letter[1].upper()
    texts = {normalize(text): option for option, text in known.items()}
    return texts.get(normalize(answer), f" {answer}")


def answer_text(question: Question) -> str:
    """What is expected, normalized; of a choice, the option's text."""
    return normalize(options(question.text).get(question.answer.strip(), question.answer))


def _stem(question: Question) -> str:
    """The wording without the options."""
    lines = [line for line in question.text.splitlines() if not re.match(r"\s*[A-Z][.)]\s", line)]
    return normalize(" ".join(lines))


def _placed(question: Question) -> str | tuple[int, int]:
    """The expected answer, or the words of the question (first, last + 1) that it repeats."""
    stem, answer = _stem(question).split(), answer_text(question).split()
    if question.form == "free" and answer:
        for start in range(len(stem) - len(answer) + 1):
            if stem[start : start + len(answer)] == answer:
                return start, start + len(answer)
    return " ".join(answer)


class BlindBaseline:
    """
    The best answers without any model, learned from training questions: of each wording the most frequent answer, and
    of a choice the option whose text is the answer most often. Where a wording was seen fewer than 30 times, all that
    differ from it only in numbers and words of answers (colors, shapes, ...) count, and else all of its kind. An
    answer that the question itself names ("..., the red star or the blue ring?") counts by its place in the question.
    """

    def __init__(self, questions: Iterable[Question]) -> None:
        self.answers: dict[tuple, Counter] = defaultdict(Counter)
        questions = list(questions)
        self._words = {
            word for question in questions if question.kind != "caption" for word in answer_text(question).split()
        }
        for question in questions:
            for key in self._keys(question):
                self.answers[key][_placed(question)] += 1

    def _keys(self, question: Question) -> list[tuple]:
        """From the narrowest to the widest."""
        stem = _stem(question)
        masked = " ".join("_" if word in self._words or word[0].isdigit() else word for word in stem.split())
        return [
            ("wording", question.form, stem),
            ("pattern", question.form, masked),
            ("kind", question.form, question.kind),
        ]

    def _seen(self, question: Question) -> Counter:
        keys = self._keys(question)
        counters = [self.answers[key] for key in keys if key in self.answers]
        return next(
            (counter for counter in counters if counter.total() >= ENOUGH), counters[-1] if counters else Counter()
        )

    def answer(self, question: Question) -> str:
        """The best answer without looking, as a model would give it; empty where training had no such question."""
        seen = self._seen(question)
        if question.form == "choice":
            known = options(question.text)
            return max(known, key=lambda letter: seen[normalize(known[letter])], default="")
        best = seen.most_common(1)[0][0] if seen else ""
        return " ".join(_stem(question).split()[slice(*best)]) if isinstance(best, tuple) else best

    def chance(self, question: Question) -> float:
        """1 / number of options; of a free question, 1 / number of answers that its wording has in training."""
        number = len(options(question.text)) if question.form == "choice" else len(self._seen(question))
        return 1 / number if number else 0.0


__all__ = ["BlindBaseline", "answer_text", "is_right", "normalize", "options"]
