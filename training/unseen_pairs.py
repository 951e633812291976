"""Pairs of words that the data never show together, such as a red ring, and how not to learn that they never come."""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from .chat_collator import IGNORED
from .parsing import TrainingError

LONGEST_QUESTION = 200  # tokens before an answer among which its question is


class Said(NamedTuple):
    """A word of a pair in an answer: from token `start` to `end`, and how all such words are written there."""

    start: int
    end: int
    word: str
    tokens: dict[str, list[int]]


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
            self.partners.setdefault(first.lower(), set()).add(second.lower())
            self.partners.setdefault(second.lower(), set()).add(first.lower())
        self.firsts = {first.lower() for first, _ in pairs}
        # A word has other tokens behind a space, and with a capital.
        words = sorted(self.partners, key=len, reverse=True)  # "starfish" before "star"
        self.tokens = [
            {word: self._tokens(before, written(word)) for word in words}
            for before in ("\n ", "\n")
            for written in (str, str.capitalize)
        ]

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
            for number, one in enumerate(said):
                others = self._beside(said, number)
                if not others:
                    asked = self.tokenizer.decode(ids[asked_from:start], skip_special_tokens=True)
                    others = {one.word} | self._words_of(asked)
                never = set().union(*(self.partners[other] for other in others)) - {one.word}
                found += [(start + one.start + place, token) for place, token in self._first_tokens(one, never)]
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

    def _said(self, answer: Sequence[int]) -> Iterator[Said]:
        """The words of pairs in an answer's tokens."""
        spaced, at = len(self.tokens) // 2, 0
        while at < len(answer):
            # What has no space before it begins no word behind a letter.
            begins = at == 0 or not self.tokenizer.decode(answer[at - 1 : at])[-1:].isalpha()
            each = (
                Said(at, at + len(own), word, tokens)
                for tokens in self.tokens[: None if begins else spaced]
                for word, own in tokens.items()
                if answer[at : at + len(own)] == own
            )
            one = next(each, None)
            if one is not None:
                yield one
            at = at + 1 if one is None else one.end

    def _beside(self, said: list[Said], number: int) -> set[str]:
        """The other word of what is said of one thing, as in `a red star`."""
        one = said[number]
        if one.word in self.firsts and any(other.start == one.end for other in said[number + 1 : number + 2]):
            return {said[number + 1].word}
        return {other.word for other in said[max(number - 1, 0) : number] if other.end == one.start} & self.firsts

    def _words_of(self, question: str) -> set[str]:
        """The words of pairs in a question, also with a typo, in capitals or in the plural."""
        return {
            known for word in re.findall(r"\w+", question.lower()) for known in self.partners if is_meant(word, known)
        }

    def _first_tokens(self, one: Said, never: set[str]) -> Iterator[tuple[int, int]]:
        """By which token each word that is no choice parts from what is said and from what is one, and where in it."""
        own = one.tokens[one.word]
        for place, token in enumerate(own):
            going_on = {w: each[place] for w, each in one.tokens.items() if each[:place] == own[:place] != each}
            choices = {going_on[w] for w in going_on.keys() - never if (w in self.firsts) == (one.word in self.firsts)}
            no_choices = {going_on[w] for w in going_on.keys() & never} - choices - {token}
            yield from ((place, other) for other in sorted(no_choices))


@lru_cache(1 << 16)
def is_meant(word: str, known: str) -> bool:
    """Whether it is the known word, its plural, or it with a letter missing or doubled or two letters swapped."""
    if word in (known, f"{known}s", f"{known}es"):
        return True
    if word[:1] != known[:1] or abs(len(word) - len(known)) > 1:
        return False
    places = range(1, len(known))
    missing = any(word == known[:at] + known[at + 1 :] for at in places)
    doubled = any(word == known[:at] + known[at - 1] + known[at:] for at in range(1, len(known) + 1))
    return (
        missing
        or doubled
        or any(word == known[: at - 1] + known[at] + known[at - 1] + known[at + 1 :] for at in places)
    )


__all__ = ["UnseenPairs"]
