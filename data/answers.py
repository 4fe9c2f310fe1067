r"""What an answer looks like, and how to find it in what a model wrote.

Enters: a model's output and the question that it answers. Leaves: the canonical answer, or None where there is none.

Canonical forms, by the question's kind:

- number: a plain decimal without sign of zero, separators or trailing zeros ("42", "-3.5", "0.75"), a reduced fraction
  where no finite decimal exists ("2/3"). Currency, units and the percent sign are left out: "45%" is "45", and "0.45"
  is another number. What may be written for a number: `data.numbers`.
- numbers: several in their order, "8; 128", or a ratio or time of day, "9:7"; the units are left out.
- choice: the letter, "A" for the first choice.
- boolean: "yes" or "no"; true and false mean the same.
- text: the words with single spaces between them and without marks at the end; compared without regard to case and to
  an article in front.
"""

import math
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise, zip_longest
from string import ascii_uppercase

from data.expressions import calculated, leading_calculation
from data.numbers import (
    LONGEST_NUMBER,
    SHORT_SCALES,
    decimal_places,
    number_text,
    number_value,
    numbers_in_digits,
    numbers_in_words,
    plain_numbers,
    words_as_digits,
)
from data.outputs import in_ascii, plain_label, plain_text
from data.records import AnswerKind, Question, Span
from data.statements import Statement, sentences, statements

# Differences up to this share are the rounding of floating-point labels and results; whole numbers have none.
NUMBER_TOLERANCE = Fraction(1, 1_000_000)
CHOICES_HEADING = "Answer Choices:"
_SCALE_ASKED_FOR = re.compile(
    r"\b(?:how\s+many|in)\s+(dozen|hundred|thousand|million|billion|trillion)s?\b", re.IGNORECASE
)
_YES_NO = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}
# After a yes or no a sentence ends, goes on behind a mark, gives a reason, or says the same at length ("no it cannot").
_GOES_ON = (
    r"(?=\W*$|\s*[,.;:!?()\[\]\"'”’*/–—-]"
    r"|\s+(?:and|or|because|since|as|it|he|she|they|we|you|this|that|these|those|the|an?)\b)"
)
# The word, where it does not belong to the one after it.
_NO = rf"no{_GOES_ON}"

