"""Pairs of words that the data never show together, such as a red ring, and how not to learn that they never come."""

import difflib
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from .chat_collator import IGNORED
from .parsing import TrainingError

CLOSE = 0.75  # how alike a word with a typo or in the plural is to the word, by `difflib`
LONGEST_QUESTION = 200  # tokens before an answer among which its question is


class UnseenPairs:
    """
    Who chooses among all shapes for a red thing learns that it is never a ring: that was wrong each time. So where
    one word of a pair is said of a thing, the other is no choice.

    Args:
        pairs (`Sequence[Sequence[str]]`):
            Of two words each, such as `("red", "ring")`, in the order in which they are said.
        tokenizer (`PreTrainedTokenizerBase`):
            The model's.

    Raises:
        TrainingError: If the tokenizer has no tokens of a word's own.
    """

    def __init__(self, pairs: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.partners: dict[str, set[str]] = {}
        for first, second in pairs:
            self.partners.setdefault(first, set()).add(second)
            self.partners.setdefault(second, set()).add(first)
        self.firsts = {first for first, _ in pairs}
        # A word has other tokens where an answer begins with it than after a space.
        self.tokens = [{word: self._tokens(before, word) for word in self.partners} for before in ("\n", "\n ")]

    def left_out(self, ids: Sequence[int], labels: Sequence[int]) -> list[tuple[int, int]]:
        """
        Args:
            ids, labels (`Sequence[int]` of `(length,)`):
                A sample's tokens, and what of them is learned; -100 elsewhere.

        Returns:
            `list[tuple[int, int]]`: Positions in the labels, each with a token that is no choice there.
        """
        found, end = [], 0
        while (start := next((at for at in range(end, len(labels)) if labels[at] != IGNORED), None)) is not None:
            asked_from = max(end, start - LONGEST_QUESTION)
            end = next((at for at in range(start, len(labels)) if labels[at] == IGNORED), len(labels))
            said = list(self._said(labels[start:end]))
            for number, (at, word) in enumerate(said):
                beside = self._beside(said, number)
                if beside is None:
                    asked = self.tokenizer.decode(ids[asked_from:start], skip_special_tokens=True)
                    others = {word} | self._words_of(asked)
                else:
                    others = {beside}
                never = set().union(*(self.partners[other] for other in others)) - {word}
                found += [(start + at + place, token) for place, token in self._first_tokens(word, never, at > 0)]
        return found

    def _tokens(self, before: str, word: str) -> list[int]:
        """Of the word in that place."""
        encode = self.tokenizer(before + word, add_special_tokens=False, return_offsets_mapping=True)
        starts_at = len(before.rstrip(" "))
        places = zip(encode["input_ids"], encode["offset_mapping"], strict=True)
        tokens = [token for token, (begin, _) in places if begin >= starts_at]
        if not tokens:
            raise TrainingError(f"The tokenizer has no tokens for the word {word!r} of `unseen_pairs` alone.")
        return tokens

    def _said(self, answer: Sequence[int]) -> Iterable[tuple[int, str]]:
        """The words of pairs in an answer's tokens, and where each begins."""
        at = 0
        while at < len(answer):
            word = next((w for w, own in self.tokens[at > 0].items() if answer[at : at + len(own)] == own), None)
            if word is not None:
                yield at, word
            at += 1 if word is None else len(self.tokens[at > 0][word])

    def _beside(self, said: list[tuple[int, str]], number: int) -> str | None:
        """The other word of what is said of one thing, as in `a red star`."""
        at, word = said[number]
        if word in self.firsts:
            after = said[number + 1 : number + 2]
            return next((w for place, w in after if place == at + len(self.tokens[at > 0][word])), None)
        before = said[number - 1 : number] if number else []
        ends = [place + len(self.tokens[place > 0][w]) for place, w in before if w in self.firsts]
        return before[0][1] if ends == [at] else None

    def _words_of(self, question: str) -> set[str]:
        """The words of pairs in a question, also with a typo, in capitals or in the plural."""
        known = tuple(self.partners)
        return {close for word in re.findall(r"\w+", question.lower()) for close in _close(word, known)}

    def _first_tokens(self, word: str, never: set[str], inside: bool) -> Iterable[tuple[int, int]]:
        """By which token each word that is no choice parts from `word` and from all that are, and where in `word`."""
        tokens = self.tokens[inside]
        for place, token in enumerate(tokens[word]):
            begun = tokens[word][:place]
            going_on = {w: own[place] for w, own in tokens.items() if own[:place] == begun and len(own) > place}
            choices = {token} | {going_on[w] for w in going_on.keys() - never}
            yield from ((place, other) for other in sorted({going_on[w] for w in going_on.keys() & never} - choices))


@lru_cache(1 << 16)
def _close(word: str, known: tuple[str, ...]) -> list[str]:
    return difflib.get_close_matches(word, known, 1, CLOSE)


__all__ = ["UnseenPairs"]
