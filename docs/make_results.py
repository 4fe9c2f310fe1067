"""Write the tables of docs/results.md anew from the runs that they show.

    python -P docs/make_results.py --runs study/runs

In: run folders. Out: between `<!-- molsaki compare … -->` and `<!-- end -->` what that very command prints for them.
A table whose runs are not in the folder stays as it is, and is named.
"""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

RESULTS = Path(__file__).with_name("results.md")
TABLE = re.compile(r"<!-- molsaki (compare [^>]*?) -->\n.*?<!-- end -->", re.DOTALL)


def main() -> None:
    """Replace each table by the output of its command."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--runs", type=Path, default=Path("runs"), help="folder that the runs lie in")
    runs = options.parse_args().runs
    RESULTS.write_text(
        TABLE.sub(lambda found: table(found, runs), RESULTS.read_text(encoding="utf-8")), encoding="utf-8"
    )


def table(found: re.Match[str], runs: Path) -> str:
    """The comment with what its command prints now."""
    arguments = shlex.split(found[1])
    if not (runs / arguments[1]).is_dir():
        sys.stderr.write(f"left as it is, for {runs / arguments[1]} is not there: {found[1]}\n")
        return found[0]
    command = [sys.executable, "-P", "-m", "pipeline", *arguments, "--runs", str(runs)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603  our own program
    return f"<!-- molsaki {found[1]} -->\n\n{done.stdout.strip()}\n\n<!-- end -->"


if __name__ == "__main__":
    main()
