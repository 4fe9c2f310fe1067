r"""The places at which a text says outright what its answer is.

Enters: a plain text (`data.answers.outputs.plain_text`) and its question. Leaves: `Statement` records, in order. "The
answer is …", "my final answer would be …", "Answer: …", "#### …", "\boxed{…}", "15 is the answer", and for choices "the
correct option is …" and "I pick …". No statement of the answer is what a story says of answers ("each correct answer is
5 points", "his answers are 15"), what somebody in it says, or what is only supposed ("if the answer is 5").
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from data.answers.outputs import BOXED
from data.patterns import regex
from data.records import AnswerKind, Question
from data.steps import OPENERS, step_spans

_ADVERBS = (
    r"(?:(?:therefore|thus|then|hence|so|indeed|clearly|obviously|evidently|definitely|certainly|surely|simply|just|also|"
    r"(?:most\s+)?(?:likely|probably)|again|now|still|in\s+fact|of\s+course|exactly|actually|logically)\s*,?\s+)*"
)
_BE = (
    r"(?:is|equals?|becomes|(?:comes|works)\s+(?:out\s+)?(?:to|at)(?:\s+be)?|turns\s+out\s+to\s+be|amounts\s+to"
    rf"|(?:would(?:\s+have\s+to)?|must|should|will|has\s+to|can\s+only|ought\s+to)\s+{_ADVERBS}be)(?!\w)"
)
_WEAK = regex(r"\b(?:must|should|has\s+to|can\s+only|ought\s+to)\b", re.IGNORECASE)
_FOR = rf"(?P<part>\s+(?:to|for|of|on|in)\s[^.\n]{{1,120}}?)\s+{_ADVERBS}{_BE}\s*:?"
_IS = rf"\s*(?:{_ADVERBS}{_BE}\s*:?|[=:])"
_LEADING_ADVERBS = regex(rf"\W*{_ADVERBS}(?:of\s+course|in\s+fact)?\s*[:,]?\s*", re.IGNORECASE)
_BEST = r"(?:correct|right|best|final|true|only|most\s+likely|likeliest|closest|most\s+\w+)"
_ANNOUNCED = regex(
    rf"\banswer(?:\s+(?:choice|option))?\s*(?:\([^()\n]*\))?(?:{_IS}|{_FOR})\s*|(?P<heading>\banswer[ \t]*\n\s*)"
    r"|(?P<several>\banswers\s+are\b\s*:?\s*)|\banswers\s*:\s*|(?P<mark>\bans\.?\s*[:=]\s*|####\s*)"
    r"|\b(?:results?|final)\s*:\s*",
    re.IGNORECASE,
)
_CHOSEN = regex(
    rf"\b{_BEST}\s+(?:option|choice|letter|one)(?:{_IS}|{_FOR.replace('part', 'chosen')})\s*"
    r"|\b(?:I|we)(?:['’]d|['’]ll|\s+would|\s+will)?\s+(?:pick|choose|chose|picked|select|selected|go\s+with|say)\s+"
    r"(?=(?:(?:option|choice)\s+)?(?:\([A-Za-z]\)|(?-i:[A-Z])(?![\w'’])))"
    r"|\b(?:I|we)(?:['’]d|\s+would)?\s+(?:think|guess|vote\s+for)\s+(?=\(?(?-i:[A-Z])\)?\W*$)"
    r"|\band\s+(?:pick|choose|select|go\s+with)\s+(?=(?:(?:option|choice)\s+)?(?:\([A-Za-z]\)|(?-i:[A-Z])\W*$))"
    r"|^[^\w\n]{0,8}(?:choice|option)\s*[:=]\s*(?=\(?[A-Za-z]\)?(?:\W|$))",
    re.IGNORECASE | re.MULTILINE,
)
_LETTER_BEHIND = regex(r"\b(?:[Aa]nswer|ANSWER)\s+(?=\(?[A-Z]\)?\W*$)", re.MULTILINE)
_ANNOUNCING = (
    *("ans", "Ans", "ANS", "result", "Result", "RESULT", "final:", "Final:", "FINAL:", "final :", "Final :", "####"),
)
_CHOOSING = (
    *("option ", "choice ", " one ", " letter ", "option:", "choice:", "one:", "option=", "OPTION", "CHOICE", "hoice:"),
    *("ption:", " pick", " choose", " chose", " select", " go with", " say ", " think ", " guess ", " vote "),
)
_IN_OTHER_LANGUAGES = regex(
    r"(?:答案|选项|選項)(?:就|应该|應該|应|應)?[是为為:：]+\s*|(?:应该|應該)?[选選](?:择|擇|项|項)?\s*[:：]?\s*(?=[(（]?[A-Z])"
    r"|(?:答え|正解|解答)\s*[は:：]\s*|(?:정답|답)\s*(?:은|[:：])\s*|คำตอบ\s*(?:คือ|:)\s*"
    r"|\b(?:la\s+respuesta(?:\s+(?:correcta|final))?\s+es|la\s+(?:bonne\s+)?réponse(?:\s+(?:finale|correcte))?\s+est|"
    r"die\s+(?:richtige\s+|korrekte\s+)?Antwort\s+(?:ist|lautet)|"
    r"a\s+resposta(?:\s+(?:correta|final))?\s+é|la\s+risposta(?:\s+finale)?\s+è|ответ)\s*:?(?!\w)\s*",
    re.IGNORECASE,
)
_OF_THE_QUESTION = regex(
    r"\s+(?:(?:to|for|of)\s+(?:the|this|that|our|your)\s+(?:(?!first|second|third|fourth|next|other)\w+\s+)?"
    r"(?:question|problem|exercise|task|riddle)\b|in\s+\w+\Z)",
    re.IGNORECASE,
)
_MAY_BE_BEHIND = regex(
    r"(?:the|our|my) (?:[a-z]+ ){0,3}(?:answer|solution|choice|option|one)\b"
    r"(?! (?:is|to|for|of|choice|option)\b| ?[=:])"
    r"|(?:is|be) (?:[a-z]+ ){0,2}(?:correct|right)"
)
_BEHIND = regex(
    r"(?:^|(?<=[.!?:;,]\s)|\b(?:so|thus|therefore|hence|then)\s)\s*"
    r"(?P<said>[^\s.!?:;,](?:[^.,!?:;\n]|[.,](?=\d)){0,60}?)\s+(?:is|must\s+be|would\s+be|has\s+to\s+be)\s+"
    rf"{_ADVERBS}(?:(?:the|our|my)\s+(?:{_BEST}\s+)*(?P<what>answer|solution|choice|option|one)|(?P<right>correct|right))"
    r"\b(?!\s+(?:choices?|options?|to|for|of)\b)",
    re.IGNORECASE | re.MULTILINE,
)

# Words that may stand between "the" and "answer" where it is ours, and before them where it is.
_ADJECTIVES = frozenset(
    re.findall(
        r"\w+",
        "correct right best final true only overall full complete exact numerical numeric simplified required desired "
        "expected likely closest most possible plausible logical obvious sensible short single reasonable suitable "
        "appropriate accurate",
    )
)
_THE = frozenset(("the", "my", "our", "your", "this", "that"))
_CONNECTING = frozenset(
    (
        "so",
        "thus",
        "therefore",
        "hence",
        "then",
        "and",
        "or",
        "finally",
        "is",
        "as",
        "means",
        "gives",
        "get",
        "here",
        "now",
    )
)
# After these an answer is supposed only, or somebody's.
_SUPPOSING = frozenset(
    ("if", "whether", "unless", "until", "suppose", "supposing", "assume", "assuming", "when", "once")
)
_SAYING = frozenset(
    re.findall(
        r"\w+",
        "say says said thinks thought guesses guessed believes believed claims claimed writes wrote knows knew told "
        "hopes hoped wonders wondered",
    )
)
_OTHERS = frozenset(("you", "one", "some", "people", "many", "they", "students"))
_BORDER = ".,:;!?()[]{}*_#>~|\"'“”‘’«»=$—–-…。！？：，、）（"
_BETWEEN = frozenset(("that", "us", "him", "her", "them"))

_LEADING_CONNECTIVES = regex(r"(?:(?:so|thus|therefore|hence|then|and|but|that|means|which)\b\W*)+", re.IGNORECASE)
# What makes a statement somebody's words: "… 12," said Mia.
_SPOKEN = regex(
    r"[^\n\"“”]{1,80}[,.!?][\"”’']+\s+(?:said|says|asked|replied|answered|cried|thought|guessed|shouted)\b",
    re.IGNORECASE,
)
_LISTED = regex(r"^\s*(?:[-*•]|[0-9]{1,2}[.)])\s+(.+)$", re.MULTILINE)
LONGEST = 2000
"""So far the end of a statement is looked for, in characters."""
_LETTER_FIRST = regex(r"\W*(?P<letter>[A-Z]\.)\s+(?P<next>[A-Z]\w*)")


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A place at which an output says outright what its answer is."""

    start: int
    """Where the words that announce the answer begin."""
    answer_start: int
    """Where the answer itself begins."""
    end: int
    """Where its sentence or line ends."""
    text: str
    """The answer as it is written there."""
    line: str
    """The same up to the end of the line, for answers that hold a period."""
    below: str = ""
    """The entries of the list that is announced."""
    boxed: bool = False
    """Whether it stands in a box."""
    part: bool = False
    """Whether it says for what it is the answer ("for Monday"), so that it may be one of several."""
    weak: bool = False
    """Whether it says what the answer must or should be, which may be a step on the way ("must be a cold place")."""
    behind: bool = False
    """Whether the answer comes first ("15 is the answer"); then `answer_start` is `start`."""


