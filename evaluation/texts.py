"""Texts of answers, compared by what they mean, and the options of multiple choice."""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from string import ascii_uppercase

# Of punctuation and of what Unicode calls other symbols (® ★ 😀), what always has a meaning; what it calls symbols of
# mathematics and of currencies (+ < > = $ ...) has too, but for a line that parts (|).
KEPT = "%‰&@^°♭♮♀♂✓✔✗✘" + "".join(map(chr, range(0x1F1E6, 0x1F200)))  # letters of flags
ORNAMENTS = "®©"  # and what never has
TONES = "".join(map(chr, range(0x1F3FB, 0x1F400)))  # of skin
SET_AS = {"sign": " {} ", "word": "{}", "nothing": "", "symbol": " ", "gap": " "}  # a sign is a word of its own
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
LINE_START = r"(?:^|(?i:<br\s*/?>))[^\S\n]*(?:[-*•>]+[^\S\n]+)?[*_]*[(\[]?"
LINE_REST = r"(?:[*_]+[^\S\n]+|[^\S\n]*)"  # a * that no blank follows is an option
ON_LINES = re.compile(rf"{LINE_START}([A-Za-z])(?:[^\S\n]*[.:)\]、]|[^\S\n]+-(?=\s)|\t){LINE_REST}", re.MULTILINE)
NUMBERED = re.compile(rf"{LINE_START}([1-9]\d?)[.:)\]、]{LINE_REST}(?!\d)", re.MULTILINE)
# Within a line: "A. red", "(A) red", "(a)red", "A、红".
ANYWHERE = re.compile(
    r"(?<![^\s,?:;。])(?:[(\[]([A-Za-z])[)\]][^\S\n]*|[(\[]?([A-Z])(?:[.:)\]][^\S\n]+|、[^\S\n]*))(?=\S)"
)
LINE = re.compile(r"(?:(?!<br).)*", re.IGNORECASE)
# A request behind the last option, on its line: "Answer with the letter.", "Choose one.", "Answer (A) or (B) only."
REQUEST = re.compile(
    r"(?<=[.?!;])\s+(?:please\s+|only\s+)?"
    r"(?:(?:answer|respond|reply)(?: directly| briefly| the question| with text)?[.:]?\s*$"
    r"|(?:choose|select|pick|give|write)(?: the best| all that apply)[.:]?\s*$"
    r"|(?:answer|respond|reply|choose|select|pick|give|write)\b"
    r"[^.?!;]*\b(?:letters?|options?|choices?|answers?|numbers?|one|only|words?|sentences?|(?-i:[A-Z]))\b.*)",
    re.IGNORECASE,
)
# What is set around an answer, what leads to it ("So the correct answer is", "Actually,"), and what ends a sentence,
# but not a label ("B. green").
SET_AROUND = re.compile(
    r"[*`$\"“”「」]|(?<!\w)['\u2018]|['\u2019](?!\w)|^[#>✅]+\s|<(?:[/|a-z]|\w\w)[^<>]*>"
    r"|\\(?:(?:boxed|text|mathrm|mathbf)\b|[()\[\]])",
    re.MULTILINE,
)
LEADS = re.compile(
    r"\A\{?(?:(?!if\b(?! (?:i|we|you)\b)[^.!?\n]*\bwould\b)[^\W\d]{2}.*?[,:;] ?)??"
    r"(?:(?:(?:so|thus|therefore|hence|actually|likely|probably|but(?= the| i\b)"
    r"|i(?:['\u2019]d| would)? (?:think|believe|say|choose|select|go with)(?: that)?|it is|it['\u2019]s"
    r"|(?:it |the |my )?(?:(?:final|correct|right|best|most \w+) )*(?:answer|option|choice|(?:sh|w)ould be)"
    r"(?: to the question)?(?: is)?)\b ?[,:=-]? ?)+"
    r"|(?:因此|所以)?,? ?(?:我|应该?)?(?:(?:正确|最佳)的?)?(?:答案|选[项择]?)(?:应该)?[是为]? ?:? ?)",
    re.IGNORECASE,
)
SENTENCE_END = re.compile(r"\s*\n\s*|(?<=\w\w[.!?;]) (?!(?:and|or) )|(?<=。)")
# A label, and what tells that it is no word, name or number: "(B)", "B.", but not "D.C.", "B!", "B because".
LETTER = r"(?:[A-Za-z]|\d\d?)"
LETTERS = re.compile(rf"\b{LETTER}\b")
LABEL = re.compile(
    rf"[(\[{{<]+ ?{LETTER} ?(?:[)\]}}>]+|$)"
    rf"|(?:[(\[{{](?=[A-Z\d][^)\]}}]*[)\]}}]\W*$))?{LETTER}"
    r"(?:[.:)\]}、][.:)\]},;!?]*(?![A-Za-z](?![A-Za-z])|\d)|(?=[,;!?。]*$))"
    r"|(?:[A-Z]|\d\d?)(?: is (?:the )?(?:correct|right|best|most|answer)\b(?: (?:answer|option|choice)\b)?"
    r"|(?=,|; | - | ?\(| (?:because|since|as(?! well)|based on|according to|rather than|instead of|best)\b))"
)
# Behind it, what denies it ("is wrong", "isn't it", ": no."), or joins it with others ("or B", "/B", ", maybe B").
DENIED = re.compile(
    r"\W*(?:(?:is|are|was|were)(?: (?:\w+ly )?not|n['\u2019]t)\b|no(?= ?[^\w\s]|$)"
    r"|(?:(?:it|this|that|which)\W)?(?:(?:is|are|was|were|s) )?(?:\w+ly )?(?:incorrect|wrong|false)\b)",
    re.IGNORECASE,
)
JOINED = re.compile(
    r"(?:[ .,;?/&|+、)\]}]*(?:[(\[{]?(?i:and|or|but|else|also|maybe|perhaps|possibly|it|is|could|may|might|be|option"
    r"|so|however|then|wait|no|the|answer|otherwise)\b[ ,]*)*"
    rf"(?:[(\[{{]{LETTER}[)\]}}.:]|{LETTER}(?!\.\w)(?=[^\w\s'\u2019-]|\W*$| (?:and|or|is|are)\b)))+"
)
# "A, B and C", behind the A.
ROW = re.compile(rf", {LETTER}(?:,? (?:and )?{LETTER})*")
DENIES = re.compile(r"\b(?:not?|none|neither|never|false|incorrect|wrong)\b|n['\u2019]t\b", re.IGNORECASE)
UNSURE = re.compile(rf"\?|{DENIES.pattern}|\b(?:if|whether|doubt|impossible|another|other|some)\b", re.IGNORECASE)
THOUGHTS = re.compile(r"\A.*[<◁]/think(?:ing)?[>▷]|[<◁]think(?:ing)?[>▷].*", re.IGNORECASE | re.DOTALL)


