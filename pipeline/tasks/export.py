"""`molsaki export-task`: the test of a run as a task folder of lm-evaluation-harness.

In: the folder of a run with a finished student. Out: a folder by which anybody gets our numbers without our code; its
README says how, what they are, and where they cannot be equal. That is not guessed: the expressions of the tasks judge
what the run's students wrote, and wherever the verdict is not ours it is counted.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cache.durable import make_folder, replace_file
from data.errors import ConfigError, MissingRecordsError
from data.records import Question
from pipeline.config.load import load_config
from pipeline.config.schema import Config
from pipeline.console.exits import folder_of
from pipeline.results.folder import RunFolder
from pipeline.results.predictions import read_predictions
from pipeline.results.scores import accuracies_by_seed, points_of
from pipeline.results.scores import folder_of as folder_of_run
from pipeline.run.inputs import Inputs
from pipeline.tasks.answers import accepted, rule_of
from pipeline.tasks.lm_eval import VERSION, Asking, TaskFile, tag_of, task_files, tasks_of
from stages.evaluation import PROMPTS
from stages.models.asked import AskedStudent
from stages.settings import Task
from stages.student.objective import objective_of

MARK = "Written by `molsaki export-task`"
"""How a folder is known for one of these, in its README."""
README = "README.md"
OURS = ("*.yaml", "*.jsonl", "questions.py", README)
"""What such a folder holds; an earlier version's are removed before the new ones are written."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written where, and what whoever uses it should know."""

    folder: Path
    tag: str
    questions: int
    max_tokens: int
    compared: int = 0
    """Answers of the run's students that the expressions judged."""
    otherwise: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How many of them otherwise than we do, by data set and prompt."""
    notes: tuple[str, ...] = ()


def export_task(run: str, root: Path, out: Path | None) -> Exported:
    """Write the task folder of a run, by its path or its name below `root`, into `out` or the run's own folder.

    Raises `ConfigError` for what is no run, for a matrix and for a folder that holds something else, and
    `MissingRecordsError` where no student is trained, since prompts and room follow from one.
    """
    folder, name = _run_folder(run, root)
    target = out or folder.task
    _require_own(target)
    config = load_config(folder.config)
    questions = Inputs(config).labelled("test")
    if not questions:
        raise ConfigError(f"run {run}: data.test names no question with an answer, so that there is nothing to ask")
    student = AskedStudent(_a_student(folder).resolve())
    taught = objective_of(config.objective).tasks
    prompts = tuple(prompt for prompt in config.evaluation.prompts if prompt in taught)
    room = _room(student, questions, prompts, config.evaluation.max_new_tokens)
    asking = Asking(prompts=prompts, max_tokens=room.max_tokens, ends=student.ends)
    files = task_files(name, questions, asking, room.too_long)
    compared, otherwise, strangers = _verdicts(folder, questions)
    exported = Exported(
        folder=target,
        tag=tag_of(name),
        questions=len(questions),
        max_tokens=room.max_tokens,
        compared=compared,
        otherwise=otherwise,
        notes=(*room.notes, *_notes(compared, otherwise, strangers)),
    )
    files[README] = _readme(exported, config, folder, tasks_of(name, questions, asking))
    _write(target, files)
    return exported


def _run_folder(run: str, root: Path) -> tuple[RunFolder, str]:
    """The folder of a run and its name, which for a point of a matrix begins with that of the matrix."""
    path = folder_of_run(run, root)
    if points := points_of(path):
        raise ConfigError(f"run {run}: a matrix; name one of its points, such as {path / points[0]}")
    folder = RunFolder(path)
    if not folder.config.is_file():
        raise ConfigError(f"run {run}: no run's folder, for it has no {folder.config.name}")
    above = path.resolve().parent
    name = path.resolve().name
    return folder, f"{above.name}-{name}" if name in points_of(above) else name


def _require_own(target: Path) -> None:
    """Refuse a folder in which there is something that did not come from here."""
    if target.exists() and not target.is_dir():
        raise ConfigError(f"--out {target}: a file; name a folder")
    if target.is_dir() and any(target.iterdir()):
        readme = target / README
        if not readme.is_file() or MARK not in readme.read_text(encoding="utf-8", errors="replace"):
            raise ConfigError(f"--out {target}: holds something else than a task of molsaki; name another folder")


def _a_student(folder: RunFolder) -> Path:
    """The folder of a finished student; all of a run have one tokenizer and one configuration."""
    for student in folder.students().values():
        if student.summary.is_file():
            return student.path
    raise MissingRecordsError(f"{folder.path}: no finished student; train one with: molsaki train CONFIG")


@dataclass(frozen=True, kw_only=True)
class _Room:
    """Up to how many tokens are asked for, so that the prompt keeps its place, and which prompts have none."""

    max_tokens: int
    too_long: Mapping[Task, frozenset[str]]
    notes: tuple[str, ...]


def _room(student: AskedStudent, questions: Sequence[Question], prompts: Sequence[Task], wanted: int) -> _Room:
    """The harness cuts a prompt from the left where it and `max_gen_toks` do not fit into the positions.

    So no more is asked for than what the longest prompt leaves; we give each prompt what it leaves itself.
    """
    texts = {prompt: [PROMPTS[prompt](question.text) for question in questions] for prompt in prompts}
    lengths = {prompt: student.lengths(found) for prompt, found in texts.items()}
    positions = student.positions
    fits = [length for found in lengths.values() for length in found if positions is None or length < positions]
    if not fits:
        raise ConfigError(f"{student.folder}: every prompt is longer than its {positions} positions")
    most = wanted if positions is None else min(wanted, positions - max(fits))
    too_long = {
        prompt: frozenset(
            question.id
            for question, length in zip(questions, found, strict=True)
            if positions is not None and length >= positions
        )
        for prompt, found in lengths.items()
    }
    special = sum(sum(student.holds_special_tokens(found)) for found in texts.values())
    return _Room(max_tokens=most, too_long=too_long, notes=tuple(_room_notes(most, wanted, too_long, special)))


def _room_notes(most: int, wanted: int, too_long: Mapping[Task, frozenset[str]], special: int) -> Iterator[str]:
    if most < wanted:
        yield (
            f"max_gen_toks is {most}, not the {wanted} of evaluation.max_new_tokens, since the longest prompt leaves "
            "no more; longer texts end there"
        )
    if unasked := sum(map(len, too_long.values())):
        yield f"{unasked:,} prompts are longer than the student's positions; they count as wrong, as with us"
    if special:
        yield (
            f"{special:,} prompts hold what looks like a special token; the harness takes it for one, and we for text"
        )


def _verdicts(folder: RunFolder, questions: Sequence[Question]) -> tuple[int, Counter[tuple[str, str]], int]:
    """How many answers there are, how many the expressions judge otherwise, and how many are to no question."""
    table = read_predictions(folder.evaluation().seeds().values())
    asked = {(question.dataset, question.id): question for question in questions}
    compared, otherwise, strangers = 0, Counter[tuple[str, str]](), 0
    columns = (table[name] for name in ("dataset", "question_id", "prompt", "output", "correct"))
    for dataset, identifier, prompt, output, correct in zip(*columns, strict=True):
        question = asked.get((dataset, identifier))
        if question is None:
            strangers += 1
            continue
        compared += 1
        if rule_of(question.answer_kind).says(output, accepted(question)) != correct:
            otherwise[dataset, prompt] += 1
    return compared, otherwise, strangers


def _notes(compared: int, otherwise: Counter[tuple[str, str]], strangers: int) -> Iterator[str]:
    if not compared:
        yield "no student of the run is evaluated, so that the verdicts are compared with none; see molsaki evaluate"
    elif otherwise:
        by = ", ".join(f"{dataset} {prompt} {count:,}" for (dataset, prompt), count in sorted(otherwise.items()))
        yield f"{otherwise.total():,} of {compared:,} answers are judged otherwise than by us: {by}"
    else:
        yield f"all {compared:,} answers of the run's students are judged as by us"
    if strangers:
        yield f"{strangers:,} answers are to questions that data.test no longer names; evaluate the run anew"


def _write(target: Path, files: Mapping[str, str]) -> None:
    """Write the files, the README last; what an earlier export has left is gone by then."""
    with folder_of(f"the folder {target}", "name another by --out"):
        make_folder(target)
        _write_files(target, files)


def _write_files(target: Path, files: Mapping[str, str]) -> None:
    for pattern in OURS:
        for stale in target.glob(pattern):
            if stale.name not in files:
                stale.unlink()
    for name, content in files.items():
        replace_file(target / name, content.encode())


def _readme(exported: Exported, config: Config, folder: RunFolder, tasks: Sequence[TaskFile]) -> str:
    dtype = config.training.dtype
    lines = [
        f"# {exported.tag}",
        "",
        f"{MARK}: the test of `{config.name}` for [lm-evaluation-harness]"
        f"(https://github.com/EleutherAI/lm-evaluation-harness), tried with {VERSION}.",
        "",
        "```bash",
        f'pip install "lm-eval[hf]=={VERSION}"',
        f"lm_eval --model hf --model_args pretrained=STUDENT,dtype={dtype} --include_path {_named(exported.folder)} \\",
        f"  --tasks {exported.tag} --batch_size 16",
        "```",
        "",
        "`STUDENT` is the folder or the hub id of a student of this run. It is asked in plain text: leave out "
        "`--apply_chat_template`, `--num_fewshot` and `add_bos_token`; its tokenizer adds special tokens itself.",
        "",
        "A folder with a comma in its name, as points of a matrix have, has to be given in JSON: "
        f"""`--model_args '{{"pretrained": "STUDENT", "dtype": "{dtype}"}}'`.""",
        "",
        f"The tasks: {', '.join(f'`{task.name}`' for task in tasks)}.",
        "",
        *_numbers(folder, config.name),
        *(f"- {note}." for note in exported.notes),
        "",
        "Answers are read by a regular expression a kind, which knows what students learn to write: "
        "for texts of other models our own numbers may be higher. In bfloat16 or float16, and on other devices, greedy "
        "texts may differ with the batch size, with us as there.",
        "",
    ]
    return "\n".join(lines)


def _numbers(folder: RunFolder, run: str) -> Iterator[str]:
    """Our accuracies, a row for each seed's student."""
    if not folder.evaluation().seeds():
        return
    found = accuracies_by_seed(run, folder.evaluation())
    yield "Our accuracies, in percent:"
    yield ""
    yield "| data set | prompt | seed | accuracy |"
    yield "|---|---|---|---|"
    for (dataset, prompt), by_seed in found.items():
        for seed, share in by_seed.items():
            yield f"| {dataset} | {prompt} | {seed} | {100 * share:.1f} |"
    yield ""


def _named(folder: Path) -> str:
    """The folder by its last name, since its place on this machine says nothing elsewhere."""
    return folder.resolve().name
