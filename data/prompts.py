"""The texts that teacher and student are given, and the form in which a rationale is kept.

Enters: a question (and what a teacher wrote about it). Leaves: prompts for rationales, prompts and targets of the
student's two tasks, and finished rationales that end in exactly one sentence with the answer. `prompts_version` names
all of it, so that rationales made from other prompts are never taken for these.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, cycle
from typing import get_args

from data.answers.canonical import canonical_answer, same_answer
from data.answers.choices import CHOICES_HEADING, choice_text, letters_of
from data.answers.numbers import number_text, numbers_in_digits, plain_numbers, words_as_digits
from data.answers.outputs import BOXED, plain_text
from data.answers.parse import parse_answer
from data.answers.statements import Statement, statements, without_adverbs
from data.errors import ConfigError, DataError
from data.patterns import regex
from data.records import AnswerKind, Question
from data.sets import names
from data.worked_examples import worked_examples

STOP_STRINGS: tuple[str, ...] = ("\n\n", "\nQ:")

MOST_ROUNDS = 4
"""So often a rationale is cleaned again at most; hardly one is left after the second."""
_INSTRUCTION = (
    "Solve the problem step by step in a few short sentences. "
    'End with one sentence of the form "The answer is …." that gives the answer and nothing else.'
)
_HINT = regex(r"\(The correct answer is [^\n]*?\.\)[ \t]*\n?")
_ANSWER_LABEL = regex(r"\A(?:\s*A:)+|(?:(?<=[\s.!?])A:[\s,]*)+\Z")
# Words that lead up to a statement of the answer and say nothing without it.
_LEAD = regex(
    r"(?:(?:(?<=\W)|^)(?:so|thus|therefore|hence|then|and|finally|in conclusion|(?:that|this|which) means|we get|"
    r"that|the|my|our|final|correct|right|best|most|likely)[,:]?\s+)+$",
    re.IGNORECASE,
)
_LONGEST_LEAD = 200
_RESULT = regex(r"(?:results?|final)\s*:", re.IGNORECASE)
_ENDS_BEHIND = regex(r"(?:answer|solution|choice|option|one|correct|right)\W*\Z", re.IGNORECASE)
_CALCULATES = regex(r"[0-9]\s*[-+*/×÷=]\s*[0-9]")
_RULE = regex(r"\s*(?:(?:[-*_]{3,}|#+|[->*+•])\s*)?")
_CONCLUDING = regex(r"\b(?:so|thus|therefore|hence|then|and|finally|conclusion|means|get)\b", re.IGNORECASE)
_OPENING_MARKS = regex(r"[($*]+\s*$|(?:(?<=\n)|\A)[ \t]*[#>*_-]+[ \t]*$")
_CLOSING_MARKS = regex(r"(?:[)$*.]|\s)+")
# Behind a box nothing but the end of its line or sentence.
_ENDS_HERE = regex(r"[)$*\s]*(?:\Z|\n|[.!?](?:\s|\Z))")
# Words with which nothing is said beyond the answer and the question.
_LITTLE_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and answer answers are be best by can choice correct could did do does false final for had has have he "
        "hence here i in is it left let me must no not now of option result right s see she so solution step sure than "
        "that the then there therefore they think this thus to total true us was we were will would yes",
    )
)


def rationale_prompt(question: Question, *, shots: int, gold_shown: bool = False) -> str:
    """The prompt after which a model without chat template writes its rationale.

    Without shots it is the question and a line break, the very text that the student learns to continue. With
    `gold_shown` every question, worked examples included, carries the line with its correct answer.
    """
    if shots == 0:
        return (f"{hint(question)}\n" if gold_shown else "") + f"{question.text}\n"
    blocks = [f"Q: {asked}\nA: {answered}" for asked, answered in _worked(question, shots, gold_shown)]
    return "\n\n".join([*blocks, f"Q: {_asked(question, gold_shown)}\nA:"])


def rationale_messages(question: Question, *, shots: int, gold_shown: bool = False) -> list[dict[str, str]]:
    """The same as a conversation, for models with a chat template: worked examples are earlier turns."""
    return conversation(_INSTRUCTION, _worked(question, shots, gold_shown), _asked(question, gold_shown))


def conversation(instruction: str, worked: Iterable[tuple[str, str]], asked: str) -> list[dict[str, str]]:
    """Messages in which worked examples, each what is asked and what is answered, are earlier turns."""
    turns = zip(cycle(("user", "assistant")), (*chain.from_iterable(worked), asked), strict=False)
    return [{"role": "system", "content": instruction}, *({"role": role, "content": text} for role, text in turns)]


def hint(question: Question) -> str:
    """The line that shows a teacher the gold answer: "(The correct answer is 42.)"."""
    return f"(The correct answer is {predict_target(question).removesuffix('.')}.)"


def prompts_version() -> str:
    """Hash over everything that this module can render, which covers templates and worked examples alike.

    One for all data sets: a changed example of any list asks for new rationales of every set.
    """
    texts: list[object] = [STOP_STRINGS, predict_prompt("…"), explain_prompt("…")]
    kinds = [(worked[0], len(worked)) for worked in map(worked_examples, get_args(AnswerKind))]
    sets = [(replace(own[0], benchmark=name), len(own)) for name in names() if (own := worked_examples(name))]
    for question, every in [*kinds, *sets]:
        for gold_shown in (False, True):
            texts += [rationale_prompt(question, shots=shots, gold_shown=gold_shown) for shots in (0, every)]
            texts.append(rationale_messages(question, shots=every, gold_shown=gold_shown))
    return hashlib.sha256(json.dumps(texts, ensure_ascii=False).encode()).hexdigest()


def predict_prompt(text: str) -> str:
    """What precedes the student's bare answer."""
    return f"predict: {text}\n"


