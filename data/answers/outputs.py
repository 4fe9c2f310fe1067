r"""What a model writes around its answer: thoughts, markup, formulas and further turns, all of which leave here.

Enters: an output, or a label or choice that may hold LaTeX. Leaves: plain text, in which "\frac{3}{4}" is 3/4, "**42**"
is 42, and nothing is left of what a reasoning model wrote for itself, whatever marks it by: <think>, <thought>,
<reasoning>, [THINK], ◁think▷, <|START_THINKING|>, or the channels of harmony, with their special tokens or without.
"""

import re

from data.patterns import regex

BOXED = regex(r"\\boxed\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")

_TAGS = r"(?:\w+:)?(?:think(?:ing)?|thoughts?|reasoning)"
_OPENING = (
    rf"<{_TAGS}>|\[THINK\]|◁think▷|<\|START_THINKING\|>|<\|begin_of_thought\|>|<\|channel\|>(?:analysis|commentary)\b"
    r"|<\|channel>thought\b|\A\s*(?-i:analysis(?=[A-Z0-9\"'(]))|\A\s*Here(?:'s|\s+is)\s+my\s+thought\s+process:"
)
_CLOSING = (
    rf"</{_TAGS}>|\[/THINK\]|◁/think▷|<\|END_THINKING\|>|<\|end_of_thought\|>|<\|channel\|>final(?:\s*<\|message\|>)?"
    r"|<channel\|>|assistantfinal"
)
# A template may have opened a thought, and a text may end in the midst of one.
_THOUGHT = regex(
    rf"\A.*(?:{_CLOSING})|\A\s*Here(?:'s|\s+is)\s+my\s+thought\s+process:.*\bHere(?:'s|\s+is)\s+my\s+response:"
    rf"|(?:{_OPENING}).*\Z",
    re.DOTALL | re.IGNORECASE,
)
_MAY_BE_MARKED = regex(r"[<◁]|\[[Tt]|assistantfinal|\A\s*(?:analysis|Here)")
"""What every mark of a thought begins with; most outputs hold none."""
_SPECIAL_TOKEN = regex(r"<\|[A-Za-z_]{2,24}\|>|</?response>|</?s>")
_TAGGED_ANSWER = regex(r"<answer>\s*(.*?)\s*(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)

# Bold type opens at the border of a word and ends on its line; the stars of 3**2 and x**2 are powers.
_BOLD = regex(r"(?<![\w)\]}*])\*\*(?=[^\s*])([^\n]{0,400}?[^\s*])\*\*(?!\*)")
_BOLD_WITHOUT_END = regex(r"^(\s*(?:[-*#>]\s+)*)\*\*(?=[^\s*])|(?<=[^\s\w*])\*\*(?=\s|$)", re.MULTILINE)
_UNDERLINED = regex(r"(?<!\w)(_{1,3})(?=[^\s_])([^_\n]*[^\s_])\1(?!\w)")
_DISPLAYED = regex(r"\$\$((?:[^$\\]|\\.)*)\$\$", re.DOTALL)
_INLINE = regex(r"\s*\$((?:[^$\\]|\\.)+)\$\s*")
_DIGITS = r"-?[0-9][0-9,]*(?:\.[0-9]+)?"
_FRACTION = regex(rf"\\[dtc]?frac\s*(?:\{{\s*({_DIGITS})\s*\}}\s*\{{\s*({_DIGITS})\s*\}}|([0-9])\s*([0-9]))")
_TEXT = regex(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_UNIT = regex(r"(?<=[0-9}])\s*(?:\\[,; ])?\s*\\(?:text|mathrm|mbox)\s*\{[^{}0-9]*\}(?=\s*\$?\s*\Z)")
"""A unit behind a label in LaTeX, which says itself that it is none of the number."""
_SIGNS = {
    **{"\\$": "$", "\\%": "%", "{,}": ",", "\\times": "×", "\\cdot": "·", "\\div": "÷", "\\approx": "≈", "\\left": ""},
    **{"\\right": "", "\\colon": ":", "^{\\circ}": "°", "^\\circ": "°", "\\degree": "°", "\\dots": "…", "\\ldots": "…"},
}
_SIGN = regex("|".join(f"{re.escape(sign)}{'(?![a-z])' if sign[-1].isalpha() else ''}" for sign in _SIGNS))

_BLANKS = regex(r"\s{20,}")
"""Long stretches of nothing, which say no more than short ones; in an output that is not long they do no harm."""
_LONG = 2000
_NEXT_QUESTION = regex(r"\n\s*Q:")
# What a model that does not stop writes before it asks itself something new, in the manner of some corpus.
_NEXT_TURN = regex(
    r"\n\s*(?:#+\s*)?(?:question|problem|exercise|example|instruction|input|user|human)\s*[0-9]*\s*:"
    r"|\n#+\s*(?:question|problem|exercise|example|instruction)\s*[0-9]*\s*\n|(?<=[.!?)])\s+Q:\s",
    re.IGNORECASE,
)
_ANSWERED = regex(r"\banswers?\b[^\n.]{0,140}?(?:\b(?:is|are|be)\b|[:=])|\bans\.?\s*[:=]|####|\\boxed\b", re.IGNORECASE)
_ZEROS = (0x0660, 0x06F0, 0x0966, 0x09E6, 0x0E50, 0x0ED0, 0x1040, 0x17E0)
"""The zeros of scripts with digits of their own: Arabic, Persian, Devanagari, Bengali, Thai, Lao, Burmese, Khmer."""
_PLAIN_SIGNS = str.maketrans(
    {
        **{chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},
        **{chr(zero + digit): str(digit) for zero in _ZEROS for digit in range(10)},
        "\u3000": " ",
        "｡": "。",
    }
)
_ROOT = regex(r"\\sqrt\s*(?:\{\s*([0-9]+|[a-zA-Z])\s*\}|\{([^{}]*)\}|([0-9]))")


def without_thoughts(output: str) -> str:
    """An output without what a reasoning model writes for itself, and without special tokens."""
    return _SPECIAL_TOKEN.sub("", _THOUGHT.sub("", output)) if _MAY_BE_MARKED.search(output) else output


def plain_text(output: str) -> str:
    """An output without thoughts, bold type and what sets formulas, up to where it asks itself something else."""
    if len(output) > _LONG:
        output = _BLANKS.sub(lambda found: "\n\n" if "\n" in found[0] else " ", output)
    text = _NEXT_QUESTION.split(without_thoughts(output), maxsplit=1)[0]
    text = _BOLD_WITHOUT_END.sub(r"\1", _BOLD.sub(r"\1", text)) if "**" in text else text
    text = re.sub(r"~~[^~\n]*~~", "", text) if "~~" in text else text
    text = plain_formulas(_DISPLAYED.sub(r"\1", _UNDERLINED.sub(r"\2", text)))
    return _until_next_turn(_TAGGED_ANSWER.sub(r"\n#### \1\n", text))


def unwrapped(label: str) -> str:
    r"""A label without what sets it: of "$x + 1$" x + 1, of "\boxed{\text{Oslo}}" Oslo."""
    return _TEXT.sub(r"\1", _unboxed(label)).strip() if "$" in label or "\\" in label else label.strip()


def plain_label(label: str) -> str:
    r"""A label or choice without LaTeX: of "$\frac{3}{4}$" 3/4, of "6\text{ cm}" 6, of "\sqrt{2}" √2."""
    text = unwrapped(_UNIT.sub("", _unboxed(label)) if "\\" in label else label)
    return in_plain_signs(plain_formulas(text)).strip()


def plain_formulas(text: str) -> str:
    """A text in which fractions, words and signs of formulas are written as outside of them; other LaTeX stays."""
    if "\\" not in text and "{,}" not in text:
        return text
    text = re.sub(r"\\[()\[\]]", "", text)
    text = _SIGN.sub(lambda found: _SIGNS[found[0]], re.sub(r"(?<=[0-9])\\[,!;:](?=[0-9]{3})", ",", text))
    return _FRACTION.sub(_plain_fraction, _TEXT.sub(r"\1", re.sub(r"\\[,!;: ]", " ", text)))


def in_plain_signs(text: str) -> str:
    r"""A text for reading, in which "（Ｂ）", "４２", "๔๒", "\sqrt{2}" and "\pi" are (B), 42, 42, √2 and π."""
    if "\\" in text:
        text = re.sub(r"\\pi(?![a-z])", "π", _ROOT.sub(_plain_root, text))
    return text if text.isascii() else text.translate(_PLAIN_SIGNS)


def _unboxed(label: str) -> str:
    inline = _INLINE.fullmatch(label)
    text = inline[1].strip() if inline else label.strip()
    boxed = BOXED.fullmatch(text)
    return boxed[1] if boxed else text


def _plain_root(found: re.Match[str]) -> str:
    return f"√({found[2]})" if found[2] is not None else f"√{found[1] or found[3]}"


def _plain_fraction(found: re.Match[str]) -> str:
    """3/4, apart from a whole number right before it, and in brackets as a divisor or in a power."""
    before, after = found.string[: found.start()].rstrip()[-1:], found.string[found.end() :].lstrip()[:1]
    upper, lower = (found[1] or found[3]).replace(",", ""), (found[2] or found[4]).replace(",", "")
    if before in ("÷", "/", "^") or after == "^":
        return f"({upper}/{lower})"
    follows_number = found.start() > 0 and found.string[found.start() - 1].isdigit()
    return f"{' ' if follows_number else ''}{upper}/{lower}"


def _until_next_turn(text: str) -> str:
    """A text up to where it asks itself something new after it has answered; a question at its head is repeated."""
    answered = _ANSWERED.search(text)
    following = _NEXT_TURN.search(text, answered.end()) if answered else None
    return text[: following.start()] if following else text