_PART_OF_RATIO = r"\d+(?:,\d{3})*(?:\.\d+)?"
_RATIO = re.compile(rf"(?<![\d.,]){_PART_OF_RATIO}(?:\s*(?:[:∶]|\bto\b)\s*{_PART_OF_RATIO})+")
_LETTER_IN_BRACKETS = re.compile(r"\(\s*([A-Za-z])\s*\)")
_SEVERAL_LETTERS = re.compile(
    r"\(\s*[A-Za-z]\s*\)(?:[^()]{0,60}\b(?:[Oo]r|[Aa]nd)\s+|\s*[,/&;]\s*)\(\s*[A-Za-z]\s*\)"
    r"|^\W*[A-Z]\)?\s*(?:[,/&;]|\bor\b|\band\b)\s*(?:(?:or|and)\s+)?\(?[A-Z]\)?(?=\W*$|\s*[,/&;]|\s+(?:or|and)\b)"
)
# A letter of which something is said other than that it is right: "(A) is loud", "(E) would be too cold".
_DISCUSSED = re.compile(
    r"\(\s*[A-Za-z]\s*\)(?:\s+[^().;,]{1,60}?)?\s+(?:is|are|was|were|has|have|does|do|can|could|would|will|might|may)"
    r"(?:n['’]t)?\b(?!\s+(?:\w+\s+){0,3}?(?:correct|right|best|answer|choice|option|one)\b)"
)
_LEADING_WORD = r"(?:[Ss]o|[Tt]hus|[Tt]herefore|[Hh]ence|[Tt]hen)\b"
_LETTER_ALONE = re.compile(
    rf"\W*(?:{_LEADING_WORD}\W*)?(?:(?:option|choice)\s+)?([A-Z])\s*"
    r"(?:[).:,;]|$|\s[-–—]|\s+(?:because|since|is|which)\b)"
)
_LETTER_NAMED = re.compile(
    r"\b(?:[Oo]ption|[Cc]hoice|[Cc]hoose|[Pp]ick|[Ss]elect|[Aa]nswer|ANSWER|OPTION|CHOICE)\s+\(?([A-Z])\b(?!['’])\)?"
    r"(?=\W*(?:$|[.,;:]|\s(?:is|as|because|since)\b))"
    rf"|(?:^|\b{_LEADING_WORD})\W*([A-Z])\)?\s+is\s+(?:the\s+)?(?:correct|right|best)\b"
    r"|\b(?:[Ii]t['’]s|(?:[Ii]t|[Tt]his|[Tt]hat)\s+(?:is|must\s+be|would\s+be)|[Gg]o(?:ing)?\s+with|say)\s+\(?([A-Z])\)?"
    r"(?=\W*(?:$|[.,;]))"
)
# What choices may differ by beside words and numbers: "x - 2" and "x + 2", "7!" and "7"; not the hyphen of "x-ray".
_SPOKEN = re.compile(
    r"#-?[0-9]+(?:[./][0-9]+)?|[\w'’]+|(?<=[0-9)])!|(?<=\b[a-z])!|(?<=[0-9]):(?=#)|(?<![^\W\d_])-|-(?![^\W\d_])"
    r"|[+*^/√=<>≤≥×÷()]"
)
_BEFORE_SOLE_NUMBER = re.compile(r"[\s$€£₹(]*(?:[Rr]s\.?)?\s*")
_AFTER_SOLE_NUMBER = re.compile(r"[\s%°.)]*(?:[^\W\d_]{2,}[^\W\d_ ./'’]*|[a-zA-Z])?[^\W\d+*^/√=<>≤≥×÷!-]*")
_YES_AND_NO = re.compile(
    rf"\b(?:(?:yes|true)\W+(?:(?:and|or|nor)\b)?\W*(?:{_NO}|false)"
    r"|(?:no|false)\W+(?:(?:and|or|nor)\b)?\W*(?:yes|true))\b",
    re.IGNORECASE,
)
# What an unreadable statement holds that means to be an answer, by kind; whatever is said of choices means to be one.
_LEFT_OPEN = {"choice": re.compile(""), "number": re.compile("[0-9]"), "boolean": _YES_AND_NO}
# A reason behind an answer: what it holds is not the answer.
_REASON = re.compile(r"(?<=[\w)\]%.'\"”’])[\s,;:(–—-]+(because|since|where|given\s+that|due\s+to)\b.*", re.I | re.S)
_CALCULATED_ASIDE = re.compile(r"\([^()]*=[^()]*\)")
# Behind a number: it is only the first part of a sum or product, of a range, or of a ratio ("8:00" is 8).
_UNFINISHED = re.compile(
    r"[^\S\n]*(?:[+*×·÷^/–−-]|[xX](?=[\s\d]))[^\S\n]*[$€£({]?\.?\d|\s*[:∶](?!00(?!\d))\s*\d|\s*[*×·^]\s*[a-zA-Z]\b"
)
_PART_OF_LARGER = re.compile(
    r"(?:(?:√|\\sqrt)[\s({]*|[\w)\]]\s*[+*×·÷^/]\s*[($€£{]*|[a-z)\]]\s+[-−–]\s+[($€£{]*)$", re.IGNORECASE
)
# Behind a calculation: it is one of several, or part of a larger one that holds what is not known.
_GOES_ON_CALCULATING = re.compile(
    r"[^\W\d_]|\s*(?:[*×·÷^/+:]|(?:and|or|[,;&])\s*[($€£]*-?[0-9])|\s+[-−–]\s+[a-z]\b|\s*[xy]\b"
)
_ROUGHLY = re.compile(
    r"[\s:≈~]*(?:(?:about|exactly|approximately|around|roughly|simply|just|only|nearly|almost)\s[\s:≈~]*)*"
)
_GROUPED_BY_SPACES = re.compile(r"\A[\s$€£(]*[0-9]{1,3}(?: [0-9]{3})+(?![0-9]|[.,/][0-9])")
_LONE_SIGN = re.compile(r"\A\s*[-−–]\s+(?=[0-9])")
# What may stand before "is the answer": a number with its unit, and nothing to calculate.
_NUMBER_FIRST = re.compile(
    r"\W*(?:(?:so|thus|therefore|hence|then|and|that|means|which|only|exactly|about)\W+)*"
    r"[$€£(]*-?[0-9.,/]*[0-9][)%]*\W*(?:[^\W\d]+\W*){0,3}",
    re.IGNORECASE,
)
_POINTS_BACK = re.compile(r"\W*(?:this|that|it|which|what|here|there|these|those|the\s+following)\b", re.IGNORECASE)
_CONCLUDES = re.compile(
    r"\b(?:so|thus|therefore|hence|leaves|leaving|left|remains?|remaining|in\s+total|altogether|in\s+all|finally)\b",
    re.IGNORECASE,
)
_CALCULATION = re.compile(r"[\s\d.,$€£+*×·÷^/xX–−()-]*")
_FORMULA = re.compile(r"[\\^]")
_QUOTED = re.compile(r"\"(.+)\"|'(.+)'|“(.+)”|‘(.+)’|`(.+)`|\((.+)\)|\[(.+)\]", re.DOTALL)

