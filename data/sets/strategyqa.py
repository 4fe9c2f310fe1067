"""StrategyQA: yes or no, by facts that the question does not name (arXiv 2101.02235).

One JSON array of such rows:

    {"qid": "2bc9c4f9c19c167187f2", "term": "Genghis Khan", "description": "founder and first Great Khan of the Mongol
     Empire", "question": "Are more people today related to Genghis Khan than Julius Caesar?", "answer": true, "facts":
     ["Julius Caesar had three children.", "Genghis Khan had sixteen children.", "Modern geneticists have determined
     that  out of every 200 men today has DNA that can be traced to Genghis Khan."], "decomposition": […],
     "evidence": […]}

On the hub the facts are one text.
"""

import re

from data.dataset import published
from data.records import Question
from data.rows.row import Row

_LITTLE_WORDS = frozenset({"a", "an", "and", "at", "by", "for", "from", "in", "of", "on", "or", "the", "to", "with"})


def read(row: Row) -> Question:
    """The facts are the reference, the term and its words the key words."""
    facts = row.optional("facts")
    sentences = [facts] if isinstance(facts, str) else facts if isinstance(facts, list) else []
    return row.question(
        id_fields=("qid", "id"),
        text=row.text("question"),
        answer=row.optional("answer"),
        kind="boolean",
        keywords=_term_words(str(row.optional("term") or "")),
        reference=" ".join(_sentence(str(fact)) for fact in sentences if str(fact).strip()) or None,
    )


def _term_words(term: str) -> tuple[str, ...]:
    """A term as a whole, then its words without those that stand in every sentence."""
    words = [word for word in re.findall(r"[\w'’]+", term) if word.lower() not in _LITTLE_WORDS]
    return tuple(dict.fromkeys([term.strip(), *words])) if words else ()


def _sentence(fact: str) -> str:
    words = " ".join(fact.split())
    return words if words[-1] in ".!?" else f"{words}."


SET = published(hub="ChilleD/StrategyQA", read=read)
