"""Made-up arithmetic word problems with one number too many, and exact rationales for them.

Enters: a count, a seed and the name of a split. Leaves: questions with answers and reference rationales, for the demo
and the tests. Words come from short closed lists, so that a tiny model with a tokenizer of whole words can learn the
task, and every problem holds a distractor: a price, an age, a distance or a temperature. Facts stand in any order, so
that a student has to find out which numbers matter:

    Eva has 2 books. The books cost 7 dollars. Tom has 3 books. How many more books does Tom have than Eva?
    Tom has 3 books. Eva has 2 books so 3 - 2 = 1.

The same arguments give the same questions on every machine and Python version (only `random.Random.random` is drawn
from, whose sequence is promised not to change). A longer list begins with the shorter one.
"""

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from typing import Literal, TypeVar

from data.dataset import DataSet, Placed
from data.errors import ConfigError
from data.records import Question
from data.rows.row import Refuse
from data.settings import DataSource

T = TypeVar("T")
Role = Literal["start", "change", "distractor"]

NAMES = ("Tom", "Ann", "Ben", "Mia", "Sam", "Eva")
THINGS = ("apples", "pens", "books", "cards", "coins", "shells")
EVENTS = (
    ("{partner} gives {person} {number} {thing}", 1),
    ("{person} finds {number} {thing}", 1),
    ("{person} sells {number} {thing}", -1),
    ("{person} loses {number} {thing}", -1),
)
DISTRACTORS = (
    "The {thing} cost {number} dollars",
    "{person} is {number} years old",
    "{person} walks {number} miles",
    "It is {number} degrees outside",
)
SMALLEST, LARGEST = 2, 10
# Which residues of a question's hash modulo 10 belong to which split: no text is in two splits, whatever the seeds.
SPLITS = {"test": (0, 1), "dev": (2,), "train": (3, 4, 5, 6, 7, 8, 9)}


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One sentence of a problem; `amount` counts towards the answer, with its sign, unless the role is `distractor`."""

    sentence: str
    amount: int
    role: Role


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Facts in the order in which the question tells them, and what is asked."""

    facts: tuple[Fact, ...]
    asked: str

    @property
    def text(self) -> str:
        """The question as it is read."""
        return " ".join([*(f"{fact.sentence}." for fact in self.facts), self.asked])

    @property
    def relevant(self) -> list[Fact]:
        """The facts that matter: what there is at the start, then the changes as they are told."""
        matter = [fact for fact in self.facts if fact.role != "distractor"]
        return sorted(matter, key=lambda fact: fact.role != "start")

    @property
    def answer(self) -> int:
        """The number asked for."""
        return sum(fact.amount for fact in self.relevant)


@dataclass(frozen=True, kw_only=True)
class _Cast:
    """Who and what a problem is about."""

    person: str
    partner: str
    thing: str


def synthetic_questions(count: int, *, seed: int, split: str) -> list[Question]:
    """The first `count` different questions of this seed that belong to `split` (train, dev or test)."""
    return [_question(problem) for problem in synthetic_problems(count, seed=seed, split=split)]


def synthetic_problems(count: int, *, seed: int, split: str) -> list[Problem]:
    """The same as facts, for whoever needs to know which numbers matter."""
    if split not in SPLITS:
        raise ConfigError(f"split of synthetic: expected one of {', '.join(SPLITS)}, found {split!r}")
    return list(islice(_different(seed, SPLITS[split]), count))


def _different(seed: int, residues: tuple[int, ...]) -> Iterator[Problem]:
    source = random.Random(int(hashlib.sha256(f"synthetic {seed}".encode()).hexdigest(), 16))
    seen: set[str] = set()
    while True:
        problem = _draw(source)
        if int(_digest(problem.text), 16) % 10 in residues and problem.text not in seen:
            seen.add(problem.text)
            yield problem


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _question(problem: Problem) -> Question:
    return Question(
        id=f"synthetic-{_digest(problem.text)[:16]}",
        dataset="synthetic",
        text=problem.text,
        answer=str(problem.answer),
        answer_kind="number",
        reference=_rationale(problem.relevant),
    )