# What stands before a word that it denies, with up to two words between.
_DENIED = re.compile(r"\b(?:not|never|\w+n['’]t)\s+((?:\w+\s+){0,2})\Z", re.IGNORECASE)


def parse_answer(output: str, question: Question) -> str | None:
    r"""Find the canonical answer in a model's output.

    The last outright statement that can be read counts ("The answer is …", "#### …", "\boxed{…}"). Without one: for
    numbers the last result after an equals sign, else the last number; for several numbers those of the last sentence;
    for choices the one that the last sentence names; for yes and no the last sentence that begins or ends with one of
    them; for text the last line. Who hedges ("5 or 6", "(A) or (B)") has not answered.
    """
    text = _in_the_unit_asked_for(in_ascii(plain_text(output)), question)
    stated = [each for each in statements(text, question) if not each.part or _is_last(each, text, question)]
    stated = [each for each in stated if not each.weak] or stated
    read = [(each, answer) for each in stated if (answer := _read(each, question)) is not None or not each.behind]
    answer = next((answer for _, answer in reversed(read) if answer is not None), None)
    if answer is not None:
        return answer
    return None if read and _leaves_open(read[-1][0], question) else _unstated(text, question)


def _is_last(statement: Statement, text: str, question: Question) -> bool:
    """Whether nothing follows a statement that could be the answer, so that it is no part of one."""
    rest = text[statement.end :]
    return not re.search("[0-9]" if question.answer_kind in ("number", "numbers") else r"\w", rest)


def same_answer(answer: str, gold: str, kind: AnswerKind, *, rounded: bool = False) -> bool:
    """Whether two canonical answers mean the same; unless both are whole, numbers may differ by a millionth part.

    Where the gold one is `rounded`, so is the answer, to as many decimals as the gold one shows.
    """
    if kind in ("number", "numbers"):
        return _same_numbers(answer, gold, rounded=rounded)
    if kind == "text":
        return _without_article(answer) == _without_article(gold)
    return answer.casefold() == gold.casefold()


def canonical_answer(raw: object, kind: AnswerKind, choices: Sequence[str] = ()) -> str | None:
    """The canonical form of an answer as a data file gives it, or None where it has not the form of its kind.

    A list, an object and what JSON calls NaN and Infinity are no answers of any kind.
    """
    if not isinstance(raw, str | int | float) or (isinstance(raw, float) and not math.isfinite(raw)):
        return None
    text = plain_label(str(raw)) if isinstance(raw, str) else str(raw)
    match kind:
        case "number":
            value = _number_in_file(text if isinstance(raw, str) else raw)
            written = None if value is None else number_text(value)
            return written if written is None or len(written) <= LONGEST_NUMBER else None
        case "numbers":
            return _written_numbers(text)
        case "boolean":
            return _YES_NO.get(text.casefold())
        case "choice":
            bare = text.strip("().: ").upper()
            return bare if bare in list(letters_of(choices)) else next(_letters_saying(text, choices), None)
        case _:
            return _plain_words(" ".join(text.split())) or None


def kind_of(raw: str) -> AnswerKind:
    """The kind of an answer as it is written: a number, yes or no, several numbers, else words."""
    kinds: tuple[AnswerKind, ...] = ("number", "boolean", "numbers")
    return next((kind for kind in kinds if canonical_answer(raw, kind) is not None), "text")


def _plain_words(text: str) -> str:
    """Words without marks at their end, and without the quotes or brackets around them."""
    while (plain := _unquoted(text.rstrip(".!? "))) != text:
        text = plain
    return text