@lru_cache(64)
def normalize(text: str) -> str:
    """
    Lower case, without articles, without the punctuation that carries no meaning, and in one form where Unicode has
    several (NFKC). Signs, symbols and marks that letters are combined with stay; 1,000 is 1000.
    """
    text = WRAPPED.sub(r"\1\2", text) if WRAPPED.fullmatch(text := text.strip()) else text
    text = TRADE_MARKS.sub("", FRACTIONS.sub(r" \g<0>", POWERS.sub(r"^\g<0>", text)))
    text = _in_one_form(text).replace("\N{FRACTION SLASH}", "/").strip()
    text = SPACED_SIGNS.sub(r"\1", ARROWS.sub(" ", text))
    text = ARTICLES.sub("", THOUSANDS.sub(lambda number: number[0].replace(",", ""), text))
    signs = {place for found in SIGNS.finditer(text) for place in range(*found.span())}
    kinds = [_kind(letter) for letter in text]
    kinds = ["word" if place in signs and kind != "sign" else kind for place, kind in enumerate(kinds)]
    return " ".join("".join(SET_AS[kind].format(letter) for letter, kind in zip(text, kinds, strict=True)).split())


def _in_one_form(text: str) -> str:
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return DASHES.sub("-", LOOSE.sub("", text))


def _kind(letter: str) -> str:
    """What a character is: a sign always counts, a symbol may be an ornament, or all that tells two answers apart."""
    kind = unicodedata.category(letter)
    if letter in KEPT or (kind in ("Sc", "Sm") and letter != "|"):
        return "sign"
    if letter in TONES or (kind == "So" and letter not in ORNAMENTS):
        return "symbol"
    if kind == "Cf" or letter in ORNAMENTS:  # marks of direction and joints of letters are not seen
        return "nothing"
    return "word" if kind[0] in "LMN" else "gap"


