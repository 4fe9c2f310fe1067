r"""Calculations that stand for their result: "(84 / 2)", "2^{10}", "√16", "5 × (2 + 3)", "\frac{2^{3}}{4}".

Enters: text. Leaves: the exact value, where all of it can be told. Arithmetic is parsed by Python's own grammar, LaTeX
by latex2sympy2-extended; neither is evaluated by them, but here, in fractions and within bounds.
"""

import ast
import logging
import re
from fractions import Fraction
from math import isqrt
from typing import TYPE_CHECKING

from data.patterns import regex

if TYPE_CHECKING:
    from sympy import Basic

LONGEST = 160
"""More characters than this are no calculation that states an answer."""
_MOST_BITS = 400
_LARGEST_EXPONENT = 100
_FORMULA = regex(r"[\\^√π]|[-+*/=]|[0-9][a-z]")
# What is compared as a formula: variables, low powers, few roots and brackets, and no function, sum or integral.
_TAME = regex(
    r"(?!(?:[^(]*\(){7})(?!(?:[^√s]*(?:√|\\s)){4})(?!.*[0-9]{10})(?:[-+*/.,()\[\]{}\s0-9√π=<>≤≥]"
    r"|\^(?:[0-9](?![0-9.])|\{-?[0-9]\})(?!\s*\^)|(?<![a-zA-Z\\])(?!ln)[a-zA-Z]{1,2}(?![a-zA-Z])"
    r"|\\(?:[dt]?frac|sqrt|pi|cdot|times|left|right|leq?|geq?)(?![a-zA-Z])){1,80}"
)
_HIGHEST_DEGREE = 12
_POWERS = regex(r"\^\{?-?([0-9])")
_RELATION = regex(r"(<=|>=|[=<>≤≥]|\\[lg]eq?(?![a-z]))")
_RELATIONS = {"<=": "≤", "\\le": "≤", "\\leq": "≤", ">=": "≥", "\\ge": "≥", "\\geq": "≥"}
_NAMED_VALUE = regex(r"\s*[a-zA-Z](?:\([a-zA-Z]\))?\s*=(?=[^=<>]*\Z)")
_ROOTED = regex(r"√(?:\(([^()]*)\)|([0-9]+|[a-zA-Z]))")
_NUMBER = regex(r"(?<![\w.])[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?(?![\w,])|[0-9]+(?:\.[0-9]+)?|\.[0-9]+")
_SIGNS = str.maketrans(
    {"×": "*", "·": "*", "∙": "*", "÷": "/", "−": "-", "–": "-", "{": "(", "}": ")", "[": "(", "]": ")"}
)
_TIMES = regex(r"(?<=[0-9)])\s*[xX]\s*(?=[0-9(])")
# What a calculation may be written with; it begins with a number or a bracket and ends with one.
_WRITTEN = regex(
    r"[-−–+(\[{$€£√\s]*(?:[0-9.]|\\[a-z]+)"
    r"(?:(?!(?<=[0-9)])\s+\()(?:[\s0-9.,+*/^×·∙÷−–√$€£%()\[\]{}-]|[xX](?=\s*[0-9(])|\\(?:d?frac|sqrt)))*"
)
_OPERATION = regex(r"[-+*/^×·∙÷−–xX√\\](?=.)", re.DOTALL)
# Dates and numbers of telephones, and ranges: "10-12", of which the second is larger.
_NO_CALCULATION = regex(r"[0-9]+(?:/[0-9]+){2,}|[0-9]+(?:[-–][0-9]+){2,}|[0-9.]+/[0-9.]+/")
_RANGE = regex(r"\s*[$€£]?([0-9][0-9,.]*)\s*[-–−]\s*[$€£]?([0-9][0-9,.]*)\s*")


def leading_calculation(text: str) -> tuple[Fraction, int] | None:
    """The value of the calculation with which a text begins, and where it ends; None where there is none.

    A number alone is no calculation, nor is a range ("10-12"), a date, or one that divides by zero.
    """
    written = _WRITTEN.match(text[: LONGEST + 1])
    if written is None or not _OPERATION.search(written.group().lstrip("-−–+$€£ ")):
        return None
    whole = written.group()
    for end in range(len(whole), 0, -1):  # a full stop, a dash or a bracket may follow it
        piece = whole[:end]
        if piece[-1].isspace() or piece[-1] in ".,+*/^×·∙÷−–-$€£%({[":
            continue
        value = calculated(piece)
        return None if value is None else (value, end)
    return None


def calculated(text: str) -> Fraction | None:
    """The value of a calculation that is all of a text, or None."""
    bare = text.strip()
    span = _RANGE.fullmatch(bare)
    if len(bare) > LONGEST or _NO_CALCULATION.search(bare) or (span and _float(span[1]) < _float(span[2])):
        return None
    bare = re.sub(r"[$€£%]", "", bare)
    return _of_latex(bare) if "\\" in bare else _of_arithmetic(bare)


def _float(digits: str) -> float:
    return float(digits.replace(",", "").rstrip(".").partition("..")[0] or 0) if digits.count(".") < 2 else 0.0


