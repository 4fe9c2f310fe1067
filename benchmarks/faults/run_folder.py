"""What `molsaki rationales` reads: questions and a section of a configuration enter, a folder to run in leaves."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

CONFIGURATION = """\
name: made-up
store: {store}
data: {{train: [{{name: svamp, path: train.jsonl}}]}}
teacher: {{model: ./teacher}}
rationales: {rationales}
student: {{model: ./teacher}}
"""


def write_run_folder(folder: Path, store: Path, rationales: str, questions: Iterable[Mapping[str, object]]) -> None:
    """Write `run.yaml`, the questions (rows of SVAMP), and a teacher that nobody loads."""
    (folder / "teacher").mkdir(parents=True)
    for name, content in (("config.json", "{}"), ("model.safetensors", "made up"), ("tokenizer.json", "{}")):
        (folder / "teacher" / name).write_text(content)
    write_lines(folder / "train.jsonl", questions)
    (folder / "run.yaml").write_text(CONFIGURATION.format(store=store, rationales=rationales))


def write_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