def _unquoted(text: str) -> str:
    quoted = _QUOTED.fullmatch(text)
    inner = str(quoted[quoted.lastindex or 0]) if quoted else text
    return text if quoted and set(inner) & {text[0], text[-1]} else inner.strip()


def letters_of(choices: Sequence[str]) -> str:
    """The letters of the choices in order."""
    return ascii_uppercase[: len(choices)]


def choice_text(question: Question, letter: str) -> str:
    """A choice as it is listed: "(B) populated areas"."""
    return f"({letter}) {question.choices[ascii_uppercase.index(letter)]}"


def with_choices(stem: str, choices: Sequence[str]) -> str:
    """A question followed by the list of its choices."""
    lines = [f"({letter}) {choice}" for letter, choice in zip(letters_of(choices), choices, strict=True)]
    return "\n".join([stem, CHOICES_HEADING, *lines])


def _in_the_unit_asked_for(text: str, question: Question) -> str:
    """To "how many millions" the answers "26 million" and "$26M" are 26; to other questions they are 26,000,000."""
    asked = _SCALE_ASKED_FOR.search(question.text) if question.answer_kind in ("number", "numbers") else None
    if asked is None:
        return text
    word = asked[1].casefold()
    return re.sub(rf"\s+{word}s?\b|(?<=[0-9]){SHORT_SCALES.get(word, word)}\b", "", text, flags=re.IGNORECASE)


def _number_in_file(raw: str | int | float) -> Fraction | None:
    """The number that a data file holds, written or as a number; truth values are none."""
    if not isinstance(raw, str):
        return None if isinstance(raw, bool) else Fraction(str(raw))
    sign, bare = ("-", raw.strip()[1:]) if raw.strip()[:1] in ("-", "−") else ("", raw.strip())
    value = number_value(plain_numbers(sign + bare.lstrip("$€£ ").removesuffix("%").rstrip()))
    return calculated(raw) if value is None and _FORMULA.search(raw) else value


def _written_numbers(text: str) -> str | None:
    """Numbers between semicolons, and ratios and times of day, each with its unit in brackets if need be."""
    pieces = [re.sub(r"\([^()]*\)", "", piece).strip() for piece in text.split(";")]
    found = [_ratio(piece) if _RATIO.fullmatch(piece) else canonical_answer(piece, "number") for piece in pieces]
    return None if None in found else "; ".join(piece for piece in found if piece)


def _ratio(text: str) -> str:
    """The parts as they are written, "9:7"."""
    return re.sub(r"\s*(?:[:∶]|\bto\b)\s*", ":", text).replace(",", "")


def _same_numbers(answer: str, gold: str, *, rounded: bool) -> bool:
    pairs = list(zip_longest(re.split(r"[;:]\s*", answer), re.split(r"[;:]\s*", gold), fillvalue=""))
    return answer == gold or all(_same_number(a, b, rounded=rounded) for a, b in pairs)


def _same_number(answer: str, gold: str, *, rounded: bool) -> bool:
    first, second = number_value(answer), number_value(gold)
    if first is None or second is None:
        return False
    if first.denominator == second.denominator == 1:
        return first == second
    tolerance = NUMBER_TOLERANCE * max(abs(second), Fraction(1))
    if rounded and decimal_places(gold):
        tolerance = max(tolerance, Fraction(1, 2 * 10 ** decimal_places(gold)))
    return abs(first - second) <= tolerance


def _without_article(text: str) -> str:
    return re.sub(r"^(?:the|an?)\s+(?=\S)", "", text.casefold())


def _read(statement: Statement, question: Question) -> str | None:
    """The answer in the words that state it."""
    claimed = _claimed(statement.text, question)
    match question.answer_kind:
        case "number" if statement.behind:
            return _read_number(claimed) if _NUMBER_FIRST.fullmatch(claimed) else None
        case "number":
            return _read_number(_LONE_SIGN.sub("-", claimed) if statement.boxed else claimed)
        case "numbers":
            return _read_numbers(claimed)
        case "choice":
            return canonical_choice(statement.line, question) or _read_choice(claimed, question)
        case "boolean":
            return _read_yes_no(claimed)
        case _:
            return (
                None if statement.behind and _POINTS_BACK.match(claimed) else canonical_answer(statement.text, "text")
            )


