r"""AQuA-RAT: algebra with five options and a written rationale (arXiv 1705.04146).

Lines of this form:

    {"question": "A jar of 20 nuts loses 15%. How many are left?",
     "options": ["A)3", "B)5", "C)15", "D)17", "E)None of these"],
     "rationale": "15% of 20 is 3.\n20 - 3 = 17.\nAnswer: D", "correct": "D"}
"""

import re

from data.answers.choices import letters_of, with_choices
from data.dataset import published
from data.patterns import regex
from data.records import Question
from data.rows.row import Row

# "Answer: E", "The answer is (D).", "correct option is C" or a bare letter, as the last words of a rationale.
_LETTER_AT_END = regex(
    r"(?:^|(?<=[\s.,]))(?:(?:so|hence|thus|therefore)?,?\s*(?:the\s+)?(?:correct\s+|final\s+|right\s+)*"
    r"(?:answer|option|choice|ans)\b[^\w\n(]*(?:choice\b|option\b|is\b)*\W*)?\(?\b[A-E]\)?\W*$",
    re.IGNORECASE,
)


def read(row: Row) -> Question:
    """Options lose their letters, and the rationale the end that names one of them."""
    choices = _options(row)
    rationale = _LETTER_AT_END.sub("", str(row.optional("rationale") or "").strip())
    return row.question(
        text=with_choices(row.text("question"), choices),
        answer=row.optional("correct"),
        kind="choice",
        choices=choices,
        keywords=[choice for choice in choices if choice],
        reference=rationale.strip() or None,
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


SET = published(hub="deepmind/aqua_rat:raw", read=read)
