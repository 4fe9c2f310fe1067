#!/usr/bin/env bash
# pysbd 0.3.4: the wheel installs three top-level packages, of which two are called "benchmarks" and "examples".
#
# Behaviour: beside pysbd, `benchmarks` and `examples` of its repository become packages of the environment. A project
# that keeps folders of these names without installing them, as many do, finds its own only while its root comes before
# site-packages on the path: with `python -P`, or from another folder, `import benchmarks` is pysbd's, and a missing
# module there is the first that one hears of it.
#
# Source: top_level.txt of the wheel.
#
# Output seen:
#   top level: benchmarks, examples, pysbd
#   import benchmarks from elsewhere: pysbd's
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check pysbd==0.3.4 2>/dev/null
cd "$place"
"$place/venv/bin/python" - > "$place/seen" <<'PYTHON'
import sys
from importlib.metadata import distribution
from pathlib import Path

names = (distribution("pysbd").read_text("top_level.txt") or "").split()
print("top level:", ", ".join(sorted(names)))
sys.path = [entry for entry in sys.path if entry]
import benchmarks  # noqa: E402

import pysbd  # noqa: E402

(folder,) = {Path(entry) for entry in benchmarks.__path__}
print("import benchmarks from elsewhere:", "pysbd's" if folder.parent == Path(pysbd.__file__).parents[1] else folder)
PYTHON
cat "$place/seen"
diff "$place/seen" - <<'EXPECTED'
top level: benchmarks, examples, pysbd
import benchmarks from elsewhere: pysbd's
EXPECTED
echo "as described"