def _claimed(stated: str, question: Question) -> str:
    """A statement without the reason that it gives, unless a choice has such words of its own."""
    reason = _REASON.search(stated)
    own = reason and any(reason[1].casefold() in choice.casefold() for choice in question.choices)
    return stated[: reason.start()] if reason and not own else stated


def _leaves_open(statement: Statement, question: Question) -> bool:
    """Whether an unreadable statement is meant so: no choice or several named, "5 or 6", "yes or no"."""
    pattern = _LEFT_OPEN.get(question.answer_kind)
    return pattern is not None and pattern.search(statement.text) is not None


def _unstated(text: str, question: Question) -> str | None:
    """The answer in an output that does not say outright what it is."""
    last_sentence = next(reversed(sentences(text, question.answer_kind)), "")
    match question.answer_kind:
        case "number":
            return _last_number(plain_numbers(text)) or _only_spelled(last_sentence)
        case "numbers":
            return _read_numbers(last_sentence)
        case "choice":
            return (
                canonical_choice(text, question)
                or _read_choice(_claimed(last_sentence, question), question, outright=False)
                or _sentence_of_its_own(text, question)
            )
        case "boolean":
            return None if _YES_AND_NO.search(last_sentence) else _edge_yes_no(text)
        case _:
            return canonical_answer(text.strip().rpartition("\n")[2], "text")


def _read_number(stated: str) -> str | None:
    """The first number of a statement, its last result, or the value of a calculation: "(84 / 2)" is 42.

    "3:2", "10-12" and "4 * x" are no number.
    """
    text = words_as_digits(plain_numbers(_GROUPED_BY_SPACES.sub(_without_spaces, _affirmed(stated))))
    bare = _CALCULATED_ASIDE.sub("", text)
    for side in reversed((bare if _finished(bare) else text).split("=")):
        found = numbers_in_digits(side)
        if found and _hedged(side, [span for span, _ in found]):
            return None
        side = _ROUGHLY.sub("", side, count=1)
        if calculation := leading_calculation(side):
            value, end = calculation
            return None if _GOES_ON_CALCULATING.match(side, end) else number_text(value)
        if _finished(side):
            return number_text(found[0][1])
    return None


def _finished(text: str) -> bool:
    """Whether a text holds a number, and the first one is no part of something larger."""
    found = numbers_in_digits(text)
    if not found:
        return False
    (start, end), _ = found[0]
    return not _UNFINISHED.match(text, end) and not _PART_OF_LARGER.search(text[:start])


def _affirmed(stated: str) -> str:
    """A statement without what it denies: of "not 5 but 6" and "not 5, it is 6" the 6."""
    if not re.match(r"\W*not\b", stated, re.IGNORECASE):
        return stated
    return "".join(re.split(r"\bbut\b|[,;–—]\s", stated, maxsplit=1)[1:])


def _without_spaces(found: re.Match[str]) -> str:
    return found.group().replace(" ", "")


def _hedged(text: str, spans: Sequence[Span]) -> bool:
    """Whether the first number is only one of two that are offered: "5 or 6", "between 5 and 6"."""
    if len(spans) < 2:
        return False
    return bool(
        re.fullmatch(r"\s+or\s+[$€£]?", text[spans[0][1] : spans[1][0]])
        or re.search(r"\bbetween\s+[$€£]?$", text[: spans[0][0]])
    )


def _last_number(text: str) -> str | None:
    """The last result of an equation, else the last number; none where a calculation without result ends it."""
    sides = text.split("=")
    each = [_result(left, right) for left, right in pairwise(sides)]
    if each and each[-1] is None and _CALCULATION.fullmatch(sides[-1]) and re.search(r"\d", sides[-1]):
        return None
    if results := list(filter(None, each)):
        return _concluded(sides[-1], results[-1]) or results[-1]
    return next((number_text(value) for _, value in reversed(numbers_in_digits(text))), None)


def _concluded(rest: str, result: str) -> str | None:
    """The number to which a later sentence goes on from the last result: "… = 7. He eats 2, so he has 5 left."."""
    later = [sentence for sentence in sentences(rest, "number")[1:] if re.search("[0-9]", sentence)]
    if not later or not (conclusion := _CONCLUDES.search(later[-1])):
        return None
    after = later[-1][conclusion.end() :]
    numbers = numbers_in_digits(after) or numbers_in_digits(later[-1])
    values = {number_text(value) for _, value in numbers}
    return values.pop() if len(values) == 1 and result not in values else None


