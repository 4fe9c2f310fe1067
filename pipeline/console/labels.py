"""Text of data sets as a label: whatever a question holds enters, one line that is safe to show leaves.

Questions come with `$`, backslashes, line breaks, and sometimes with characters that a terminal or an SVG reader would
act on. Control characters become a mark; nothing else is changed, and whoever draws it switches markup off.
"""

MARK = "\N{REPLACEMENT CHARACTER}"
MINUS = "\N{MINUS SIGN}"


def one_line(text: str, limit: int | None = None) -> str:
    """`text` in one line, shortened to `limit` characters with an ellipsis."""
    line = " ".join("".join(letter if letter.isprintable() or letter.isspace() else MARK for letter in text).split())
    return line if limit is None or len(line) <= limit else line[: max(limit - 1, 0)] + "…"


def step_label(number: int) -> str:
    """The number of a step, with a minus sign that is as wide as a digit."""
    return f"{MINUS}{-number}" if number < 0 else str(number)
