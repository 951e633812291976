"""Judges answers, and says what can be had without looking: by chance, and by the best constant answer."""

from collections import Counter, defaultdict
from collections.abc import Iterable

from .records import Question
from .texts import chosen_option, is_same, normalize, split_choice

ENOUGH = 30  # training questions of one wording, from which its best answer is learned


def is_right(question: Question, answer: str) -> bool:
    """
    Whether `answer` is one that is expected: the same text by [`is_same`], or for a choice the same option by
    [`chosen_option`].
    """
    expected = (question.answer, *question.others)
    if question.form == "free":
        return any(is_same(answer, one) for one in expected)
    _, options = split_choice(question.text)
    chosen = chosen_option(options, answer)
    return chosen is not None and any(chosen == chosen_option(options, one) for one in expected)


def answer_text(question: Question) -> str:
    """What is expected, normalized; of a choice, the option's text. Of several right answers, the first."""
    text = question.answer
    if question.form == "choice":
        _, options = split_choice(question.text)
        text = options.get(chosen_option(options, text) or "", text)
    return normalize(text)


def _stem(question: Question) -> str:
    """The wording without the options."""
    return normalize(split_choice(question.text)[0] if question.form == "choice" else question.text)


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
            _, options = split_choice(question.text)
            return max(options, key=lambda letter: seen[normalize(options[letter])], default="")
        best = seen.most_common(1)[0][0] if seen else ""
        return " ".join(_stem(question).split()[slice(*best)]) if isinstance(best, tuple) else best

    def chance(self, question: Question) -> float:
        """1 / number of options; of a free question, 1 / number of answers that its wording has in training."""
        number = len(split_choice(question.text)[1]) if question.form == "choice" else len(self._seen(question))
        return 1 / number if number else 0.0


__all__ = ["BlindBaseline", "answer_text", "is_right"]