def _result(left: str, right: str) -> str | None:
    """The number on the right, or, where a calculation stands there, the one on the left: of "7 = 3 + 4" the 7."""
    first = re.match(r"[\s$€£~≈]*[+−-]?[\d.,/]*\d", right)  # with units and currency before it
    if first is None or not _UNFINISHED.match(right, first.end()):
        found = numbers_in_digits(first.group()) if first else []
    else:
        found = numbers_in_digits(next(reversed(sentences(left, "number")), ""))
        found = found if len(found) == 1 else []
    return number_text(found[0][1]) if found else None


def _only_spelled(sentence: str) -> str | None:
    """The number that a sentence spells out, where it is one."""
    spelled = list(numbers_in_words(sentence))
    return number_text(spelled[0]) if len(spelled) == 1 else None


def _read_numbers(stated: str) -> str | None:
    """A ratio or time of day, else all numbers of a statement in their order, without calculations in brackets."""
    text = words_as_digits(plain_numbers(_CALCULATED_ASIDE.sub("", stated)))
    ratio = _RATIO.search(text)
    if ratio:
        return _ratio(ratio.group())
    return "; ".join(number_text(value) for _, value in numbers_in_digits(text)) or None


def _read_choice(stated: str, question: Question, *, outright: bool = True) -> str | None:
    """A letter in brackets, a letter alone, the text of one choice, the one choice that is named, or its number.

    What is denied does not count ("not (A) but (C)"). A sentence that does not state an answer outright may only name
    one letter.
    """
    letters = letters_of(question.choices)
    stated = _denied_choices(question.choices).sub(" ", stated)
    if _SEVERAL_LETTERS.search(stated):
        return None
    if not outright:
        stated = _DISCUSSED.sub(" ", stated)
    bracketed = [letter.upper() for letter in _LETTER_IN_BRACKETS.findall(stated) if letter.upper() in letters]
    if not outright and len(set(bracketed)) > 1:
        return None
    alone = _LETTER_ALONE.match(stated) or _LETTER_NAMED.search(stated)
    named = [*bracketed, *((letter for letter in alone.groups() if letter and letter in letters) if alone else ())]
    if named:
        return str(named[0])
    result = stated.rpartition("=")[2]
    return canonical_choice(stated, question) or _named_choice(stated, question) or _named_choice(result, question)


@lru_cache(maxsize=4096)
def _denied_choices(choices: tuple[str, ...]) -> re.Pattern[str]:
    """What says of a choice, by its letter, its text or both, that it is not the answer."""
    texts = "|".join(re.escape(choice) for choice in sorted(choices, key=len, reverse=True) if choice)
    text = rf"(?i:{texts})(?!\w)" if texts else "(?!)"
    return re.compile(
        r"\b(?i:not|neither|nor|unlike|rather\s+than|instead\s+of)\s+(?i:(?:option|choice|the|an?)\s+)*?"
        rf"(?:(?:\(\s*[A-Za-z]\s*\)|[A-Z](?![\w'’]))(?:[).:]*\s*{text})?|{text})"
    )


def _sentence_of_its_own(text: str, question: Question) -> str | None:
    """The one choice that a sentence or line consists of: "(C) the desert. It is dry there."."""
    found = {canonical_choice(sentence, question) for sentence in sentences(text, "choice")} - {None}
    return found.pop() if len(found) == 1 else None


def canonical_choice(text: str, question: Question) -> str | None:
    """The letter of a choice that is all that a text says: "B", "(B)", "(B) populated areas", "populated areas"."""
    head = re.match(r"\W*([A-Za-z])\b\W*", text)
    letter = head.group(1).upper() if head else ""
    if head and letter in list(letters_of(question.choices)):
        rest = text[head.end() :]
        # The mark before a choice may be its own: of "(A) -30" and "(A) √2".
        marked = text[head.end(1) :].lstrip(").:, ")
        same = (_same_words(question.choices[ascii_uppercase.index(letter)], said) for said in (rest, marked))
        if not rest or any(same):
            return letter
    return _letter_of([choice for choice in question.choices if _same_words(choice, text)], question)


def _named_choice(stated: str, question: Question) -> str | None:
    """The one choice whose text is stated, among other words if need be; "this or that" is none."""
    named = _mentioned(stated, question.choices)
    if not named:
        return _by_value(stated, question)
    others = f" {_spoken(stated)} "
    for choice in named:
        others = others.replace(f" {_spoken(choice)} ", "  ")
    return None if " or " in others else _letter_of(named, question)


