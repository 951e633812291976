"""Texts of answers, compared by what they mean, and the options of multiple choice."""

import re
import unicodedata
from collections.abc import Iterator
from string import ascii_uppercase

# Of punctuation and of what Unicode calls other symbols (® ★ 😀), what always has a meaning; what it calls symbols of
# mathematics and of currencies (+ < > = $ ...) has too, but for a line that parts (|).
KEPT = "%‰&@°♭♮♀♂✓✔✗✘"
ORNAMENTS = "®©"  # and what never has
FLAGS = ("\N{REGIONAL INDICATOR SYMBOL LETTER A}", "\N{REGIONAL INDICATOR SYMBOL LETTER Z}")
DASHES = re.compile("[\u2010-\u2015\u2212]")  # hyphens, dashes, and the sign of minus
# NFKC alone would make 102 of 10², 11/2 of 1½, and letters of ™.
POWERS, FRACTIONS = re.compile("[⁰¹²³⁴-⁹⁺⁻]+"), re.compile("[¼-¾⅐-⅞]")
TRADE_MARKS = re.compile("[™℠]")
# Accents that stand alone, and what only says how a sign is drawn.
LOOSE = re.compile("(?<!\\S)[\u0300-\u036f]+|[\ufe00-\ufe0f\u20e3]")
WRAPPED = re.compile(r"(?:\$+([^$]+)\$+|<([^<>]+)>)[.,;!]?")  # as a formula or a placeholder, whole
ARROWS = re.compile(r"(?<=\w)\s*(?:[-=]+>|→)\s*(?=\w)")
SPACED_SIGNS = re.compile(r"(?<=\d)\s+([-:/])\s+(?=\d)")
THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(,\d{3})+(?!,?\d)")
# One that ends a text or stands before a comma is a name: "Vitamin A", "A, B and C".
ARTICLES = re.compile(r"\b(?:an?|the)\s+(?=\S)")
# Punctuation within numbers (1.5, 10:30, 1/2), which a comma only separates; signs before them and behind one or two
# letters (-5, -$5, .5, A-, AB-); and a # that is attached (C#, #1), since a lone one makes a heading.
SIGNS = re.compile(
    r"(?<=\d)[^\w\s,](?=\d)|(?<![\w.-])-(?=[^\w\s-]?\d)|(?<![\w.])\.(?=\d)|(?:(?<=\b\w)|(?<=\b\w\w))-(?![\w-])"
    r"|(?<=\w)#|#(?=\w)"
)
# How options are marked; what Chinese sets wide is made narrow first. On a line of its own, also "A.red", "A - red",
# "a) red", "**A.** red" and "- A. red".
NARROW = {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)} | str.maketrans("【】", "[]")
LINE_START = r"(?:^|<br\s*/?>)[^\S\n]*(?:[-*•>]+[^\S\n]+)?[*_]*[(\[]?"
LINE_REST = r"[*_]*[^\S\n]*"
ON_LINES = re.compile(
    rf"{LINE_START}([A-Z])(?:[^\S\n]*[.:)\]、]|[^\S\n]+-(?=\s)|\t){LINE_REST}", re.MULTILINE | re.IGNORECASE
)
NUMBERED = re.compile(rf"{LINE_START}([1-9]\d?)[.:)\]、]{LINE_REST}(?!\d)", re.MULTILINE | re.IGNORECASE)
# Within a line: "A. red", "(A) red", "(a)red", "A、红".
ANYWHERE = re.compile(
    r"(?<![^\s,?:;。])(?:[(\[]([A-Za-z])[)\]][^\S\n]*|[(\[]?([A-Z])(?:[.:)\]][^\S\n]+|、[^\S\n]*))(?=\S)"
)
LINE = re.compile(r"(?:(?!<br).)*", re.IGNORECASE)
# A request behind the last option, on its line.
REQUEST = re.compile(
    r"(?<=[.?!;])\s+(?:please\s+|only\s+)?(?:answer|choose|select|pick|respond|reply|give|write)\b.*", re.IGNORECASE
)
# An answer that names an option. What is set around it, and what leads to it:
SET_AROUND = re.compile(r"[*`$]+|<[/|a-z][^<>]*>|\\(?:boxed|text|mathrm|mathbf)\b")
QUOTES = "\"'\u2018\u2019“”「」 \n\t"
LEADS = re.compile(
    r"(?:(?:so|thus|therefore|hence)\b,?\s*)?(?:(?:the|my)\s+)?(?:(?:final|correct|right|best)\s+)*"
    r"(?:answer|option|choice)(?:\s+is)?\s*:?\s*(?:option\s+|choice\s+)?(?=\W|[A-Z0-9]\b|$)|答案[是为]?\s*[::]?\s*",
    re.IGNORECASE,
)
NAMED = re.compile(r"[(\[{]+\s*([A-Z]|\d\d?)\s*[)\]}]+(.*)|[(\[{]?([A-Z]|\d\d?)(?!\w)(.*)", re.IGNORECASE | re.DOTALL)
MARK, STOP = re.compile(r"[.:)\]}][.:)\]},;!?]*"), re.compile("[,;!?。、]+(?!.*[A-Za-z0-9])", re.DOTALL)
ABBREVIATES = re.compile(r"[A-Z](?![A-Z])|\d", re.IGNORECASE)  # D.C., A.M., 2.5
ANOTHER = re.compile(r"\W*(?:(?:and|or)\b)?\W*([A-Z]|\d\d?)(?=\W*$|\s+(?:and|or)\b|[^\w\s'\u2019-])", re.IGNORECASE)
THOUGHTS = re.compile(r"\A.*</think(?:ing)?>|<think(?:ing)?>.*", re.IGNORECASE | re.DOTALL)
# Behind a capital letter alone, what tells that it is no word: "B because", "C, since", "B is correct", a line break.
REASONED = re.compile(
    r"\s*(?:because|since)\b|\s+is\s+(?:the\s+)?(?:correct|right|best|answer)\b|[^\S\n]*\n|[,;]\s|\s+-\s|[。、]",
    re.IGNORECASE,
)
# Behind an option's mark, what denies it: "B) is incorrect", "(A) isn't it", "A: it is wrong".
DENIED = re.compile(
    r"\W*(?:(?:is|was)\s+(?:\w+ly\s+)?not\b|(?:isn|wasn)['\u2019]t\b"
    r"|(?:(?:it|this|that|which)\W+)?(?:(?:is|was|s)\s+)?(?:\w+ly\s+)?(?:incorrect|wrong|false)\b)",
    re.IGNORECASE,
)
# Another option within what stands behind: "(B)", "not B", "it is b", "red and B", "Answer: B", a line "B".
BRACKETED = re.compile(r"(?<!\w)[(\[{]\s*([A-Z]|\d\d?)\s*[)\]}]|(?<=\s)(\d\d?)\)(?=\s)", re.IGNORECASE)
AT_END = r"[AI](?=\s*(?:$|[.,;:!?]))"  # else they may be words
LED_TO = re.compile(
    rf"(?:\b(?:not|but|is|[Oo]ption|[Cc]hoice|[Aa]nswer)\b[\s:\"'\u201c\u2018]*([b-hj-zB-HJ-Z]|{AT_END})"
    rf"|(?:^[^\S\n]*|\b(?:and|or|nor)\s+|[,/&+]\s*)([B-HJ-Z]|{AT_END}))(?![\w'\u2019-]|\.\w)",
    re.MULTILINE,
)