def _rationale(facts: Sequence[Fact]) -> str:
    """Retell the facts that matter, from the second one on with the running result: "… so 3 + 4 = 7."."""
    total = facts[0].amount
    sentences = [f"{facts[0].sentence}."]
    for fact in facts[1:]:
        sign = "+" if fact.amount >= 0 else "-"
        sentences.append(f"{fact.sentence} so {total} {sign} {abs(fact.amount)} = {total + fact.amount}.")
        total += fact.amount
    return " ".join(sentences)


def _draw(source: random.Random) -> Problem:
    """One problem; draws whose result or running result would be negative are thrown away."""
    make = _pick(source, _KINDS)
    while True:
        problem = make(source, _cast(source))
        start, *others = problem.relevant
        if start.amount + sum(min(fact.amount, 0) for fact in others) >= 0:
            return problem


def _changes(source: random.Random, cast: _Cast) -> Problem:
    """Someone has something, and one or two different things happen to it."""
    start = _fact("{person} starts with {number} {thing}", cast, _number(source), role="start")
    events = _shuffled(source, EVENTS)[: _pick(source, (1, 2))]
    changes = [_fact(event, cast, _number(source), sign=sign) for event, sign in events]
    return _problem(source, cast, [start, *changes], "How many {thing} does {person} have now?")


def _holdings(source: random.Random, cast: _Cast, *, asked: str, sign: int) -> Problem:
    """What two people have, put together or, with `sign` -1, compared."""
    first = _fact("{person} has {number} {thing}", cast, _number(source), role="start")
    second = _fact("{partner} has {number} {thing}", cast, _number(source), sign=sign)
    return _problem(source, cast, [first, second], asked)


_KINDS: tuple[Callable[[random.Random, _Cast], Problem], ...] = (
    _changes,
    _changes,  # as often as the two others
    partial(_holdings, asked="How many more {thing} does {person} have than {partner}?", sign=-1),
    partial(_holdings, asked="How many {thing} do {person} and {partner} have together?", sign=1),
)


def _fact(sentence: str, cast: _Cast, number: int, *, sign: int = 1, role: Role = "change") -> Fact:
    return Fact(sentence=sentence.format(number=number, **asdict(cast)), amount=sign * number, role=role)


def _problem(source: random.Random, cast: _Cast, facts: Sequence[Fact], asked: str) -> Problem:
    """Add a distractor, whose number is none of those that matter, and put all facts in any order."""
    used = {abs(fact.amount) for fact in facts}
    number = _pick(source, [n for n in range(SMALLEST, LARGEST + 1) if n not in used])
    useless = _fact(_pick(source, DISTRACTORS), cast, number, role="distractor")
    return Problem(facts=tuple(_shuffled(source, [*facts, useless])), asked=asked.format(**asdict(cast)))


def _cast(source: random.Random) -> _Cast:
    person, partner = _shuffled(source, NAMES)[:2]
    return _Cast(person=person, partner=partner, thing=_pick(source, THINGS))


def _number(source: random.Random) -> int:
    return _pick(source, range(SMALLEST, LARGEST + 1))


def _pick(source: random.Random, options: Sequence[T]) -> T:
    """One of the options; `Random.choice` may draw differently in another Python version, this does not."""
    return options[int(source.random() * len(options))]


def _shuffled(source: random.Random, items: Sequence[T]) -> list[T]:
    """The items in a random order (Fisher and Yates)."""
    order = list(items)
    for last in range(len(order) - 1, 0, -1):
        other = int(source.random() * (last + 1))
        order[last], order[other] = order[other], order[last]
    return order


def _from_source(source: DataSource, _: Refuse) -> Iterator[Placed]:
    """The first questions of a seed, as many as there are to be skipped and taken."""
    if source.limit is None:
        raise ConfigError("data synthetic: expected limit, the number of questions to make up, found none")
    if source.path is not None or source.hub is not None or source.kind is not None:
        raise ConfigError("data synthetic: path and hub mean nothing here, nor does kind; leave them out")
    made = synthetic_questions(source.skip + source.limit, seed=source.seed, split=source.split)
    return ((f"synthetic ({source.split}), question {number}", each) for number, each in enumerate(made, start=1))


SET = DataSet(questions=_from_source)
