"""Texts of answers, compared by what they mean, and the options of multiple choice."""

import re
import unicodedata

KEPT = "%‰&@"  # of punctuation, what carries meaning; what Unicode calls symbols (+ < > = $ ...) does too
DASHES = re.compile("[\u2010-\u2015\u2212]")  # hyphens, dashes, and the sign of minus
# NFKC alone would make 102 of 10², and 11/2 of 1½.
POWERS, FRACTIONS = re.compile("[⁰¹²³⁴-⁹⁺⁻]+"), re.compile("[¼-¾⅐-⅞]")
THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(,\d{3})+(?!,?\d)")
# One that ends a text or stands before a comma is a name: "Vitamin A", "A, B and C".
ARTICLES = re.compile(r"\b(?:an?|the)\s+(?=\S)")
# Punctuation within numbers (1.5, 10:30, 1/2), which a comma only separates; signs before them and behind words (-5,
# -$5, .5, A-); and a # that is attached (C#, #1), since a lone one makes a heading.
SIGNS = re.compile(
    r"(?<=\d)[^\w\s,](?=\d)|(?<![\w.-])-(?=[^\w\s-]?\d)|(?<![\w.])\.(?=\d)|(?<=\w)-(?![\w-])|(?<=\w)#|#(?=\w)"
)
# "A. red", "A) red", "A: red", "(A) red", "[A] red".
MARK = r"[(\[]?([A-Z])[.:)\]][^\S\n]+(?=\S)"
ON_LINES, ANYWHERE = re.compile(rf"^[^\S\n]*{MARK}", re.MULTILINE), re.compile(rf"(?<!\S){MARK}")
LINE = re.compile(".*")
NAMED = re.compile(r"[(\[]?([A-Z])(?:[.:)\]]+(.*))?", re.IGNORECASE | re.DOTALL)


def normalize(text: str) -> str:
    """
    Lower case, without articles, without the punctuation that carries no meaning, and in one form where Unicode has
    several (NFKC). Signs, symbols and marks that letters are combined with stay; 1,000 is 1000.
    """
    text = FRACTIONS.sub(r" \g<0>", POWERS.sub(r"^\g<0>", text))
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = DASHES.sub("-", text).replace("\N{FRACTION SLASH}", "/").strip()
    text = ARTICLES.sub("", THOUSANDS.sub(lambda number: number[0].replace(",", ""), text))
    signs = {place for found in SIGNS.finditer(text) for place in range(*found.span())}
    return " ".join("".join(_kept(letter, place in signs) for place, letter in enumerate(text)).split())


def _kept(letter: str, is_sign: bool) -> str:
    """What is left of one character; a symbol is a word of its own, however it is set."""
    kind = unicodedata.category(letter)
    if letter in KEPT or letter == "^" or kind in ("Sc", "Sm", "So"):
        return f" {letter} "
    if is_sign or kind[0] in "LMN":
        return letter
    return "" if kind == "Cf" else " "  # marks of direction and joints of letters are not seen


def is_same(one: str, other: str) -> bool:
    """Whether two texts are equal after [`normalize`], or as they are where that leaves nothing of one."""
    first, second = normalize(one), normalize(other)
    return first == second if first and second else one.strip() == other.strip()


def split_choice(question: str) -> tuple[str, dict[str, str]]:
    """
    The question without its options, and these by letter: two or more in a row from A on, at the end of the question,
    each on its own line ("A. red", "B. green", ...) or several on one. None where they cannot be told.
    """
    for marks in (ON_LINES, ANYWHERE):
        found = list(marks.finditer(question))
        starts = [place for place, mark in enumerate(found) if mark[1] == "A"]
        found = found[starts[-1] :] if starts else []
        letters = [mark[1] for mark in found]
        if len(found) < 2 or letters != [chr(ord("A") + place) for place in range(len(found))]:
            continue
        following = [*(mark.start() for mark in found[1:]), len(question)]
        texts = [LINE.match(question, mark.end(), end) for mark, end in zip(found, following, strict=True)]
        rest = "\n".join(question[text.end() : end] for text, end in zip(texts, following, strict=True))
        options = {letter: text[0].strip() for letter, text in zip(letters, texts, strict=True)}
        return f"{question[: found[0].start()]}\n{rest}", options
    return question, {}


def chosen_option(options: dict[str, str], answer: str) -> str | None:
    """
    The letter of the option that an answer names: by its very text, else by its letter ("B", "(b)", "B. green"), else
    by a text that is the same after [`normalize`]; `None` where it names none, or several.
    """
    answer = answer.strip()
    letters = [letter for letter, text in options.items() if text == answer]
    if len(letters) == 1:
        return letters[0]
    named = NAMED.fullmatch(answer)
    if named and (letter := named[1].upper()) in options:
        behind = named[2] or ""
        # "D.C." is no option D.
        if not behind or behind[0].isspace() or is_same(behind, options[letter]):
            return letter
    letters = [letter for letter, text in options.items() if is_same(text, answer)]
    return letters[0] if len(letters) == 1 else None


__all__ = ["chosen_option", "is_same", "normalize", "split_choice"]