def statements(text: str, question: Question) -> Iterator[Statement]:
    """Every outright statement of an answer in a plain text, in order; one ends where the next begins."""
    found: dict[int, tuple[int, re.Match[str] | None, bool]] = {}
    for match in _announcements(text, question.answer_kind):
        part = match.groupdict().get("part")
        found.setdefault(match.start(), (match.end(), None, bool(part and not _OF_THE_QUESTION.match(part))))
    for box in BOXED.finditer(text) if "\\boxed" in text else ():
        found[box.start()] = (box.start(1), box, False)
    starts = sorted(found)
    announced = [
        _statement(text, start, border, *found[start])
        for start, border in zip(starts, [*starts[1:], len(text)], strict=False)
    ]
    behind = [each for each in _behind(text, question.answer_kind) if not any(_overlap(each, one) for one in announced)]
    return iter(sorted([*announced, *behind], key=lambda statement: statement.start))


def _announcements(text: str, kind: AnswerKind) -> Iterator[re.Match[str]]:
    """Where an answer may be announced; the words that a pattern needs are looked for first, which is far quicker."""
    for word in _ANNOUNCING:
        place = text.find(word)
        while place >= 0:
            match = _ANNOUNCED.match(text, place)
            if match and _is_ours(text, match, kind) and not _SPOKEN.match(text, match.end()):
                yield match
            place = text.find(word, match.end() if match else place + 1)
    if not text.isascii() or any(word in text for word in ("espuesta", "ntwort", "isposta", "esposta")):
        yield from _IN_OTHER_LANGUAGES.finditer(text)
    if kind == "choice":
        yield from _LETTER_BEHIND.finditer(text)
        if any(word in text for word in _CHOOSING):
            yield from _CHOSEN.finditer(text)