def explain_prompt(text: str) -> str:
    """What precedes the student's rationale."""
    return f"explain: {text}\n"


def predict_target(question: Question) -> str:
    """What the student learns to answer at once: "42", "(B) populated areas", "yes"."""
    if question.answer is None:
        raise DataError(
            f"{question.dataset}: question {question.id!r} has no gold answer, so nothing can be learned from it"
        )
    return _written(question, question.answer)


def answer_sentence(question: Question, answer: str) -> str:
    """The sentence in which every rationale ends: "The answer is 42.", "The answer is (B) populated areas."."""
    return f"The answer is {_written(question, answer).removesuffix('.')}."


def finish_rationale(output: str, question: Question, answer: str) -> str:
    """Clean what a model wrote and end it in exactly one `answer_sentence`.

    Taken out are further questions that the model asked itself, a copied line with the gold answer, and every clause
    that only states an answer ("So the final answer is 42.", "#### 42", "Answer: (B)"); a clause with a reason in it
    stays. An output that is nothing but an answer leaves the sentence alone. Finishing twice changes nothing.
    """
    finished = _finished(output, question, answer)
    for _ in range(MOST_ROUNDS):  # what stood in the midst of an output may state something once it is the end
        if finished == output:
            break
        output, finished = finished, _finished(finished, question, answer)
    return finished


def _finished(output: str, question: Question, answer: str) -> str:
    """An output cleaned once, with the sentence at its end."""
    sentence = answer_sentence(question, answer)
    text = re.sub(r"(?<=[.!?])(?=\$?\\boxed)", " ", plain_text(_ANSWER_LABEL.sub("", _HINT.sub("", output))))
    text = _unboxed(text, question)
    for letter in letters_of(question.choices):
        text = text.replace(answer_sentence(question, letter), "The answer is.")
    while (fewer := _without_bare_statements(text, sentence, question, answer)) != text:
        text = fewer
    text = re.sub(r"[ \t]*\n\s*", "\n", _ANSWER_LABEL.sub("", BOXED.sub(r"\1", text))).strip()
    text = _without_last_line(_without_rules_at_end(text), question, answer)
    return sentence if _says_no_more(text, question, answer) else f"{_closed(text)} {sentence}"


def _without_last_line(text: str, question: Question, answer: str) -> str:
    """A text without a last line that is the answer and nothing else."""
    before, _, last = text.rpartition("\n")
    if not before or question.answer_kind == "text" or not _is_bare(last, question):
        return text
    found = parse_answer(last, question)
    same = found is not None and same_answer(found, answer, question.answer_kind)
    return _without_rules_at_end(before) if same else text