def _by_value(stated: str, question: Question) -> str | None:
    """The letter of the one choice that is the stated number: of "24 minutes" for "24"."""
    stated_number = _read_number(stated)
    values = [_sole_number(choice) for choice in question.choices]
    lettered = zip(letters_of(question.choices), values, strict=True)
    letters = [letter for letter, value in lettered if value == stated_number]
    return letters[0] if stated_number is not None and len(letters) == 1 else None


def _sole_number(choice: str) -> str | None:
    """The number of a choice that is a number with a unit, "24 minutes" and "$65", and no formula."""
    text = plain_numbers(plain_label(choice))
    found = numbers_in_digits(text)
    if len(found) != 1:
        return None
    (start, end), value = found[0]
    alone = _BEFORE_SOLE_NUMBER.fullmatch(text[:start]) and _AFTER_SOLE_NUMBER.fullmatch(text[end:])
    return number_text(value) if alone else None


def _letter_of(named: Sequence[str], question: Question) -> str | None:
    """The letter of the named choices if they are one.

    A few published questions list one text twice; it then means the gold one, since nothing tells them apart.
    """
    if len({_spoken(choice) for choice in named}) != 1:
        return None
    equal = list(_letters_saying(named[0], question.choices))
    return question.answer if question.answer in equal else equal[0]


def _mentioned(stated: str, choices: Sequence[str]) -> list[str]:
    """The choices that occur in a statement and are not part of a longer one that does."""
    padded = f" {_spoken(stated)} "
    found = [choice for choice in choices if _spoken(choice) and f" {_spoken(choice)} " in padded]
    return [
        choice
        for choice in found
        if not any(choice != other and f" {_spoken(choice)} " in f" {_spoken(other)} " for other in found)
    ]


@lru_cache(maxsize=65536)
def _spoken(text: str) -> str:
    """Words, exact numbers and signs of operation of a text, without case, currency, units' marks and punctuation."""
    text = re.sub(r"(?<=\d)\s*[:∶]\s*(?=\d)", ":", re.sub(r"[−–—]", "-", plain_label(text).casefold()))
    text = plain_numbers(text.replace("#", " "))
    place, pieces = 0, []
    for (start, end), value in numbers_in_digits(text):
        pieces += [text[place:start], f"#{number_text(value)}"]
        place = end
    return " ".join(_SPOKEN.findall("".join([*pieces, text[place:]]))).strip("() ")


def _letters_saying(stated: str, choices: Sequence[str]) -> Iterator[str]:
    """The letters of the choices that a text says word for word."""
    return (letter for letter, choice in zip(letters_of(choices), choices, strict=True) if _same_words(choice, stated))


def _same_words(choice: str, stated: str) -> bool:
    return _spoken(choice) == _spoken(stated) and bool(_spoken(choice))


def _read_yes_no(stated: str) -> str | None:
    found = re.search(rf"\b(yes|{_NO}|true|false)\b", stated, re.IGNORECASE)
    return None if not found or _YES_AND_NO.search(stated) else _unless_denied(found)


def _unless_denied(found: re.Match[str]) -> str | None:
    """Yes or no as it is meant: of "not true" no; what just "not quite true" denies is not for us to say."""
    answer = _YES_NO[found[1].casefold()]
    denied = _DENIED.search(found.string[: found.start()])
    if denied is None:
        return answer
    return None if denied[1] else "no" if answer == "yes" else "yes"


def _edge_yes_no(text: str) -> str | None:
    """Yes or no, true or false, where it opens a sentence by itself ("No, it …") or closes the text ("so yes.")."""
    closing = re.search(r"\b(yes|no|true|false)\b[^\w]*\Z", text, re.IGNORECASE)
    if closing:
        return _unless_denied(closing)
    opening = re.findall(
        rf"(?:^|(?<=[.!?\n]))[^\w\n.!?]*(?:{_LEADING_WORD}[\s,]*)?(yes|no|true|false)\b{_GOES_ON}",
        text,
        re.IGNORECASE | re.MULTILINE,
    )
    if opening:
        return _YES_NO[opening[-1].casefold()]
    return "yes" if re.match(r"\W*yes\b", text, re.IGNORECASE) else None
