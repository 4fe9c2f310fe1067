"""Questions from the data sets' own files, from the Hugging Face hub, from users' files, or made up.

Enters: a `DataSource`. Leaves: a list of `Question` records, the same whether a set comes from a file or from the hub.
A reader of a data set is one function from a row to a question; where rows come from is settled before it is called.
`read_rationales` reads rationales that someone else's teacher wrote.

A file that is not there is a ConfigError; a line that cannot be read is a DataError that names file and line.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from data.answers import (
    canonical_answer,
    canonical_choice,
    letters_of,
    parse_answer,
    plain_text,
    same_answer,
    statements,
    with_choices,
)
from data.errors import ConfigError, DataError
from data.numbers import LONGEST_NUMBER
from data.prompts import answer_sentence
from data.records import AnswerKind, Benchmark, Question
from data.rows.xml_records import BadXml, xml_records
from data.sets.synthetic import synthetic_questions
from data.settings import DataSource

# The usual place of each set on the hub; after a colon the name of a configuration. SingleEq and AddSub have none: what
# lies there under these names is mixed with other sets, split anew, or loaded by a script.
HUB_IDS = {
    "svamp": "ChilleD/SVAMP",
    "gsm8k": "openai/gsm8k:main",
    "asdiv": "EleutherAI/asdiv",
    "multiarith": "ChilleD/MultiArith",
    "aqua": "deepmind/aqua_rat:raw",
    "commonsenseqa": "tau/commonsense_qa",
    "strategyqa": "ChilleD/StrategyQA",
}
# "Answer: E", "The answer is (D).", "correct option is C" or a bare letter, as the last words of a rationale.
_LETTER_AT_END = re.compile(
    r"(?:^|(?<=[\s.,]))(?:(?:so|hence|thus|therefore)?,?\s*(?:the\s+)?(?:correct\s+|final\s+|right\s+)*"
    r"(?:answer|option|choice|ans)\b[^\w\n(]*(?:choice\b|option\b|is\b)*\W*)?\(?\b[A-E]\)?\W*$",
    re.IGNORECASE,
)
_HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")
_Reader: TypeAlias = Callable[[Path], Iterator[tuple[int, dict[str, object]]]]
_CALCULATION = re.compile(r"<<[^>]*>>")
_SPACE, _SEPARATOR = re.compile(r"\s*"), re.compile(r"\s*(?:,\s*(?!\])|(?=\]))")
_STATED_ANSWERS = ("answer", "palm_label", "palm_value")
_LITTLE_WORDS = frozenset({"a", "an", "and", "at", "by", "for", "from", "in", "of", "on", "or", "the", "to", "with"})


@dataclass(frozen=True, kw_only=True)
class Row:
    """One record of a file or hub data set, not yet understood."""

    where: str
    """File and line, or data set and row number, for messages."""
    name: str
    """What the question is called where it has no identifier of its own."""
    dataset: str
    """Which data set the question counts to."""
    fields: Mapping[str, object]

    def text(self, *names: str) -> str:
        """The first of these fields that is there, as text that is not empty."""
        value = self.optional(*names)
        if not isinstance(value, str) or not value.strip():
            raise self.error(f"expected text in the field {' or '.join(map(repr, names))}, found {value!r}")
        return value.strip()

    def optional(self, *names: str) -> object:
        """The first of these fields that is there and not empty, else None."""
        return next((self.fields[name] for name in names if self.fields.get(name) not in (None, "")), None)

    def identifier(self, *names: str) -> str:
        """The row's own identifier, else its name."""
        value = self.optional(*names)
        return self.name if value is None else str(value)

    def error(self, what: str) -> DataError:
        """A DataError that says where this row stands."""
        return DataError(f"{self.where}: {what}")


def read_questions(source: DataSource) -> list[Question]:
    """The questions that a source names, after `skip` and up to `limit`.

    Raises ConfigError for a source that cannot be used and DataError for a row that cannot be read.
    """
    if source.name == "synthetic":
        return _synthetic(source)
    questions = _with_different_ids(_questions(source))
    stop = None if source.limit is None else source.skip + source.limit
    chosen = list(islice(questions, source.skip, stop))
    if not chosen:
        left = f"no question is left in {_place(source)} after skip: {source.skip}"
        raise ConfigError(f"data {source.name}: {left if source.skip else f'{_place(source)} holds no question'}")
    return chosen


