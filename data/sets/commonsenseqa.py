"""CommonsenseQA: everyday questions with five choices (arXiv 1811.00937).

    {"answerKey": "B", "id": "61fe6e879ff18686d7552425a36344c8", "question": {"question_concept": "people", "choices":
     [{"label": "A", "text": "race track"}, {"label": "B", "text": "populated areas"}, {"label": "C", "text": "the
     desert"}, {"label": "D", "text": "apartment"}, {"label": "E", "text": "roadblock"}], "stem": "Sammy wanted to go to
     where the people were.  Where might he go?"}}

On the hub it is flat, and choices are two lists: {"label": ["A", …], "text": ["race track", …]}.
"""

from data.answers.choices import letters_of, with_choices
from data.dataset import published
from data.records import Question
from data.rows.row import Row


def read(row: Row) -> Question:
    """The key words are the concept and the choices."""
    nested = row.optional("question")
    inner = Row(where=row.where, name=row.name, dataset=row.dataset, fields=nested) if isinstance(nested, dict) else row
    stem, concept = inner.text("stem", "question"), inner.text("question_concept")
    choices = _listed_choices(inner)
    return row.question(
        text=with_choices(stem, choices),
        answer=row.optional("answerKey"),
        kind="choice",
        choices=choices,
        keywords=(concept, *choices),
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


SET = published(hub="tau/commonsense_qa", read=read)