def normalize(text: str) -> str:
    """
    Lower case, without articles, without the punctuation that carries no meaning, and in one form where Unicode has
    several (NFKC). Signs, symbols and marks that letters are combined with stay; 1,000 is 1000.
    """
    text = WRAPPED.sub(r"\1\2", text) if WRAPPED.fullmatch(text := text.strip()) else text
    text = TRADE_MARKS.sub("", FRACTIONS.sub(r" \g<0>", POWERS.sub(r"^\g<0>", text)))
    text = DASHES.sub("-", _in_one_form(text)).replace("\N{FRACTION SLASH}", "/").strip()
    text = SPACED_SIGNS.sub(r"\1", ARROWS.sub(" ", text))
    text = ARTICLES.sub("", THOUSANDS.sub(lambda number: number[0].replace(",", ""), text))
    signs = {place for found in SIGNS.finditer(text) for place in range(*found.span())}
    return " ".join("".join(_kept(letter, place in signs) for place, letter in enumerate(text)).split())


def _in_one_form(text: str) -> str:
    return LOOSE.sub("", unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()))


def _is_kept(letter: str) -> bool:
    is_of_sums = unicodedata.category(letter) in ("Sc", "Sm") and letter != "|"
    return is_of_sums or letter in KEPT or letter == "^" or FLAGS[0] <= letter <= FLAGS[1]