def read_rationales(path: str, questions: Sequence[Question]) -> dict[str, str]:
    """Existing rationales for these questions, by question id, from JSON Lines.

    A row holds `id` (or `ID`, `question_id`), `rationale` (or `palm_rationale`) and, if the answer is not in the text,
    `answer` (or `palm_label`, `palm_value`). An answer that the text does not give is added as the sentence that states
    it, so that the parser judges what that teacher really answered. Rows of other questions are left out, and so are
    rows whose rationale or answer is null: that teacher gave none.
    """
    wanted = {question.id: question for question in questions}
    found: dict[str, str] = {}
    for row in _local_rows(Path(path), dataset="rationales", setting="rationales.path"):
        identifier = row.optional("id", "ID", "question_id")
        if identifier is None:
            raise row.error(f"expected a field 'id', 'ID' or 'question_id', found {_names(row.fields)}")
        if not {"rationale", "palm_rationale"} & row.fields.keys():
            raise row.error(f"expected a field 'rationale' or 'palm_rationale', found {_names(row.fields)}")
        question = wanted.get(str(identifier))
        rationale = row.optional("rationale", "palm_rationale")
        answers = [row.fields[name] for name in _STATED_ANSWERS if name in row.fields]
        if question is None or rationale is None or None in answers:
            continue
        if question.id in found:
            raise row.error(f"a second rationale for question {question.id!r}")
        if any(canonical_answer(answer, "text") is None for answer in answers if answer != ""):
            raise row.error(f"expected an answer, found {answers[0]!r}")
        text = row.text("rationale", "palm_rationale")
        found[question.id] = _with_answer(text, question, next(iter(answers), None))
    return found


def _with_answer(rationale: str, question: Question, stated: object) -> str:
    """The rationale, with the teacher's answer at its end unless it is read from the text anyway."""
    if stated is None:
        return rationale
    kind = question.answer_kind
    answer = canonical_choice(str(stated), question) if kind == "choice" else canonical_answer(stated, kind)
    if answer is None:
        return f"{rationale} The answer is {str(stated).strip().removesuffix('.')}."
    return rationale if _states(rationale, question, answer) else f"{rationale} {answer_sentence(question, answer)}"


def _states(rationale: str, question: Question, answer: str) -> bool:
    """Whether a rationale says outright that this is the answer."""
    found = parse_answer(rationale, question) if any(statements(plain_text(rationale))) else None
    return found is not None and same_answer(found, answer, question.answer_kind)


def _synthetic(source: DataSource) -> list[Question]:
    if source.limit is None:
        raise ConfigError("data synthetic: expected limit, the number of questions to make up, found none")
    if source.path is not None or source.hub is not None:
        raise ConfigError("data synthetic: path and hub mean nothing here, leave them out")
    return synthetic_questions(source.skip + source.limit, seed=source.seed, split=source.split)[source.skip :]


def _questions(source: DataSource) -> Iterator[tuple[Row, Question]]:
    if source.name in ("jsonl", "csv"):
        rows = list(_rows(source))
        kind = _kind(rows)
        return ((row, _own_question(row, kind)) for row in rows)
    read = _READERS[source.name]
    return ((row, read(row)) for row in _rows(source))


def _with_different_ids(questions: Iterable[tuple[Row, Question]]) -> Iterator[Question]:
    """Every question, as long as no two of the source have the same id."""
    places: dict[str, str] = {}
    for row, question in questions:
        if question.id in places:
            raise row.error(f"the id {question.id!r} is taken by {places[question.id]}")
        places[question.id] = row.where
        yield question


def _place(source: DataSource) -> str:
    return source.path or f"{source.hub or HUB_IDS.get(source.name, '')} ({source.split})"


def _rows(source: DataSource) -> Iterator[Row]:
    """The rows of a source, from its file or from the hub."""
    if source.path is not None:
        dataset = Path(source.path).stem if source.name in ("jsonl", "csv") else source.name
        usual = _csv_rows if source.name == "csv" else _json_lines
        return _local_rows(Path(source.path), dataset=dataset, setting=f"data {source.name}: path", usual=usual)
    if source.name in ("jsonl", "csv"):
        raise ConfigError(f"data {source.name}: expected path, the file with the questions, found none")
    return _hub_rows(source)