def sentence_end(text: str, start: int, border: int) -> int:
    """Where the sentence that goes on at `start` ends, with its mark; the full stop of an abbreviation ends none."""
    piece = text[start : min(border, start + LONGEST)]
    letter = _LETTER_FIRST.match(piece)
    if letter and letter["next"] in OPENERS:
        return start + letter.end("letter")
    first = next(step_spans(piece, "sentences"), None)
    if first is None:
        return border
    newline = piece.find("\n", 0, first[0])
    return start + (newline + 1 if newline >= 0 else first[1])


def without_adverbs(text: str) -> str:
    """What is stated without "clearly", "most likely" and the like before it, which may also be how a name begins."""
    return _LEADING_ADVERBS.sub("", text, count=1)


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text, with their marks, without those that hold no word."""
    pieces = (text[start:end] for start, end in step_spans(text, "sentences"))
    return [piece for piece in pieces if re.search(r"\w", piece)]


def _statement(
    text: str, start: int, border: int, answer_start: int, box: re.Match[str] | None, part: bool
) -> Statement:
    answer_start = min(answer_start, border)
    end = box.end() if box else sentence_end(text, answer_start, border)
    body = box.group(1) if box else text[answer_start:end]
    return Statement(
        start=start,
        answer_start=answer_start,
        end=end,
        text=body.strip(),
        line=text[answer_start:border].partition("\n")[0].strip(),
        below="; ".join(_LISTED.findall(text[answer_start:border])) if _LISTED.match(text, answer_start) else "",
        boxed=box is not None,
        part=part,
        weak=_WEAK.search(text, start, answer_start) is not None,
    )


def _behind(text: str, kind: AnswerKind) -> Iterator[Statement]:
    for match in _BEHIND.finditer(text) if _MAY_BE_BEHIND.search(text) else ():
        if kind == "choice" or (match["what"] or "").casefold() in ("answer", "solution"):
            start, said = match.start("said"), _LEADING_CONNECTIVES.sub("", match["said"].strip(), count=1)
            end = sentence_end(text, match.end(), len(text))
            yield Statement(start=start, answer_start=start, end=end, text=said, line=said, behind=True)


def _overlap(one: Statement, other: Statement) -> bool:
    return one.start < other.end and other.start < one.end


def _is_ours(text: str, match: re.Match[str], kind: AnswerKind) -> bool:
    """Whether what stands before lets the announcing words be the author's own: not "each answer is 5 points"."""
    if match["mark"] or (match["several"] and kind != "numbers"):
        return match["mark"] is not None
    line = text[max(0, match.start() - 80, text.rfind("\n", 0, match.start()) + 1) : match.start()]
    if match["heading"]:
        return all(_bare(word) in _ADJECTIVES or not _bare(word) for word in line.split())
    words = line.replace(":", ": ").split()
    while words and _bare(words[-1]) in _ADJECTIVES:
        if words.pop()[0] in _BORDER:
            return not _quoted(line, words)
    if words and _bare(words[-1]) in _THE:
        border = words.pop()[0] in _BORDER
        return not _quoted(line, words) if border else not _supposed(words)
    last = words[-1] if words else ""
    return not last or last[-1] in _BORDER or (_bare(last) in _CONNECTING and not _supposed(words))


def _bare(word: str) -> str:
    return word.lstrip(_BORDER).casefold()


def _quoted(line: str, words: Sequence[str]) -> bool:
    """Whether the border behind these words opens what somebody says or writes: Lia wrote "the answer is 30"."""
    return bool(words) and _bare(words[-1]).rstrip(_BORDER) in _SAYING and re.search(r'["“][^"”]*$', line) is not None


def _supposed(words: Sequence[str]) -> bool:
    """Whether these words make of the clause that follows what is supposed, or what somebody says."""
    if words and words[-1][-1] in ".!?;":
        return False
    before = [_bare(word).rstrip(_BORDER) for word in words[-4:]]
    while before and before[-1] in _BETWEEN:
        before.pop()
    return bool(before) and (
        before[-1] in _SUPPOSING
        or (before[-1] in ("think", "believe", "guess", "expect") and not _OTHERS.isdisjoint(before))
        or (before[-1] in _SAYING and before[-2:-1] not in (["i"], ["we"]))
    )
