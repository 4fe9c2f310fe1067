"""Which number, or which several, a sentence says: its first, its last result, or what a calculation in it comes to.

Enters: the words that state an answer, or an output that states none outright. Leaves: canonical numbers. Who hedges
("5 or 6", "10 to 12") says none, and neither does a ratio, a formula with unknowns or what is denied.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from data.answers.expressions import calculated, leading_calculation
from data.answers.numbers import (
    SHORT_SCALES,
    number_text,
    numbers_in_digits,
    numbers_in_words,
    plain_numbers,
    words_as_digits,
)
from data.answers.statements import sentences
from data.patterns import regex
from data.records import AnswerKind, Span

_SCALE_ASKED_FOR = regex(
    r"\b(?:how\s+many(?:\s+(?:more|additional|total))?|in)\s+(dozen|hundred|thousand|million|billion|trillion)s?\b",
    re.IGNORECASE,
)
_SHARE_ASKED_FOR = regex(r"\b(?:probability|chances?|odds|fraction|proportion|share|ratio)\b", re.IGNORECASE)
_OUT_OF = regex(r"(?<![\w.,])([0-9]+)\s+(?:out\s+of|in)\s+([0-9]+)(?![\w]|[.,][0-9])")

_PART_OF_RATIO = r"\d+(?:,\d{3})*(?:\.\d+)?"
RATIO = regex(rf"(?<![\d.,]){_PART_OF_RATIO}(?:\s*(?:[:∶]|\bto\b)\s*{_PART_OF_RATIO})+")
_RATIO_ALONE = regex(rf"\s*{_PART_OF_RATIO}\s*[:∶](?!00(?!\d))\s*{_PART_OF_RATIO}\s*\.?\s*")

_CALCULATED_ASIDE = regex(r"\([^()]*=[^()]*\)")
# Behind a number: it is only the first part of a sum or product, of a range, of a ratio ("8:00" is 8), or of a formula.
_UNFINISHED = regex(
    r"[^\S\n]*(?:\*\*|[+*×·÷^/–−~-]|[xX](?=[\s\d]))[^\S\n]*[$€£({√]?\.?\d|\s*[:∶](?!00(?!\d))\s*\d"
    r"|\s*[*×·^]\s*[a-zA-Z]\b|\s*[√π]|[a-zA-Z]\s*[-+*·/^=](?!\w{2})"
)
_PART_OF_LARGER = regex(
    r"(?:√[\s({]*|\\sqrt[\s({]*|[\w)\]]\s*[+*×·÷^/]\s*[($€£{]*|[a-z)\]]\s+[-−–]\s+[($€£{]*)$", re.IGNORECASE
)
# Behind a calculation: it is one of several, or part of a larger one that holds what is not known.
_GOES_ON_CALCULATING = regex(
    r"[^\W\d_]|\s*(?:[*×·÷^/+:]|(?:and|or|[,;&])\s*[($€£]*-?[0-9])|\s+[-−–]\s+[a-z]\b|\s*[xy]\b"
)
_UNKNOWN = regex(r"(?<![\w.])[0-9]*[a-z]\s*[-+*·/^]\s*[0-9]|[0-9]\s*[-+*·/^]\s*[0-9]*[a-z](?!\w)", re.IGNORECASE)
_CALCULATION = regex(r"[\s\d.,$€£+*×·÷^/xX–−()-]*")
_BROKEN_OFF = regex(r"[-+*/×·÷=(]\s*\Z")

_ROUGHLY = regex(
    r"[\s:≈~]*(?:(?:about|exactly|approximately|around|roughly|simply|just|only|nearly|almost)\s[\s:≈~]*)*"
)
_OPERATORS = {"plus": "+", "minus": "-", "times": "*", "multiplied by": "*", "divided by": "/", "over": "/"}
_SPOKEN_OPERATOR = regex(
    r"(?<=[0-9])\s+(plus|minus|times|multiplied\s+by|divided\s+by|over)\s+(?=[0-9])", re.IGNORECASE
)
_PERCENT_OF = regex(r"(?<![\w.,])([0-9]+(?:\.[0-9]+)?)\s*%\s+of\s+\$?([0-9]+(?:\.[0-9]+)?)(?![\w%]|[.,][0-9])")
_GROUPED_BY_SPACES = regex(r"\A[\s$€£(]*[0-9]{1,3}(?: [0-9]{3})+(?![0-9]|[.,/][0-9])")
_LONE_SIGN = regex(r"\A\s*[-−–]\s+(?=[0-9])")
# Words that lead from several numbers to the one that is meant.
_RESULTING = regex(
    r"[,;(]\s*(?:(?:which|that)\s+(?:is|equals|makes|comes\s+to)|that['’]s|so|i\.e\.|namely|or)\b,?", re.I
)
# What a sentence with a number begins with before it comes to its subject: "In 3 hours he walks 12 miles".
_LEADING_PHRASE = regex(
    r"(?:in|after|within|during|over|for|with|by|from|on|at|out\s+of)\s[^\d.,\n]{0,30}[0-9][^.,\n]{0,30}?,?\s+"
    r"(?=(?:he|she|it|they|we|you|I|there|the|(?-i:[A-Z])[a-z]+)\s[^\n]*[0-9])",
    re.IGNORECASE,
)
# What may stand before "is the answer": a number with its unit, and nothing to calculate.
NUMBER_FIRST = regex(
    r"\W*(?:(?:only|exactly|about|option)\W+)*[$€£(]*-?[0-9.,/]*[0-9][)%]*\W*(?:[^\W\d]+\W*){0,3}", re.IGNORECASE
)
_CONCLUDES = regex(
    r"\b(?:so|thus|therefore|hence|leaves|leaving|left\s+with|in\s+total|(?:a\s+)?total\s+of|altogether|in\s+all|finally|"
    r"which\s+means|that\s+(?:is|makes)|(?<!to )makes?)\b",
    re.IGNORECASE,
)
_GIVEN_REASON = regex(r"[\s,]+(?:since|because)\b[^.\n]*")
_NAMED_RESULT = regex(
    r"\b(?:total|sum|result|difference|product|quotient|remainder|average|cost|price|amount)"
    r"(?:\s+(?:[a-z]+\s+){0,4}?(?:is|are|was|equals|comes\s+to)\s+|:\s*)[$€£]?(?P<number>-?[0-9][0-9,./]*)"
    r"(?!\s*[-+*×÷/]\s*[$€£]?[0-9])",
    re.IGNORECASE,
)
_LEFT_OVER = regex(
    r"(?P<number>(?<![\w.,/])-?[0-9][0-9,./]*)\s+(?:[a-z]+\s+){0,2}(?:left|remain|remaining)\b", re.IGNORECASE
)
_DENIED_NUMBER = regex(r"\b(?:not|never|cannot|\w+n['’]t)\s+(?:be\s+|equal\s+|have\s+)?[$€£]?\Z", re.IGNORECASE)
_OFFERED = regex(r"[0-9](?:\s+or\s+|\s*或者?\s*)[$€£]?[0-9][^0-9]*\Z")

# "and" between two numbers in words, not within one: "three and four", but "two and a half" and "a hundred and five".
_AND_ANOTHER = regex(
    r"(?<!hundred)(?<!thousand)(?<!million)(?<!billion)\s+and\s+(?!(?:a|one)\s+(?:half|quarter|third)\b|[0-9]+/)",
    re.IGNORECASE,
)
_RESULTING_IN_SEVERAL = regex(r"[,;]\s*(?:that\s+is|i\.e\.|namely)\b,?(?=.*[0-9])", re.IGNORECASE)


def in_the_unit_asked_for(text: str, asked: str, kind: AnswerKind) -> str:
    """To "how many millions" the answers "26 million" and "$26M" are 26; to other questions they are 26,000,000.

    Where a probability or a fraction is asked for, "5 out of 8" is 5/8.
    """
    if kind not in ("number", "numbers"):
        return text
    if _SHARE_ASKED_FOR.search(asked):
        text = _OUT_OF.sub(r"\1/\2", text)
    scale = _SCALE_ASKED_FOR.search(asked)
    if scale is None:
        return text
    word = scale[1].casefold()
    return re.sub(rf"\s+{word}s?\b|(?<=[0-9]){SHORT_SCALES.get(word, word)}\b", "", text, flags=re.IGNORECASE)


def stated_number(stated: str, *, alone: bool = False) -> str | None:
    """The first number of a statement, its last result, or the value of a calculation: "(84 / 2)" is 42.

    "3:2", "10-12" and "4 * x" are no number. Of a text that stands `alone`, in a box, "- 5" is negative.
    """
    said = affirmed(_LONE_SIGN.sub("-", stated) if alone else stated)
    if said[:1].isalpha() and (lead := _LEADING_PHRASE.match(said)):
        said = said[lead.end() :]
    text = words_as_digits(plain_numbers(_GROUPED_BY_SPACES.sub(_without_spaces, said)))
    text = _PERCENT_OF.sub(_percent_of, _SPOKEN_OPERATOR.sub(_operator, text))
    bare = _CALCULATED_ASIDE.sub("", text)
    for side in reversed((bare if _finished(bare) else text).split("=")):
        side = _ROUGHLY.sub("", side, count=1)
        found = numbers_in_digits(side)
        if found and _hedged(side, [span for span, _ in found]):
            return None
        if calculation := leading_calculation(side):
            value, end = calculation
            return None if _GOES_ON_CALCULATING.match(side, end) else number_text(value)
        if _finished(side):
            return None if "=" in text and _UNKNOWN.search(text) else _meant(side, found[0], len(found))
    return None


def stated_numbers(stated: str) -> str | None:
    """A ratio or time of day, else all numbers of a statement in their order, without calculations in brackets."""
    text = _CALCULATED_ASIDE.sub("", affirmed(stated))
    text = text[resulting.end() :] if (resulting := _RESULTING_IN_SEVERAL.search(text)) else text
    text = words_as_digits(plain_numbers(_AND_ANOTHER.sub(", ", text)))
    if ratio := RATIO.search(text):
        return ratio_text(ratio.group())
    return "; ".join(number_text(value) for _, value in numbers_in_digits(text)) or None


def last_number(output: str) -> str | None:
    """The number in which an output ends that states none: the last result of an equation, or what follows from it.

    Without equation it is what all of the text comes to, the total that the last sentence names, or the last number;
    there is none where the text breaks off within a calculation, denies the number or offers two.
    """
    text = plain_numbers(output).strip()
    if (value := calculated(text.rstrip("."))) is not None and re.search(r"[^\d.,\s+-]", text):
        return number_text(value)
    if _BROKEN_OFF.search(text) or _RATIO_ALONE.fullmatch(text):
        return None
    sides = text.split("=")
    each = [_result(left, right) for left, right in pairwise(sides)]
    if each and each[-1] is None and _CALCULATION.fullmatch(sides[-1]) and re.search(r"\d", sides[-1]):
        return None
    if results := list(filter(None, each)):
        return _concluded(sides[-1], results[-1]) or results[-1]
    return _last_of(text) or _only_spelled(next(reversed(sentences(output)), ""))


def ratio_text(text: str) -> str:
    """The parts of a ratio as they are written, "9:7"."""
    return re.sub(r"\s*(?:[:∶]|\bto\b)\s*", ":", text).replace(",", "")


def concluding(text: str) -> str:
    """The end of a text behind the last word that concludes ("so"), if it holds a number, else all of it."""
    ends = [text[found.end() :] for found in _CONCLUDES.finditer(text)]
    return next((end for end in reversed(ends) if re.search("[0-9]", end)), text)


def affirmed(stated: str) -> str:
    """A statement without what it denies: of "not 5 but 6", "not 5, it is 6" and "neither 5 nor 6 but 7" the last."""
    denied = re.match(r"\W*(?P<word>not|neither)\b", stated, re.IGNORECASE)
    if denied is None:
        return stated
    border = r"\bbut\b" if denied["word"].casefold() == "neither" else r"\bbut\b|[,;–—]\s"
    return "".join(re.split(border, stated, maxsplit=1)[1:])


def _percent_of(found: re.Match[str]) -> str:
    return number_text(Fraction(found[1]) * Fraction(found[2]) / 100)


def _operator(found: re.Match[str]) -> str:
    return f" {_OPERATORS[' '.join(found[1].casefold().split())]} "


def _without_spaces(found: re.Match[str]) -> str:
    return found.group().replace(" ", "")


def _finished(text: str) -> bool:
    """Whether a text holds a number, and the first one is no part of something larger."""
    found = numbers_in_digits(text)
    if not found:
        return False
    (start, end), _ = found[0]
    return not _UNFINISHED.match(text, end) and not _PART_OF_LARGER.search(text[:start])


def _meant(side: str, first: tuple[Span, Fraction], count: int) -> str:
    """The first number of a statement, or the one to which "half of 30, so 15" leads from it."""
    (_, end), value = first
    resulting = _RESULTING.search(side, end) if count > 1 else None
    if resulting and re.search(r"\bof\b", side[: resulting.start()]):
        later = numbers_in_digits(side[resulting.end() :])
        return number_text(later[0][1] if later else value)
    return number_text(value)


def _hedged(text: str, spans: Sequence[Span]) -> bool:
    """Whether the first number is only one of two that are offered: "5 or 6", "3 and 4", "between 5 and 6"."""
    if len(spans) < 2:
        return False
    return bool(
        re.fullmatch(r"\s+(?:or|and|to)\s+[$€£]?|\s*(?:或者?|还是)\s*", text[spans[0][1] : spans[1][0]])
        or re.search(r"\bbetween\s+[$€£]?$", text[: spans[0][0]])
    )


def _concluded(rest: str, result: str) -> str | None:
    """The number to which the text goes on from its last result: "… = 7. He eats 2, so he has 5 left."."""
    rest = _GIVEN_REASON.sub("", rest)
    after = [numbers_in_digits(rest[found.end() :]) for found in _CONCLUDES.finditer(rest)]
    later = [sentence for sentence in sentences(rest)[1:] if re.search("[0-9]", sentence)]
    clause = numbers_in_digits(re.split(r",\s", later[-1])[-1]) if later else []
    numbers = next(filter(None, reversed(after)), clause)
    values = {number_text(value) for _, value in numbers}
    return values.pop() if len(values) == 1 and result not in values else None


def _result(left: str, right: str) -> str | None:
    """The number on the right, or, where a calculation stands there, the one on the left: of "7 = 3 + 4" the 7."""
    first = re.match(r"[\s$€£~≈]*[+−-]?[\d.,/]*\d", right)  # with units and currency before it
    if first is None or not _UNFINISHED.match(right, first.end()):
        found = numbers_in_digits(first.group()) if first else []
    else:
        found = numbers_in_digits(next(reversed(sentences(left)), ""))
        found = found if len(found) == 1 else []
    return number_text(found[0][1]) if found else None


def _last_of(text: str) -> str | None:
    """The total that the last sentence with a number names, else the last number, unless it is denied or one of two."""
    sentence = next((each for each in reversed(sentences(text)) if re.search("[0-9]", each)), "")
    if _OFFERED.search(sentence):
        return None
    for pattern in (_NAMED_RESULT, _LEFT_OVER):
        for named in reversed(list(pattern.finditer(sentence))):
            if found := numbers_in_digits(named["number"].rstrip(".,")):
                return number_text(found[0][1])
    numbers = numbers_in_digits(sentence)
    if not numbers:
        return None
    (start, _), value = numbers[-1]
    return None if len(numbers) == 1 and _DENIED_NUMBER.search(sentence[:start]) else number_text(value)


def _only_spelled(sentence: str) -> str | None:
    """The number that a sentence spells out, where it is one."""
    spelled = list(numbers_in_words(sentence))
    return number_text(spelled[0]) if len(spelled) == 1 else None