def _local_rows(path: Path, *, dataset: str, setting: str, usual: _Reader | None = None) -> Iterator[Row]:
    """Rows of a JSON Lines, JSON, CSV or XML file, by the end of its name; `usual` reads files of any other name."""
    try:
        there = path.is_file()
    except OSError as error:
        raise ConfigError(f"{setting}: {path}: {error.strerror}") from error
    if not there:
        raise ConfigError(f"{setting}: {path} is {'a folder, no file' if path.is_dir() else 'not there'}")
    readers = {".csv": _csv_rows, ".json": _json_rows, ".jsonl": _json_lines, ".xml": _xml_rows}
    for line, fields in readers.get(path.suffix.lower(), usual or _json_lines)(path):
        name = f"{dataset}-{path.stem}-{line}" if dataset != path.stem else f"{dataset}-{line}"
        yield Row(where=f"{path}:{line}", name=name, dataset=dataset, fields=fields)


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            yield number, _json_object(line, path, number)


def _json_object(line: str, path: Path, number: int) -> dict[str, object]:
    found, end = _decoded(line, _after_space(line, 0), path, number)
    end = _after_space(line, end)
    if end < len(line):
        raise DataError(f"{path}:{number}: no JSON: Extra data (column {end + 1})")
    return _fields(found, path, number)


def _decoded(text: str, position: int, path: Path, first_line: int = 1) -> tuple[object, int]:
    """The JSON value that begins here, and where it ends; `first_line` is the number of the text's first line."""
    try:
        return _JSON.raw_decode(text, position)
    except json.JSONDecodeError as error:
        where, what = first_line + error.lineno - 1, f"{error.msg} (column {error.colno})"
    except _TooLongError as error:
        where, what = first_line + text.count("\n", 0, position), str(error)
    except RecursionError:
        where, what = first_line + text.count("\n", 0, position), "brackets within brackets without end"
    raise DataError(f"{path}:{where}: no JSON: {what}")


class _TooLongError(Exception):
    """A number that is none."""