def _without_rules_at_end(text: str) -> str:
    """A text without last lines that are empty, a rule or the marks of a heading."""
    lines = text.split("\n")
    while lines and _RULE.fullmatch(lines[-1]):
        lines.pop()
    return "\n".join(lines).rstrip()


def _says_no_more(text: str, question: Question, answer: str) -> bool:
    """Whether a text is made of the answer, the question's words and little ones: "42", "(B)", "So Tom has 42 figs".

    A number other than the answer is something more. Where the answer stands in the question, its words are, too: to
    pick them out is to reason.
    """
    stem = question.text.partition(CHOICES_HEADING)[0]
    if question.answer_kind in ("number", "numbers"):
        said, asked = (words_as_digits(plain_numbers(each)) for each in (text, stem))
        values = {number_text(value) for _, value in numbers_in_digits(asked)}
        gold = set(re.split(r"[;:]\s*", answer))
        words = _words(re.sub(r"[0-9]+", " ", said))
        if {number_text(value) for _, value in numbers_in_digits(said)} - gold:
            return False
        return _is_bare(text, question) or words <= _LITTLE_WORDS | (set() if values & gold else _words(asked))
    gold = _words(_written(question, answer))
    if _CALCULATES.search(text):
        return False
    return _words(text) <= _LITTLE_WORDS | gold | _words(stem)


def _words(text: str) -> set[str]:
    return set(re.findall(r"[^\W_]+", text.casefold()))


def _unboxed(text: str, question: Question) -> str:
    """The text without boxes that are part of a sentence: a 42 in a box stays in its place if it is one of figs."""
    for statement in reversed(list(statements(text, question))):
        if text.startswith("\\boxed", statement.start):
            before = text[: _clause_start(text, statement)].rstrip(" ")
            alone = not before or before[-1] in ".!?:\n"
            if not (alone and _ENDS_HERE.match(text, statement.end)):
                before, after = text[: statement.start], text[statement.end :]
                if before.endswith("$") and after.startswith("$"):
                    before, after = before[:-1], after[1:]
                text = before + statement.text + after
    return text


def _written(question: Question, answer: str) -> str:
    return choice_text(question, answer) if question.answer_kind == "choice" else answer


def _asked(question: Question, gold_shown: bool) -> str:
    return f"{question.text}\n{hint(question)}" if gold_shown else question.text


def worked_rationale(exemplar: Question) -> str:
    """The rationale of a worked example with the sentence that states its answer."""
    return f"{exemplar.reference} {answer_sentence(exemplar, exemplar.answer or '')}"


def _worked(question: Question, shots: int, gold_shown: bool) -> Iterator[tuple[str, str]]:
    """What is asked in each worked example, and what is answered."""
    own = worked_examples(question.benchmark) if question.benchmark else ()
    available = own or worked_examples(question.answer_kind)
    if shots > len(available):
        of = question.benchmark if own else f"{question.answer_kind} questions such as those of {question.dataset}"
        raise ConfigError(f"rationales.shots: there are {len(available)} worked examples for {of}, found {shots}")
    return ((_asked(worked, gold_shown), worked_rationale(worked)) for worked in available[:shots])


def _without_bare_statements(text: str, sentence: str, question: Question, answer: str) -> str:
    """A text without the clauses that state an answer and nothing else, and without the closing sentence itself."""
    border, listed = len(text), list(statements(text, question))
    for earlier, listed_one in reversed(list(zip([None, *listed], listed, strict=False))):
        statement = _as_far_as(border, listed_one, text, question)
        if _is_bare_statement(text, statement, question, answer):
            start = _clause_start(text, statement)
            follows = earlier is not None and not text[earlier.end : start].strip() and _is_bare(earlier.text, question)
            if follows or _stands_alone(text, start, statement):
                ending = _CLOSING_MARKS.match(text, statement.end)
                text, border = _without(text, (start, ending.end() if ending else statement.end)), start
    bare = sentence.removesuffix(".")
    if bare in text:
        no_decimal = r"(?!\d)" if bare[-1].isdigit() else ""  # "42." is not found in "42.5"
        literal = re.compile(rf"{re.escape(bare)}(?:\.{no_decimal}|\s*\Z)")
        while found := literal.search(text):
            text = _without(text, found.span())
    return text


