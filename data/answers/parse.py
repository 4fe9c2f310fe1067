r"""Find the answer in what a model wrote.

Enters: a model's output and the question that it answers. Leaves: the canonical answer (`data.answers.canonical`), or
None where there is none.
"""

import re

from data.answers.amounts import (
    NUMBER_FIRST,
    affirmed,
    concluding,
    in_the_unit_asked_for,
    last_number,
    stated_number,
    stated_numbers,
)
from data.answers.canonical import YES_NO, canonical_answer
from data.answers.choices import LEADING_WORD, canonical_choice, sentence_of_its_own, stated_choice
from data.answers.outputs import in_plain_signs, plain_text
from data.answers.statements import Statement, sentences, statements, without_adverbs
from data.patterns import regex
from data.records import Question

# After a yes or no a sentence ends, goes on behind a mark, gives a reason, or says the same at length ("no it cannot").
_GOES_ON = (
    r"(?=\W*$|\s*[,.;:!?()\[\]\"'”’*/–—-]"
    r"|\s+(?:and|or|because|since|as|it|he|she|they|we|you|this|that|these|those|the|an?)\b)"
)
# The word, where it does not belong to the one after it.
_NO = rf"no{_GOES_ON}"
_YES_AND_NO = regex(
    rf"\b(?:(?:yes|true)\W+(?:(?:and|or|nor)\b)?\W*(?:{_NO}|false)"
    r"|(?:no|false)\W+(?:(?:and|or|nor)\b)?\W*(?:yes|true))\b",
    re.IGNORECASE,
)
# What an unreadable statement holds that means to be an answer, by kind; whatever is said of choices or words means to.
_LEFT_OPEN = {
    "choice": regex(""),
    "text": regex(""),
    "number": regex("[0-9]"),
    "boolean": _YES_AND_NO,
}
# A reason behind an answer: what it holds is not the answer.
_REASON = regex(r"(?<=[\w)\]%.'\"”’])[\s,;:(–—-]+(because|since|where|given\s+that|due\s+to)\b.*", re.I | re.S)
_POINTS_BACK = regex(r"\W*(?:this|that|it|which|what|here|there|these|those|the\s+following)\b", re.IGNORECASE)
_HEDGES = regex(
    r"\A\W*(?:(?:most\s+)?(?:likely|probably)|clearly|definitely|certainly|surely|obviously)\s+"
    r"|,\s+(?:of\s+course|I\s+think)\W*\Z",
    re.IGNORECASE,
)
_CORRECTION = regex(
    r"(?:[.!?;,(…—–-]|\n)\s*(?:(?:no|oh|oops)\b[,.!]?\s*)?(?:(?:wait|actually)\s*[,.!:—–-]|correction\b|sorry\b|oops\b|edit:|"
    r"scratch\s+that\b|I\s+meant?\b)|(?:\.\.\.|…)\s*no\b",
    re.IGNORECASE,
)
# What may follow an answer: the proof, and what is said to whoever asked.
_REMARK = regex(
    r"(?:(?<=[.!?)\n] )|^)[ \t#*>(-]{0,8}(?:"
    r"(?:(?:to\s+)?(?:double[- ])?check|(?:to\s+)?verify|verification|proof)\s*[:,]"
    r"|(?:we\s+can|to|let\s+us|let['’]s|let\s+me)\s+(?:(?:double[- ])?check|verify)\s+"
    r"(?:this|that|it|(?:the|our|my)\s+(?:answer|result))\b"
    r"|let\s+me\s+know\b|feel\s+free\b|(?:I\s+)?hope\s+(?:this|that|it)\b|would\s+you\s+like\b"
    r"|do\s+you\s+(?:need|want)\b|if\s+you\s*(?:['’]d|would)\s+like\b|if\s+you\s+(?:like|want|wish)\s*,"
    r"|if\s+you\s+(?:have|need|want)\s+(?:any|more|another|further|me)\b)",
    re.IGNORECASE | re.MULTILINE,
)
_SEVERAL_BOXES = regex(r"(?<=[0-9])\s*\}\s*(?:,|;|&|\band\b)+\s*\\boxed\s*\{\s*(?=-?[0-9])")
# What stands before a word that it denies, with up to two words between.
_DENIED = regex(r"\b(?:not|never|\w+n['’]t)\s+((?:\w+\s+){0,2})\Z", re.IGNORECASE)


def parse_answer(output: str, question: Question) -> str | None:
    r"""Find the canonical answer in a model's output.

    The last outright statement that can be read counts ("The answer is …", "#### …", "\boxed{…}"). Without one: for
    numbers the last result after an equals sign, else the last number; for several numbers those of the last sentence;
    for choices the one that the last sentence names; for yes and no the last sentence that begins or ends with one of
    them; for text the last line. Who hedges ("5 or 6", "(A) or (B)") has not answered.
    """
    text = plain_text(output)
    if question.answer_kind != "text":
        text = in_the_unit_asked_for(in_plain_signs(text), question.text, question.answer_kind)
    if question.answer_kind == "numbers":
        text = _SEVERAL_BOXES.sub(", ", text)
    stated = [each for each in statements(text, question) if not each.part or _is_last(each, text, question)]
    stated = [each for each in stated if not each.weak] or stated
    read = [(each, answer) for each in stated if (answer := _read(each, question)) is not None or not each.behind]
    for statement, answer in reversed(read):
        if answer is not None:
            return _corrected(text[statement.answer_start :], question) or answer
    return None if read and _leaves_open(read[-1][0], question) else _unstated(text, question)


