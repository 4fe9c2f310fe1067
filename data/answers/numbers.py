"""Numbers as people and models write them.

Enters: text. Leaves: exact fractions, and the canonical text of each. The notation is English: a comma groups digits,
a point begins the decimals. What can mean nothing else is read as well: "1.234,5" (1234.5), "1,00,000" (100000),
"1'250", "10 000", "472/10,000", "3 × 10^4", "5²", "2e3", "1 1/2", "1½", "2 and a half", "minus 5", "3 million", "$3M",
"42k", "2 dozen", "twenty-five", "half a million", "three quarters". "3,5" is two numbers. Units, currency and the
percent sign are left out: "45%" is 45, never 0.45.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

from data.marking import number_spans
from data.patterns import regex
from data.records import Span

# More characters than this are a model that repeats a digit, no answer.
LONGEST_NUMBER = 100
LARGEST_EXPONENT = 30
_NUMBER_FORM = regex(r"[+-]?(?:[0-9]+/[0-9]+|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)")

_DIGITS = r"[0-9]{1,15}(?:\.[0-9]{1,15})?"
_GROUPED = r"[0-9]{1,3}(?:,[0-9]{3})+"
_ALONE = r"(?<![\w.,/])"
_SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹−", "-0123456789-")

_SMALL = {
    **{"zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9},
    **{"ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16},
    **{"seventeen": 17, "eighteen": 18, "nineteen": 19},
}
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
SHORT_SCALES = {"thousand": "k", "million": "m", "billion": "b", "trillion": "t"}
"""How a scale is shortened behind a price: $5k, $2.5M."""
_FACTORS = {
    **_SCALES,
    **{letter + more: _SCALES[word] for word, letter in SHORT_SCALES.items() for more in ("", "n")},
}
_SCALE = "|".join(_SCALES)
_PARTS = {"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "eighth": 8, "tenth": 10}
_MANY_PARTS = {"halves": 2, **{f"{word}s": value for word, value in _PARTS.items() if word != "half"}}
_COUNT = "|".join((*_SMALL, *_TENS, *_SCALES))
_PART = "|".join((*_MANY_PARTS, *_PARTS))
_IN_WORDS = regex(
    rf"(?<![\w-])(?:(?P<sign>minus|negative)\s+)?"
    rf"(?:(?P<count>(?:a\s+(?={_SCALE}))?(?:{_COUNT})(?:(?:\s*-\s*|\s+(?:and\s+)?)(?:{_COUNT}))*)"
    rf"(?:[\s-]+(?P<part>{_PART})|\s+and\s+(?:a|one)\s+(?P<more>half|quarter|third)(?:\s+(?P<times>{_SCALE}))?)?"
    rf"|(?P<halved>(?:half|(?:(?:a|one)\s+)?(?:quarter|third|fifth|tenth)\s+of)\s+an?\s+(?:{_SCALE}))"
    rf"|(?:(?:a|one)\s+)?(?P<alone>half|third|quarter|fourth|fifth))(?![\w-])",
    re.IGNORECASE,
)
# After these "one" stands for a thing: "each one", "no one"; and so does "the second half".
_NO_COUNT = regex(
    r"\b(?:the|this|that|each|every|no|any|some|which|another|other|first|second|last|next|single)\s+$", re.IGNORECASE
)


def number_value(text: str) -> Fraction | None:
    """The exact value of one number as people write it, or None: "1,000.50", "-3", "3/4", "½", "１２．５"."""
    if len(text) == 1 and unicodedata.category(text) == "No":
        return _numeric(text)
    if not text.isascii():
        normal = unicodedata.normalize("NFKC", text)
        text = "".join(str(unicodedata.decimal(sign)) if sign.isdecimal() else sign for sign in normal)
    bare = text.replace(",", "").replace("−", "-").replace("–", "-").strip()
    if len(bare) > LONGEST_NUMBER or not _NUMBER_FORM.fullmatch(bare) or re.search(r"/0+$", bare):
        return None
    return Fraction(bare)


def number_text(value: Fraction) -> str:
    """The canonical form of a number: a finite decimal where there is one, else a reduced fraction."""
    rest, places = value.denominator, 0
    while rest % 10 == 0 or rest % 2 == 0 or rest % 5 == 0:
        rest //= 10 if rest % 10 == 0 else 2 if rest % 2 == 0 else 5
        places += 1
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    digits = f"{abs(value.numerator) * 10**places // value.denominator:0{places + 1}d}"
    whole, part = (digits[:-places], digits[-places:].rstrip("0")) if places else (digits, "")
    return ("-" if value < 0 else "") + whole + ("." + part if part else "")


def decimal_places(canonical: str) -> int:
    """How many decimals the canonical form of a number shows."""
    return len(canonical.partition(".")[2])


def plain_numbers(text: str) -> str:
    """The text with every number that is written in digits in a form that `number_spans` finds whole."""
    text = text.replace("⁄", "/")
    for pattern, plain in _REWRITTEN:
        text = pattern.sub(plain, text)
    return text


def numbers_in_digits(text: str) -> list[tuple[Span, Fraction]]:
    """The numbers of a text that `plain_numbers` has been over, each with its place."""
    found = [(span, number_value(text[span[0] : span[1]])) for span in number_spans(text)]
    return [(span, value) for span, value in found if value is not None]


def words_as_digits(text: str) -> str:
    """The text with numbers in words turned into digits, where a word counts something and is no pronoun."""
    return _IN_WORDS.sub(lambda found: _digits(found, text), text)


def numbers_in_words(text: str) -> Iterator[Fraction]:
    """The numbers that a text spells out; a lone "one" or "zero", which often counts nothing, is left out."""
    for found in _IN_WORDS.finditer(text):
        value = _spelled(found)
        if value is not None and found.group().casefold() not in ("one", "zero") and not _is_pronoun(found, text):
            yield value


def _numeric(glyph: str) -> Fraction:
    return Fraction(unicodedata.numeric(glyph)).limit_denominator(100)


def _english(found: re.Match[str]) -> str:
    return found[0].replace(".", "").replace(",", ".")


def _power(found: re.Match[str]) -> str:
    """A number of which the first group, if any, is the factor and the last one that matched the power of ten."""
    exponent = found[found.lastindex or 0].translate(_SUPERSCRIPTS)
    digits = exponent.lstrip("+-")
    if not digits or int(digits) > LARGEST_EXPONENT:
        return found.group()
    return number_text(Fraction(found[1] or 1) * Fraction(10) ** (-int(digits) if exponent[0] == "-" else int(digits)))


def _joined(found: re.Match[str]) -> str:
    return re.sub(r"[ ,'’_]", "", found[0])


def _raised(found: re.Match[str]) -> str:
    """The power that "5²" is."""
    exponent = int(found[2].translate(_SUPERSCRIPTS))
    return number_text(Fraction(found[1]) ** exponent) if exponent <= LARGEST_EXPONENT else found.group()


def _with_glyph(found: re.Match[str]) -> str:
    part = _numeric(found[2])
    return f"{found[1]} {part.numerator}/{part.denominator}"


def _mixed(found: re.Match[str]) -> str:
    """A whole number and a proper fraction as one fraction; anything else stays as it is."""
    whole, upper, lower = (int(piece) for piece in found.groups())
    return f"{whole * lower + upper}/{lower}" if upper < lower else found.group()


def _and_a_part(found: re.Match[str]) -> str:
    return number_text(int(found[1]) + Fraction(1, _PARTS[found[2].casefold()]))


def _scaled(found: re.Match[str]) -> str:
    return number_text(Fraction(found[1].replace(",", "")) * _FACTORS[found[2].casefold()])


def _sign(found: re.Match[str]) -> str:
    """A minus sign for "minus 5" and "negative 5"; "8 minus 5", "x minus 5" and "eight minus 5" take away."""
    before = re.search(r"(\w+)\s*$", found.string[max(0, found.start() - 30) : found.start()])
    word = before.group(1).casefold() if before else ""
    takes_away = word[-1:].isdigit() or len(word) == 1 or word in _SMALL or word in _TENS or word in _SCALES
    return found.group() if takes_away else "-"


_REWRITTEN: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (regex(r"–(?=[$€£]?\.?[0-9])"), "-"),
    (regex(r"\b(?:minus|negative)\s+(?=[$€£]?\.?[0-9])", re.IGNORECASE), _sign),
    (regex(r"(?<=[0-9])[\u00a0\u2009\u202f](?=[0-9]{3}(?![0-9]))"), ","),
    # 1'250 as in Switzerland; 10 000 and 1 234 567, while 2 500 may be two of something that holds 500
    (regex(rf"{_ALONE}[0-9]{{1,3}}(?:['’_][0-9]{{3}})+(?![0-9])"), _joined),
    (regex(rf"{_ALONE}[0-9]{{1,3}}(?:(?: [0-9]{{3}}){{2,}}|(?: 000)+)(?![0-9]|[.,/][0-9])"), _joined),
    (regex(rf"{_ALONE}(?:{_GROUPED}/(?:{_GROUPED}|[0-9]+)|[0-9]+/{_GROUPED})(?![0-9/]|[.,][0-9])"), _joined),
    # 1,00,000 as in India, and 1.234,5 as on the European continent
    (
        regex(r"(?<![\w,.])[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}(?![0-9]|,[0-9])"),
        lambda found: found[0].replace(",", ""),
    ),
    (
        regex(r"(?<![\w,.])[0-9]{1,3}(?:(?:\.[0-9]{3})+,[0-9]+|(?:\.[0-9]{3}){2,})(?![0-9]|[.,][0-9])"),
        _english,
    ),
    (regex(r"(?<![\w.])([0-9]{1,30}(?:\.[0-9]{1,30})?)[eE]([+-]?[0-9]{1,2})(?!\w|\.[0-9])"), _power),
    (
        regex(
            r"(?<![\w.])(?:([0-9]{1,30}(?:\.[0-9]{1,30})?)\s*[x×*·]\s*)?"
            r"10(?:\s*(?:\^|\*\*)\s*\{?([+−-]?[0-9]{1,2})\}?|([⁻⁰¹²³⁴-⁹]{1,3}))(?!\w)"
        ),
        _power,
    ),
    (regex(rf"{_ALONE}([0-9]{{1,15}}(?:\.[0-9]{{1,15}})?)([⁰¹²³⁴-⁹]{{1,2}})(?!\w)"), _raised),
    (regex(r"([0-9]) ?([¼½¾⅐-⅞])"), _with_glyph),
    (
        regex(rf"{_ALONE}([0-9]{{1,15}})(?: (?:and )?|-(?=[0-9]/))([0-9]{{1,15}})/([0-9]{{1,15}})(?![0-9/]|\.[0-9])"),
        _mixed,
    ),
    (
        regex(rf"{_ALONE}([0-9]{{1,15}})\sand\s(?:a|one)\s(half|third|quarter|fourth|fifth)\b", re.I),
        _and_a_part,
    ),
    (regex(rf"{_ALONE}({_GROUPED}|{_DIGITS})[\s-]({_SCALE})\b", re.I), _scaled),
    (regex(rf"(?<=[$€£])({_GROUPED}|{_DIGITS})([kKmMbBtT]n?)\b"), _scaled),
    (
        regex(rf"{_ALONE}({_GROUPED}|{_DIGITS})([kKM]|[mbt]n)\b(?!\s+(?:run|race|walk|marathon|screen|video))"),
        _scaled,
    ),
    (regex(r"(?<![\w)])([-−])\s?([$€£])(?=[\d.])"), r"\2\1"),
)
"""Ways to write a number, each with what makes it plain; one may give what a later one takes up."""


def _digits(found: re.Match[str], text: str) -> str:
    value = _spelled(found)
    return found.group() if value is None or _is_pronoun(found, text) else number_text(value)


def _is_pronoun(found: re.Match[str], text: str) -> bool:
    is_one = found["alone"] is not None or found.group().casefold() == "one"
    return is_one and _NO_COUNT.search(text[max(0, found.start() - 30) : found.start()]) is not None


def _spelled(found: re.Match[str]) -> Fraction | None:
    """The value of a number in words, None for words that form none, such as "two three" or "one quarters"."""
    sign = -1 if found["sign"] else 1
    if found["halved"]:
        words = found["halved"].casefold().split()
        return sign * Fraction(_SCALES[words[-1]], next(_PARTS[word] for word in words if word in _PARTS))
    if found["alone"]:
        return sign * Fraction(1, _PARTS[found["alone"].casefold()])
    words = re.findall(r"[a-z]+", found["count"].casefold())
    count = _counted(words)
    if count is None:
        return _with_parts(words, found["part"])
    if found["part"]:
        part = found["part"].casefold()
        parts = _PARTS if count == 1 else _MANY_PARTS
        return sign * Fraction(count, parts[part]) if part in parts else None
    more = Fraction(1, _PARTS[found["more"].casefold()]) if found["more"] else Fraction(0)
    return sign * (count + more) * (_SCALES[found["times"].casefold()] if found["times"] else 1)


def _with_parts(words: Sequence[str], part: str | None) -> Fraction | None:
    """The value of "two and three quarters": a whole number and a proper fraction."""
    if not part or "and" not in words or part.casefold() not in _MANY_PARTS:
        return None
    border = len(words) - 1 - list(reversed(words)).index("and")
    whole, upper, lower = _counted(words[:border]), _counted(words[border + 1 :]), _MANY_PARTS[part.casefold()]
    return whole + Fraction(upper, lower) if whole and upper and upper < lower else None


def _counted(words: Sequence[str]) -> int | None:
    """The whole number that these words name in order, None where they name none."""
    total, part, smallest = 0, 0, 10**15
    for word in words:
        if word in _SCALES and word != "hundred":
            if (not part and word == words[0]) or _SCALES[word] >= smallest:
                return None
            total, part, smallest = total + (part or 1) * _SCALES[word], 0, _SCALES[word]
        elif word == "hundred":
            if part >= 100 or (not part and word == words[0]):
                return None
            part = (part or 1) * 100
        elif word in _TENS:
            if part % 100:
                return None
            part += _TENS[word]
        elif word in _SMALL:
            rest = part % 100
            if (rest and (rest < 20 or rest % 10 or _SMALL[word] > 9)) or (part and not _SMALL[word]):
                return None
            part += _SMALL[word]
    return total + part