def _as_far_as(border: int, statement: Statement, text: str, question: Question) -> Statement:
    """A statement with all of a choice such as "B. cellar", and without what led to another, behind the `border`."""
    line = statement.line
    letter = question.answer_kind == "choice" and len(statement.text) < min(len(line), 8)
    if letter and canonical_answer(line.rstrip(".,; "), "choice", question.choices):
        return replace(statement, text=line, end=max(statement.end, statement.answer_start + len(line)))
    if statement.end <= border:
        return statement
    return replace(statement, text=text[statement.answer_start : border].strip(), end=border)


def _is_bare_statement(text: str, statement: Statement, question: Question, answer: str) -> bool:
    """Whether a statement is an answer and nothing else.

    What is said of a part ("the answer for Monday is 4"), of what the answer must be, as a result ("Final: 90 minutes")
    or the other way round ("42 is the answer") is so only where it is the answer that counts; for a part that is the
    last one of a text.
    """
    if not _is_bare(statement.text, question) and not _is_bare(without_adverbs(statement.text), question):
        return False
    if statement.behind and not _ENDS_BEHIND.search(text[statement.start : statement.end]):
        return False
    if statement.part or statement.weak or statement.behind or _RESULT.match(text, statement.start):
        found = parse_answer(f"The answer is {statement.text.rstrip('.')}.", question)
        last = not re.search(r"\w", text[statement.end :]) or not statement.part
        return last and found is not None and same_answer(found, answer, question.answer_kind)
    return True


def _stands_alone(text: str, start: int, statement: Statement) -> bool:
    """Whether the clause that begins at `start` is none of a sentence that says something else."""
    before = text[:start].rstrip()
    if not before or "\n" in text[len(before) : start] or not re.search(r"\w", statement.text):
        return True
    return (
        before[-1] in '.!?:;,)]"”’。！？'
        or "(" in text[len(before) : statement.start]
        or _CONCLUDING.search(text[start : statement.start]) is not None
    )


def _clause_start(text: str, statement: Statement) -> int:
    """Where the words begin that only lead up to the statement."""
    nearest = max(0, statement.start - _LONGEST_LEAD)
    lead = _OPENING_MARKS.sub("", text[nearest : statement.start])
    return nearest + len(_OPENING_MARKS.sub("", _LEAD.sub("", lead)))


def _is_bare(stated: str, question: Question) -> bool:
    """Whether the words of a statement are an answer without anything else but a unit."""
    if not re.search(r"\w", stated):
        return True
    match question.answer_kind:
        case "number":
            return "=" not in stated and re.fullmatch(r"[\W\d]*\d[\W\d]*(?:[^\W\d]+[^\w]*){0,3}", stated) is not None
        case "numbers":
            lead, *units = re.split(r"\d+(?:[.,:/]\d+)*", stated)
            return (
                bool(units) and not re.search(r"\w", lead) and all(len(re.findall(r"\w+", unit)) <= 3 for unit in units)
            )
        case "choice":
            without_letter = re.sub(r"^\W*[A-Za-z]\)?(?:\W+|$)", "", stated)
            return not without_letter or any(
                canonical_answer(words.rstrip(",; "), "choice", question.choices) for words in (stated, without_letter)
            )
        case "boolean":
            return re.fullmatch(r"\W*(?:yes|no|true|false)\W*", stated, re.IGNORECASE) is not None
        case _:
            return canonical_answer(stated, "text") == question.answer


def _without(text: str, span: tuple[int, int]) -> str:
    """The text without a clause; the sentences around it stay apart."""
    before, after = text[: span[0]], text[span[1] :]
    border = "\n" if "\n" in before[len(before.rstrip()) :] + text[span[0] : span[1]] else " "
    return (_closed(before.rstrip()) + border + after.lstrip()) if before.strip(" ,;\n") else after.lstrip()


def _closed(text: str) -> str:
    """The text with a full stop if its last sentence has no ending, so that the next one is a step of its own."""
    whole = text.rstrip()
    while (shorter := whole.rstrip(",;([*\\").rstrip()) != whole:
        whole = shorter
    return whole if re.search(r"(?:[.!?][)\]\"'”’]+|[^\w)\]%$€£\"'”’])$", whole[-20:]) else f"{whole}."