def _corrected(stated: str, question: Question) -> str | None:
    """What a statement is corrected to: "5. No, wait. It is 6.", "12 (edit: 13)"."""
    correction = _CORRECTION.search(stated) if question.answer_kind in ("number", "choice") else None
    if correction is None:
        return None
    tail = _claimed(stated[correction.end() :], question)
    return stated_number(concluding(tail)) if question.answer_kind == "number" else stated_choice(tail, question)


def _is_last(statement: Statement, text: str, question: Question) -> bool:
    """Whether nothing follows a statement that could be the answer, so that it is no part of one."""
    rest = text[statement.end :]
    return not re.search("[0-9]" if question.answer_kind in ("number", "numbers") else r"\w", rest)


def _read(statement: Statement, question: Question) -> str | None:
    """The answer in the words that state it."""
    claimed = _claimed(statement.text, question)
    match question.answer_kind:
        case "number" if statement.behind:
            return stated_number(claimed) if NUMBER_FIRST.fullmatch(claimed) else None
        case "number":
            return stated_number(claimed, alone=statement.boxed)
        case "numbers":
            return stated_numbers(statement.below or claimed)
        case "choice":
            bare = without_adverbs(claimed)
            said = (canonical_choice(each, question) for each in (statement.line, bare))
            return next(filter(None, said), None) or stated_choice(bare, question)
        case "boolean":
            return _read_yes_no(claimed)
        case _:
            return None if statement.behind and _POINTS_BACK.match(claimed) else _read_words(claimed)


def _read_words(claimed: str) -> str | None:
    """Words that are stated, without what hedges them: of "probably Lisbon, of course" Lisbon."""
    denied = affirmed(claimed)
    said = denied if denied == claimed else re.sub(r"\A\W*it\s+is\s+", "", denied)
    return canonical_answer(_HEDGES.sub("", said).strip(), "text") if re.search(r"\w", said) else None


def _claimed(stated: str, question: Question) -> str:
    """A statement without the reason that it gives, unless a choice has such words of its own."""
    reason = _REASON.search(stated)
    own = reason and any(reason[1].casefold() in choice.casefold() for choice in question.choices)
    return stated[: reason.start()] if reason and not own else stated


def _leaves_open(statement: Statement, question: Question) -> bool:
    """Whether an unreadable statement is meant so: no choice or several named, "5 or 6", "yes or no".

    Behind "the answer is not B" another sentence may still say which choice it is.
    """
    if question.answer_kind == "choice" and statement.text and not affirmed(statement.text):
        return False
    pattern = _LEFT_OPEN.get(question.answer_kind)
    return pattern is not None and pattern.search(statement.text) is not None


def _unstated(text: str, question: Question) -> str | None:
    """The answer in an output that does not say outright what it is."""
    remark = _REMARK.search(text)
    if remark and re.search(r"[0-9]" if question.answer_kind == "number" else r"\w", text[: remark.start()]):
        text = text[: remark.start()]
    last_sentence = next(reversed(sentences(text)), "")
    match question.answer_kind:
        case "number":
            return last_number(text)
        case "numbers":
            return stated_numbers(last_sentence)
        case "choice":
            return (
                canonical_choice(text, question)
                or stated_choice(_claimed(last_sentence, question), question, outright=False)
                or sentence_of_its_own(text, question)
            )
        case "boolean":
            return None if _YES_AND_NO.search(last_sentence) else _edge_yes_no(text)
        case _:
            return canonical_answer(text.strip().rpartition("\n")[2], "text")


def _read_yes_no(stated: str) -> str | None:
    found = re.search(rf"\b(yes|{_NO}|true|false)\b", stated, re.IGNORECASE)
    return None if not found or _YES_AND_NO.search(stated) else _unless_denied(found)


def _unless_denied(found: re.Match[str]) -> str | None:
    """Yes or no as it is meant: of "not true" no; what just "not quite true" denies is not for us to say."""
    answer = YES_NO[next(filter(None, found.groups())).casefold()]
    denied = _DENIED.search(found.string[: found.start()])
    if denied is None:
        return answer
    return None if denied[1] else "no" if answer == "yes" else "yes"


def _edge_yes_no(text: str) -> str | None:
    """Yes or no, true or false, where it opens a sentence by itself ("No, it …") or closes the text ("so yes.")."""
    closing = re.search(
        r"\b(yes|no|true|false)\b[^\w]*\Z|[,;]\s*so\s+(yes|no)\b(?=,)[^.!?\n]*\W*\Z", text, re.IGNORECASE
    )
    if closing:
        return _unless_denied(closing)
    opening = re.findall(
        rf"(?:^|(?<=[.!?\n]))[^\w\n.!?]*(?:{LEADING_WORD}[\s,]*)?(yes|no|true|false)\b(?!-\w){_GOES_ON}",
        text,
        re.IGNORECASE | re.MULTILINE,
    )
    if opening:
        return YES_NO[opening[-1].casefold()]
    return "yes" if re.match(r"\W*yes\b(?!-)", text, re.IGNORECASE) else None