def _kept(letter: str, is_sign: bool) -> str:
    """What is left of one character; a symbol is a word of its own, however it is set."""
    if _is_kept(letter):
        return f" {letter} "
    kind = unicodedata.category(letter)
    if is_sign or kind[0] in "LMN":
        return letter
    return "" if kind == "Cf" or letter in ORNAMENTS else " "  # marks of direction and joints of letters are not seen


def _symbols(text: str) -> list[str]:
    """The symbols that [`normalize`] leaves out: they may be ornaments, or all that tells two answers apart."""
    text = ARROWS.sub(" ➡ ", DASHES.sub("-", _in_one_form(text)))
    return [letter for letter in text if _is_symbol(letter)]


def _is_symbol(letter: str) -> bool:
    is_tone = "\N{EMOJI MODIFIER FITZPATRICK TYPE-1-2}" <= letter <= "\N{EMOJI MODIFIER FITZPATRICK TYPE-6}"
    return is_tone or (unicodedata.category(letter) == "So" and letter not in ORNAMENTS and not _is_kept(letter))


def is_same(one: str, other: str) -> bool:
    """
    Whether two texts are equal after [`normalize`], or as they are where that leaves nothing of one. Symbols that it
    leaves out count where both have some.
    """
    first, second = normalize(one), normalize(other)
    if not (first and second):
        return one.strip() == other.strip()
    symbols = _symbols(one), _symbols(other)
    return first == second and (not all(symbols) or symbols[0] == symbols[1])


def split_choice(question: str) -> tuple[str, dict[str, str]]:
    """
    The question without its options, and these by letter: the last two or more in a row from A on (or, by number, from
    1 on), each on its own line ("A. red", "(b) green", ...) or several on one. None where they cannot be told.
    """
    marked = DASHES.sub("-", question.translate(NARROW))
    inline = {_label(mark) for mark in ANYWHERE.finditer(marked)}
    for marks in (ON_LINES, ANYWHERE, NUMBERED):
        found = list(marks.finditer(marked))
        known = inline | set(map(_label, found))
        for start in range(len(found) - 2, -1, -1):
            row = list(_row(found[start:], known, marks is not ANYWHERE))
            if len(row) < 2:
                continue
            ends = [*(mark.start() for mark in found[start + 1 :]), len(question)][: len(row)]
            texts = [LINE.match(question, mark.end(), end)[0] for mark, end in zip(row, ends, strict=True)]
            texts[-1] = REQUEST.sub("", texts[-1])
            # "Answer (A) or (B) only." has no options.
            if marks is ANYWHERE and any(
                not re.search(r"\w", text) or text.strip() in ("or", "and") for text in texts
            ):
                continue
            behind = [question[mark.end() + len(text) : end] for mark, text, end in zip(row, texts, ends, strict=True)]
            stem = "\n".join([question[: row[0].start()], *behind, question[ends[-1] :]])
            return stem, {_label(mark): text.strip(" \t\r*_") for mark, text in zip(row, texts, strict=True)}
    return question, {}