def _of_arithmetic(text: str) -> Fraction | None:
    """Numbers leave for names, so that they stay exact and Python's rules of how to write one do not matter."""
    numbers: list[Fraction] = []

    def named(found: re.Match[str]) -> str:
        numbers.append(Fraction(found.group().replace(",", "")))
        return f" n{len(numbers) - 1} "

    plain = _TIMES.sub("*", text.translate(_SIGNS)).replace("**", "^")
    plain = re.sub(r"(?<=[0-9)])(?=[(√])|(?<=\))(?=[0-9])", "*", plain)
    plain = re.sub(r"√\s*([0-9.]+|\([^()]*\))", r"(\1^(1/2))", plain)
    if re.search(r"[^0-9.,+*/^()\s-]|//", plain):
        return None
    try:
        tree = ast.parse(_NUMBER.sub(named, plain).replace("^", "**").strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return _value(tree.body, numbers)


def _value(node: ast.expr, numbers: list[Fraction]) -> Fraction | None:
    match node:
        case ast.Name(id=name):
            return numbers[int(name[1:])]
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            inner = _value(operand, numbers)
            return inner if inner is None or isinstance(sign, ast.UAdd) else -inner
        case ast.BinOp(left=left, op=operator, right=right):
            first, second = _value(left, numbers), _value(right, numbers)
            return None if first is None or second is None else _operated(type(operator).__name__, first, second)
    return None


def _operated(operator: str, first: Fraction, second: Fraction) -> Fraction | None:
    match operator:
        case "Add":
            return _bounded(first + second)
        case "Sub":
            return _bounded(first - second)
        case "Mult":
            return _bounded(first * second)
        case "Div":
            return _bounded(first / second) if second else None
        case "Pow":
            return _power(first, second)
    return None


def _bounded(value: Fraction) -> Fraction | None:
    return value if max(value.numerator.bit_length(), value.denominator.bit_length()) <= _MOST_BITS else None


def _power(base: Fraction, exponent: Fraction) -> Fraction | None:
    """A power with a whole exponent, or the exact square root of one."""
    if exponent.denominator == 2:
        root = _root(base)
        return None if root is None else _power(root, Fraction(exponent.numerator))
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if exponent.denominator != 1 or abs(exponent) > _LARGEST_EXPONENT or size * abs(exponent) > 4 * _MOST_BITS:
        return None
    return None if not base and exponent < 0 else _bounded(base ** int(exponent))


def _root(value: Fraction) -> Fraction | None:
    if value < 0:
        return None
    root = Fraction(isqrt(value.numerator), isqrt(value.denominator))
    return root if root * root == value else None


def _of_latex(text: str) -> Fraction | None:
    """The value of arithmetic in LaTeX; its tree comes unevaluated, so that no power is larger than it looks."""
    from latex2sympy2_extended import latex2sympy  # a third of a second, for the few texts with LaTeX

    try:
        tree = latex2sympy(text.replace("×", "\\times ").replace("·", "\\cdot ").replace("÷", "\\div "))
    except Exception:  # it raises nothing narrower for a text that its grammar does not know, which is no calculation
        return None
    return _of_tree(tree)


def _of_tree(tree: "Basic") -> Fraction | None:
    if tree.is_number and not tree.args:
        return Fraction(str(tree)) if re.fullmatch(r"-?[0-9]+(?:[./][0-9]+)?", str(tree)) else None
    values = [_of_tree(part) for part in tree.args]
    if not values or None in values:
        return None
    names = {"Add": "Add", "Mul": "Mult", "Pow": "Pow"}
    operator, value = names.get(type(tree).__name__, ""), values[0]
    for part in values[1:]:
        value = None if value is None or part is None else _operated(operator, value, part)
    return value


def same_formula(answer: str, gold: str) -> bool:
    """Whether two formulas mean the same, "2√3" and "√12", "x + 1" and "1 + x", as math-verify sees it.

    Only what is short and without tall powers is looked at, so that comparing takes no longer than a moment. Equations
    and inequalities are the same where both sides are; a name with its value ("x = 3") is the same as the value.
    """
    if not all(_is_formula(each) for each in (answer, gold)):
        return False
    sides = [_RELATION.split(each) for each in (answer, gold)]
    if len(sides[0]) != len(sides[1]):
        sides = [_RELATION.split(_NAMED_VALUE.sub("", each)) for each in (answer, gold)]
    signs = [[_RELATIONS.get(sign, sign) for sign in each[1::2]] for each in sides]
    return signs[0] == signs[1] and all(map(_same_term, sides[0][::2], sides[1][::2]))


def _is_formula(text: str) -> bool:
    """Whether a text is a formula that is compared in a moment; "10-12", which may be a range or a score, is none."""
    degree = sum(int(power) for power in _POWERS.findall(text[:LONGEST]))
    return (
        _FORMULA.search(text) is not None
        and _TAME.fullmatch(text) is not None
        and degree <= _HIGHEST_DEGREE
        and not _RANGE.fullmatch(text)
        and not _NO_CALCULATION.search(text)
    )


def _same_term(answer: str, gold: str) -> bool:
    if answer.split() == gold.split():
        return True
    from math_verify import LatexExtractionConfig, parse, verify  # half a second, for the few answers that are formulas

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that it is given no limit of time
    read = [parse(_in_latex(each), [LatexExtractionConfig()], parsing_timeout=None) for each in (gold, answer)]
    return bool(all(read) and verify(*read, timeout_seconds=None))


def _in_latex(formula: str) -> str:
    rooted = _ROOTED.sub(lambda found: f"\\sqrt{{{found[1] or found[2]}}}", formula)
    return f"${rooted}$".replace("π", "\\pi ")