def _symbols(text: str) -> list[str]:
    return [letter for letter in ARROWS.sub(" ➡ ", _in_one_form(text)) if _kind(letter) == "symbol"]


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
        starts = [*(mark.start() for mark in found), len(question)]
        for start in range(len(found) - 2, -1, -1):
            row = list(_row(found[start : start + 100], known, marks is not ANYWHERE))
            if len(row) < 2:
                continue
            ends = starts[start + 1 : start + 1 + len(row)]
            texts = [LINE.match(question, mark.end(), end)[0] for mark, end in zip(row, ends, strict=True)]
            texts[-1] = REQUEST.sub("", texts[-1])
            behind = [question[mark.end() + len(text) : end] for mark, text, end in zip(row, texts, ends, strict=True)]
            texts = [text.strip(" \t\r*_") or text.strip() for text in texts]  # a lone * is a sign
            # "Answer (A) or (B) only." has no options.
            if marks is ANYWHERE and any(text in ("or", "and") or not re.search(r"\w", text) for text in texts):
                continue
            stem = "\n".join([question[: row[0].start()], *behind, question[ends[-1] :]])
            return stem, dict(zip(map(_label, row), texts, strict=True))
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
    The letter of the option that an answer names: by its very text, else by the letter that it leads with ("B", "(b)",
    "B. green", "The answer is B"), else by a text that is the same after [`normalize`]. `None` where it names none,
    denies its letter ("A is wrong"), joins it with another ("A or B"), or leads another sentence with another, alone
    or with its text (a list of options). What else it explains does not count. Of unknown options, any letter is one.
    """
    options = options or dict.fromkeys(ascii_uppercase, "")
    answer = THOUGHTS.sub("", answer).strip()
    exact = [letter for letter, text in options.items() if answer and text == answer]
    if len(exact) == 1:
        return exact[0]
    said = SET_AROUND.sub("", unicodedata.normalize("NFKC", answer)).strip()
    # What is weighed in a list of the options before a verdict is none; behind another answer, it asks something else.
    *weighed, verdict = re.split(r"(?i)\banswer(?: is\b|(?= ?:))", said := re.sub(r"[^\S\n]+", " ", said))
    before, listed = split_choice("\n".join(weighed))
    whole = said.strip("{} ")  # an option may begin as an answer does: "It is raining"
    alone = LEADS.sub("", f"answer is {verdict}")
    names = [LETTERS.search(mark[0])[0].upper() if mark else None for mark in map(LABEL.match, (before, alone))]
    said = alone if listed and (names[0] not in options or names[0] == names[1]) else LEADS.sub("", said)
    named = set(_named(options, said))
    # "A. Einstein" is the text of one option, not the letter of another.
    if not (named and LABEL.fullmatch(said.rstrip(",;!?。"))):
        forms = [(letter, form) for letter, text in options.items() if text for form in (text, f"{letter}. {text}")]
        first = [] if named else re.split("(?<=[.!?]) ", said)[:1]
        # Behind a verdict without a letter; where one names another letter, that counts.
        is_label = verdict.strip(" :{}().").upper() in options
        is_sure = len(weighed) == 1 and not (named or is_label or UNSURE.search(weighed[0]))
        only = [verdict.strip(" :{}")] if is_sure else []
        for words in (answer, whole, *only, said, *first):
            if same := {letter for letter, form in forms if is_same(form, words)}:
                return same.pop() if len(same) == 1 else None
    return named.pop() if len(named) == 1 else None


def _named(options: dict[str, str], said: str) -> Iterator[str | None]:
    """
    The letter that each sentence leads with, `None` where it is denied or joined with another. Of later sentences,
    only those count that say no more than the label, or affirm its option's own text.
    """
    letters = {letter: letter for letter in options}
    if "1" in options:  # the second of numbered options is B too
        letters |= zip(ascii_uppercase, options, strict=False)
    for place, sentence in enumerate(SENTENCE_END.split(said)):
        lead = LEADS.match(sentence)
        sentence = sentence[lead.end() :] if lead else sentence
        found = LABEL.match(sentence)
        label = LETTERS.search(found[0])[0] if found else ""
        if (letter := letters.get(label.upper())) is None:
            continue
        text, behind = options[letter], sentence[found.end() :]
        own = re.escape(SET_AROUND.sub("", text).strip(" .,;:!?")) or "(?!)"
        parts = re.split(rf"(?<!\w){own}(?!\w)", behind, maxsplit=1, flags=re.IGNORECASE)
        if len(parts) > 1:
            parts[0] = re.sub(r"\A(\W*)A ?\Z", r"\1", parts[0])  # the article of "B. A green ring" is no letter
        words = normalize(behind)
        if not words or (" " in words and f" {words} " in f" {normalize(text)} "):
            parts = ["", ""]  # "C. A and B" of "Both A and B"
        is_void = any(_is_denied(text, part, 0) for part in parts)
        is_led = lead and re.search(r"(?:\bis|\bbe|[:是为])\W*$", lead[0]) and not is_void
        if place > 0 and not is_led and (len(parts) == 1 or DENIES.search(" ".join(parts))):
            continue
        for joined in filter(None, map(JOINED.match, parts)):
            labels = [one for one in LETTERS.findall(joined[0]) if one.islower() == label.islower()]
            if others := {letters.get(one.upper()) for one in labels} - {letter, None}:
                # "B. A and C are wrong" denies the others alone, "B, A and C are wrong" B too.
                is_row = joined.string is parts[0] and found[0] == label and ROW.fullmatch(joined[0])
                is_void |= bool(is_row and re.match(r" (?:are|were)\b", behind[joined.end() :]))
                is_void |= not _is_denied(" ".join(map(options.get, others)), joined.string, joined.end())
        yield None if is_void else letter


def _is_denied(text: str, said: str, place: int) -> bool:
    """Whether what is said behind the label of an option denies it; "It is false" affirms the option "False"."""
    found = DENIED.match(said, place)
    return bool(found) and (found[0].startswith((" is ", " are ")) or not DENIES.search(text))