def _label(mark: re.Match) -> str:
    return next(filter(None, mark.groups())).upper()


def _row(found: list[re.Match], known: set[str], may_skip: bool) -> Iterator[re.Match]:
    """The marks in a row from A or 1 on; of lines, one may be skipped that the question has nowhere."""
    labels = iter(ascii_uppercase if _label(found[0]).isalpha() else map(str, range(1, 100)))
    for mark in found:
        expected = next(labels, None)
        if may_skip and mark is not found[0] and expected not in known:
            expected = next(labels, None)
        if _label(mark) != expected:
            return
        yield mark


def chosen_option(options: dict[str, str], answer: str) -> str | None:
    """
    The letter of the option that an answer names: by its very text, else by its letter ("B", "(b)", "B. green", "The
    answer is B"), else by a text that is the same after [`normalize`]; `None` where it names none, or several. Where
    no options are known, any letter is one.
    """
    options = options or dict.fromkeys(ascii_uppercase, "")
    answer = THOUGHTS.sub("", answer).strip()
    if not answer:
        return None
    letters = [letter for letter, text in options.items() if text == answer]
    if len(letters) == 1:
        return letters[0]
    said = SET_AROUND.sub("", unicodedata.normalize("NFKC", answer)).strip(QUOTES)
    said = LEADS.sub("", said, count=1) if LEADS.match(said) else said
    if (letter := _named(options, said.strip(QUOTES), answer)) is not None:
        return letter
    for words in (answer, said):
        letters = [letter for letter, text in options.items() if text and is_same(text, words)]
        if letters:
            return letters[0] if len(letters) == 1 else None
    return None


def _named(options: dict[str, str], said: str, answer: str) -> str | None:
    """The option whose letter an answer begins with, as a letter and not as a word or an initial."""
    named = NAMED.fullmatch(said)
    if named is None:
        return None
    letter, behind = _of_options(options, named[1] or named[3]), named[2] if named[1] else named[4]
    if letter not in options:
        return None
    mark = MARK.match(behind) or STOP.match(behind)
    text = behind[mark.end() :] if mark else behind
    if not text.strip() or is_same(text, options[letter]):
        return letter
    # The option's own text may hold what looks like a denial or a mark: "D. Vitamin C. It is ..."
    own, rest = options[letter].casefold(), text.strip(QUOTES)
    rest = rest[len(own) :] if own and rest.casefold().startswith(own) else rest
    another = ANOTHER.match(rest)
    if another and another[1].upper() in options and another[1].upper() != letter:
        return None
    # "A. Einstein" is the text of one option, not the letter of another.
    if any(is_same(option, words) for option in options.values() if option for words in (said, answer)):
        return None
    if DENIED.match(rest) or _others(options, letter, rest):
        return None
    if named[1] or (mark and text[0].isspace()) or (not named[3].islower() and REASONED.match(behind)):
        return letter
    return letter if mark and not ABBREVIATES.match(text) else None  # "D.C." is no option D


def _of_options(options: dict[str, str], label: str) -> str:
    """A label as the options have it: the second of numbered options is B too."""
    label = label.upper()
    return str(ascii_uppercase.index(label) + 1) if label not in options and label.isalpha() else label


def _others(options: dict[str, str], letter: str, text: str) -> bool:
    """Whether the text names another option than that of the letter."""
    marks = (ANYWHERE, ON_LINES, BRACKETED, LED_TO, *([NUMBERED] if letter.isdigit() else []))
    labels = {_of_options(options, _label(mark)) for pattern in marks for mark in pattern.finditer(text)}
    return bool(labels & options.keys() - {letter})


__all__ = ["chosen_option", "is_same", "normalize", "split_choice"]
