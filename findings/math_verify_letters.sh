#!/usr/bin/env bash
# math-verify 0.9.0: extraction of letters passes over letters in brackets and takes the article of the next sentence.
#
# Behaviour: with StringExtractionConfig, its way to read multiple-choice answers, `parse` finds a letter only where it
# stands bare. "(B)", "B)" and \boxed{B} give nothing. A sentence behind that begins with the article "A" is then taken
# for the answer: "The answer is (C). A car stands there." is A. Whoever scores benchmarks of choices by it counts most
# answers of chat models as missing, and some as another letter.
#
# Source: math_verify/parser.py of that version, lazy_string_regex: before a letter has to stand white space or two stars,
# behind it a full stop, a comma, a colon or white space. The strings are A to D by default.
#
# Output seen:
#   'The answer is B.': ['b', 'B']
#   'The answer is (B).': []
#   'B) a saw': []
#   '\\boxed{B}': []
#   'The answer is (C). A car stands there.': ['a', 'A']
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$place/packages" math-verify==0.9.0 \
    latex2sympy2-extended==1.11.0 antlr4-python3-runtime==4.13.2 2>/dev/null
PYTHONPATH="$place/packages" python3 - > "$place/seen" <<'PYTHON'
from math_verify import StringExtractionConfig, parse

for text in (
    "The answer is B.",
    "The answer is (B).",
    "B) a saw",
    "\\boxed{B}",
    "The answer is (C). A car stands there.",
):
    print(f"{text!r}: {parse(text, [StringExtractionConfig()])}")
PYTHON
cat "$place/seen"
diff "$place/seen" - <<'EXPECTED'
'The answer is B.': ['b', 'B']
'The answer is (B).': []
'B) a saw': []
'\\boxed{B}': []
'The answer is (C). A car stands there.': ['a', 'A']
EXPECTED
echo "as described"