def _whole_number(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:
        raise _TooLongError(f"a number of {len(digits):,} digits")
    return int(digits)


_JSON = json.JSONDecoder(parse_int=_whole_number)


def _fields(found: object, path: Path, number: int) -> dict[str, object]:
    if not isinstance(found, dict):
        raise DataError(f"{path}:{number}: expected one JSON object, found {type(found).__name__}")
    if _HALF_A_CHARACTER.search(json.dumps(found, ensure_ascii=False)):
        raise DataError(f"{path}:{number}: no text: half of a character, \\ud800 to \\udfff without its other half")
    return found


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """Objects of a JSON array, each with the line on which it begins; a file of JSON Lines may also end in .json."""
    text = _text(path)
    opening = _after_space(text, 0)
    if not text.startswith("[", opening):
        yield from _json_lines(path)
        return
    number, counted = 1, 0
    position = _after_space(text, opening + 1)
    while not text.startswith("]", position):
        number, counted = number + text.count("\n", counted, position), position
        found, position = _decoded(text, position, path)
        yield number, _fields(found, path, number)
        separator = _SEPARATOR.match(text, position)
        if not separator:
            raise DataError(f"{path}:{number}: no JSON: expected a comma or ] after the object that begins here")
        position = separator.end()
    end = _after_space(text, position + 1)
    if end < len(text):
        raise DataError(f"{path}:{text.count(chr(10), 0, end) + 1}: no JSON: something follows the array")


def _after_space(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    assert found  # it matches no space as well
    return found.end()


def _xml_rows(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """The elements `Problem` of an XML file with their attributes and children's text, each with its first line."""
    try:
        yield from xml_records(_text(path), "Problem")
    except BadXml as error:
        raise DataError(f"{path}:{error.line}: {error}") from error


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """Rows of a CSV file with a line of column names; each has the number of its last line."""
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        columns = list(reader.fieldnames or ())
        if twice := [name for place, name in enumerate(columns) if name in columns[:place]]:
            raise DataError(f"{path}:1: two columns are named {twice[0]!r}")
        for fields in reader:
            if None in fields or None in fields.values():
                raise DataError(f"{path}:{reader.line_num}: expected {len(reader.fieldnames or ())} columns")
            yield reader.line_num, dict(fields)
    except csv.Error as error:
        raise DataError(f"{path}:{reader.reader.line_num}: no CSV: {error}") from error


def _text(path: Path) -> str:
    """A file's text, whatever line ends it has; bytes that are not UTF-8 are reported with their line."""
    content = path.read_bytes()
    if content.startswith(b"\x1f\x8b"):
        raise DataError(f"{path}: expected text, found a file that gzip has compressed; unpack it first")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: expected UTF-8, found the byte {content[error.start]:#04x}") from error


def _hub_rows(source: DataSource) -> Iterator[Row]:
    """Rows of a data set on the hub, or of a local folder in the hub's layout."""
    identifier = source.hub or HUB_IDS.get(source.name)
    if identifier is None:
        raise ConfigError(
            f"data {source.name}: expected path, found none; the hub holds no dependable copy of this set, so name the "
            "file that its authors publish, or a copy in hub: if you trust one"
        )
    hub_id, _, configuration = (identifier, "", "") if Path(identifier).exists() else identifier.partition(":")
    loaded = _load(hub_id, configuration or None, source)
    for number, fields in enumerate(loaded, start=1):
        name = f"{source.name}-{source.split}-{number}"
        where = f"{identifier} ({source.split}), row {number}"
        yield Row(where=where, name=name, dataset=source.name, fields=fields)


def _load(hub_id: str, configuration: str | None, source: DataSource) -> Iterable[Mapping[str, object]]:
    import datasets  # takes a second, and files need none of it

    try:
        loaded: Iterable[Mapping[str, object]] = datasets.load_dataset(
            hub_id, configuration, split=source.split, revision=source.revision
        )
    # The library reports an unreachable hub, an unknown id, revision, configuration or split by any of these.
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(f"{error} {error.__cause__ or ''}".split()) or type(error).__name__
        raise ConfigError(
            f"data {source.name}: {hub_id} ({source.split}) could not be loaded from the hub: {reason[:300]}; "
            f"give the file with path: if there is no network"
        ) from error
    return loaded


def _svamp(row: Row) -> Question:
    """SVAMP: a body, which often lacks its final period, and a question; the answer is a number."""
    body = row.text("Body")
    return Question(
        id=row.identifier("ID", "id"),
        dataset=row.dataset,
        text=f"{body if body[-1] in '.!?' else body + '.'} {row.text('Question')}",
        answer=_gold(row, row.optional("Answer"), "number"),
        answer_kind="number",
        benchmark="svamp",
    )


def _gsm8k(row: Row) -> Question:
    """GSM8K: the answer field is a worked solution, then a line "#### 42"; its <<calculations>> are left out."""
    solution = row.optional("answer")
    reference, mark, answer = str(solution or "").rpartition("####")
    if solution is not None and not mark:
        raise row.error("expected a line '#### number' at the end of 'answer', found none")
    return Question(
        id=row.identifier("id"),
        dataset=row.dataset,
        text=row.text("question"),
        answer=_gold(row, answer if mark else None, "number"),
        answer_kind="number",
        reference=_CALCULATION.sub("", reference).strip() or None,
        benchmark="gsm8k",
    )


def _asdiv(row: Row) -> Question:
    """ASDiv: a body, which may run on into the question, and an answer with its unit in brackets.

    Most answers are one number, "9 (apples)". Some are several, "8 (ft); 128 (sq. ft)", or a ratio, "9:7"; those to
    "which" and "who" are names, "Mrs. Hilt".
    """
    body, raw = row.optional("Body", "body"), row.optional("Answer", "answer")
    kind = "number" if raw is None else _asdiv_kind(str(raw))
    answer = None if raw is None else canonical_answer(_without_unit(str(raw)) if kind != "numbers" else raw, kind)
    if raw is not None and answer is None:
        raise row.error(f"expected an answer, found {raw!r}")
    return Question(
        id=row.identifier("ID", "id"),
        dataset=row.dataset,
        text=f"{_running_on(str(body or '').strip())}{row.text('Question', 'question')}",
        answer=answer,
        answer_kind=kind,
        benchmark="asdiv",
    )


def _asdiv_kind(raw: str) -> AnswerKind:
    bare = _without_unit(raw)
    kinds: tuple[AnswerKind, ...] = ("number", "boolean")
    single = next((kind for kind in kinds if canonical_answer(bare, kind) is not None), None)
    return single or ("numbers" if canonical_answer(raw, "numbers") is not None else "text")


def _without_unit(raw: str) -> str:
    """An answer without what stands in brackets behind it, unless there is nothing else."""
    return re.sub(r"\s*\([^()]*\)\s*$", "", raw) or raw


def _running_on(body: str) -> str:
    return "" if not body else f"{body} " if body[-1] in ".!?,;:" else f"{body}. "


def _singleeq(row: Row) -> Question:
    """SingleEq: one equation with one unknown; whole numbers and decimals."""
    return _solved(row, "singleeq")


def _multiarith(row: Row) -> Question:
    """MultiArith: two steps with whole numbers; on the hub `question` and `final_ans`."""
    return _solved(row, "multiarith")


def _addsub(row: Row) -> Question:
    """AddSub: additions and subtractions, some with a number too many."""
    return _solved(row, "addsub")


def _solved(row: Row, benchmark: Benchmark) -> Question:
    """The common form of these three: `sQuestion` and `lSolutions`, a list of one number."""
    return Question(
        id=row.identifier("iIndex", "id"),
        dataset=row.dataset,
        text=row.text("sQuestion", "question"),
        answer=_gold(row, _solution(row), "number"),
        answer_kind="number",
        benchmark=benchmark,
    )


def _solution(row: Row) -> object:
    """The one solution, None where there is none."""
    solutions = row.optional("lSolutions", "final_ans", "answer")
    if not isinstance(solutions, list):
        return solutions
    if len(solutions) > 1:
        raise row.error(f"expected one number in 'lSolutions', found {solutions!r}")
    return next(iter(solutions), None)


def _aqua(row: Row) -> Question:
    """AQuA: options that carry their letters, "A)21", and a rationale that ends by naming one of them."""
    choices = _options(row)
    rationale = _LETTER_AT_END.sub("", str(row.optional("rationale") or "").strip())
    return Question(
        id=row.identifier("id"),
        dataset=row.dataset,
        text=with_choices(row.text("question"), choices),
        answer=_gold(row, row.optional("correct"), "choice", choices),
        answer_kind="choice",
        choices=choices,
        keywords=tuple(choice for choice in choices if choice),
        reference=rationale.strip() or None,
        benchmark="aqua",
    )


def _options(row: Row) -> tuple[str, ...]:
    """The options in order, each without its own letter in front."""
    listed = row.optional("options")
    if not isinstance(listed, list) or not 2 <= len(listed) <= 26 or not all(isinstance(each, str) for each in listed):
        raise row.error(f"expected 2 to 26 options, found {listed!r}")
    return tuple(
        re.sub(rf"^\s*\(?{letter}\s*\)", "", each).strip()
        for letter, each in zip(letters_of(listed), listed, strict=True)
    )


def _commonsenseqa(row: Row) -> Question:
    """CommonsenseQA: published nested below `question` with a list of choices, on the hub flat with two lists."""
    nested = row.optional("question")
    inner = Row(where=row.where, name=row.name, dataset=row.dataset, fields=nested) if isinstance(nested, dict) else row
    stem, concept = inner.text("stem", "question"), inner.text("question_concept")
    choices = _listed_choices(inner)
    return Question(
        id=row.identifier("id"),
        dataset=row.dataset,
        text=with_choices(stem, choices),
        answer=_gold(row, row.optional("answerKey"), "choice", choices),
        answer_kind="choice",
        choices=choices,
        keywords=(concept, *choices),
        benchmark="commonsenseqa",
    )


def _listed_choices(row: Row) -> tuple[str, ...]:
    """Texts of the choices from `[{label, text}, …]` or `{label: […], text: […]}`, whose labels run A, B, C, …."""
    listed = row.optional("choices")
    if isinstance(listed, dict):
        labels, texts = listed.get("label"), listed.get("text")
    elif isinstance(listed, list) and all(isinstance(choice, dict) for choice in listed):
        labels, texts = ([choice.get(key) for choice in listed] for key in ("label", "text"))
    else:
        raise row.error(f"expected choices with 'label' and 'text', found {listed!r}")
    if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise row.error(f"expected a text for every choice, found {texts!r}")
    if len(texts) < 2 or labels != list(letters_of(texts)):
        raise row.error(f"expected choices labelled A, B, C, …, found {labels!r}")
    return tuple(text.strip() for text in texts)


def _strategyqa(row: Row) -> Question:
    """StrategyQA: yes or no; its facts (a list, or one text on the hub) are the reference, its term the keywords."""
    facts = row.optional("facts")
    sentences = [facts] if isinstance(facts, str) else facts if isinstance(facts, list) else []
    return Question(
        id=row.identifier("qid", "id"),
        dataset=row.dataset,
        text=row.text("question"),
        answer=_gold(row, row.optional("answer"), "boolean"),
        answer_kind="boolean",
        keywords=_term_words(str(row.optional("term") or "")),
        reference=" ".join(_sentence(str(fact)) for fact in sentences if str(fact).strip()) or None,
        benchmark="strategyqa",
    )


def _term_words(term: str) -> tuple[str, ...]:
    """A term as a whole, then its words without those that stand in every sentence."""
    words = [word for word in re.findall(r"[\w'’]+", term) if word.lower() not in _LITTLE_WORDS]
    return tuple(dict.fromkeys([term.strip(), *words])) if words else ()


def _sentence(fact: str) -> str:
    words = " ".join(fact.split())
    return words if words[-1] in ".!?" else f"{words}."


def _gold(row: Row, raw: object, kind: AnswerKind, choices: Sequence[str] = ()) -> str | None:
    """The canonical gold answer, None where the row has no label."""
    if raw is None:
        return None
    answer = canonical_answer(raw, kind, choices)
    if answer is None:
        raise row.error(f"expected an answer of the kind {kind}, found {raw!r}")
    return answer


_READERS: Mapping[str, Callable[[Row], Question]] = {
    "svamp": _svamp,
    "gsm8k": _gsm8k,
    "asdiv": _asdiv,
    "singleeq": _singleeq,
    "multiarith": _multiarith,
    "addsub": _addsub,
    "aqua": _aqua,
    "commonsenseqa": _commonsenseqa,
    "strategyqa": _strategyqa,
}


def _own_question(row: Row, kind: AnswerKind) -> Question:
    """A row of a user's file: question, answer, and if wanted id and choices."""
    choices = _own_choices(row)
    text, raw = row.text("question"), row.optional("answer")
    answer = _gold(row, raw, "choice" if choices else kind, choices)
    named = [letter for letter, choice in zip(letters_of(choices), choices, strict=True) if choice == str(raw).strip()]
    if named and answer not in named:
        raise row.error(f"the answer {raw!r} is the letter of one choice and the text of another")
    return Question(
        id=row.identifier("id"),
        dataset=row.dataset,
        text=with_choices(text, choices) if choices else text,
        answer=answer,
        answer_kind="choice" if choices else kind,
        choices=choices,
        keywords=choices,
    )


def _own_choices(row: Row) -> tuple[str, ...]:
    """Choices as a list, or in one text separated by |."""
    listed = row.optional("choices")
    if listed is None:
        return ()
    choices = listed.split("|") if isinstance(listed, str) else listed
    if (
        not isinstance(choices, list)
        or not 2 <= len(choices) <= 26
        or not all(isinstance(choice, str | int | float) and str(choice).strip() for choice in choices)
    ):
        raise row.error(f"expected 2 to 26 choices, as a list or separated by |, found {listed!r}")
    return tuple(str(choice).strip() for choice in choices)


def _kind(rows: Sequence[Row]) -> AnswerKind:
    """What all answers of questions without choices have in common: numbers, yes or no, or no more than being text."""
    answers = [row.optional("answer") for row in rows if row.optional("choices") is None]
    labels = [answer for answer in answers if answer is not None]
    kinds: tuple[AnswerKind, ...] = ("number", "boolean")
    fitting = (kind for kind in kinds if labels and all(canonical_answer(label, kind) is not None for label in labels))
    return next(fitting, "text")


def _names(fields: Mapping[str, object]) -> str:
    return ", ".join(fields) or "none"
