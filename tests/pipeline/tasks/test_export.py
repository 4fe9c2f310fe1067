"""`molsaki export-task` on runs of tiny models: what the harness would read is what we ask and how we judge.

lm-evaluation-harness itself is not installed here: `benchmarks/lm_eval.py` runs it in an environment of its own. What
it does with a YAML is done again below, from its documentation of filters and of the metric exact_match.
"""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from data.answers.parse import parse_answer
from data.dataset import is_right
from data.prompts import answer_sentence, explain_prompt, predict_prompt
from data.records import Prediction, Question
from pipeline.cli.main import molsaki
from pipeline.config.load import load_config, resolved_yaml
from pipeline.results.folder import RunFolder
from pipeline.results.predictions import read_predictions, write_predictions
from pipeline.run.inputs import Inputs
from pipeline.tasks.lm_eval import TOO_LONG, Asking, task_files
from tests.fakes import END, POSITIONS, tiny_tokenizer
from tests.pipeline.conftest import Tiny

QUESTIONS: dict[str, list[dict[str, object]]] = {
    "figs": [
        {"id": "n-1", "question": "Ann has 3 figs and finds 2. How many?", "answer": 5},
        {"id": "n-2", "question": "Ann has 4 figs and finds 0.5. How many?", "answer": 4.5},
    ],
    "places": [{"id": "c-1", "question": "Where is it dry?", "choices": ["sea", "desert"], "answer": "B"}],
    "truths": [{"id": "b-1", "question": "Do figs swim?", "answer": False}],
    "towns": [{"id": "t-1", "question": "Which town lies on the Tagus?", "answer": "Lisbon"}],
}
CONFIGURATION = """\
name: small
store: store
data:
  train: [{name: jsonl, path: figs.jsonl, limit: 1}]
  test: [{name: jsonl, path: figs.jsonl}, {name: jsonl, path: places.jsonl}, {name: jsonl, path: truths.jsonl},
         {name: jsonl, path: towns.jsonl}]
teacher: {model: teacher}
rationales: {shots: 0}
student: {model: student}
evaluation: {max_new_tokens: 64}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run in the current directory with two students that are a tokenizer and a configuration, and were asked."""
    monkeypatch.chdir(tmp_path)
    for name, rows in QUESTIONS.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "small.yaml").write_text(CONFIGURATION)
    folder = RunFolder(tmp_path / "runs" / "small")
    folder.path.mkdir(parents=True)
    folder.config.write_text(resolved_yaml(load_config(tmp_path / "small.yaml")))
    for seed in (0, 1):
        write_student(folder.student(seed).path)
        write_predictions(folder.evaluation().predictions(seed), seed, answers(seed), "f" * 64)
    return folder.path


def write_student(folder: Path, positions: int = POSITIONS) -> None:
    tiny_tokenizer(adds_begin=True).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": positions}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 0]}))
    (folder / "training.json").write_text("{}")


def asked() -> list[Question]:
    return list(Inputs(load_config(Path("small.yaml"))).labelled("test"))


def answers(seed: int) -> list[Prediction]:
    """Every second answer is right; a rationale stands before those to `explain`."""
    found = []
    for number, question in enumerate(asked()):
        said = question.answer if number % 2 == seed else {"number": "7", "choice": "A"}.get(question.answer_kind, "x")
        assert said is not None
        for prompt, output in (("predict", said), ("explain", f"It is so. {answer_sentence(question, said)}")):
            parsed = parse_answer(output, question)
            found.append(
                Prediction(
                    question_id=question.id,
                    dataset=question.dataset,
                    prompt=prompt,  # type: ignore[arg-type]
                    output=output,
                    parsed=parsed,
                    gold=question.answer or "",
                    correct=is_right(parsed, question),
                )
            )
    return found


def export(*arguments: str) -> Result:
    return CliRunner().invoke(molsaki, ["export-task", *arguments])


class TaskLoader(yaml.SafeLoader):
    """Reads `!function` as the name of it."""


TaskLoader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


def tasks(folder: Path) -> dict[str, dict[str, Any]]:
    """The tasks of a folder by their names, each with its `docs` as the harness would get them."""
    found = {}
    for path in folder.glob("*.yaml"):
        task = yaml.load(path.read_text(encoding="utf-8"), Loader=TaskLoader)
        module, _, name = task["custom_dataset"].rpartition(".")
        spec = importlib.util.spec_from_file_location(module, folder / f"{module}.py")
        assert spec is not None and spec.loader is not None
        helper = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(helper)
        read = getattr(helper, name)(**task["metadata"], **task["dataset_kwargs"])
        found[task["task"]] = {**task, "docs": list(read[task["test_split"]])}
    return found


def judged(task: Mapping[str, Any], doc: Mapping[str, Any], text: str) -> bool:
    """What the harness makes of a text: the filters regex and take_first, then exact_match with any of the targets."""
    ((regex, first),) = [each["filter"] for each in task["filter_list"]]
    assert first == {"function": "take_first"} and regex["function"] == "regex" and regex["group_select"] == 0
    match = (re.compile(regex["regex_pattern"]).findall(text) or [regex["fallback"]])[0]
    if isinstance(match, tuple):
        match = next((group for group in match if group), regex["fallback"])
    (metric,) = task["metric_list"]
    assert metric["metric"] == "exact_match" and metric["ignore_case"]

    def compared(said: str) -> str:
        for ignored in metric["regexes_to_ignore"]:
            said = re.sub(ignored, "", said)
        return said.lower()

    return any(compared(match.strip()) == compared(target) for target in doc[task["doc_to_target"]])


def test_there_is_a_task_for_each_data_set_and_prompt_and_all_have_one_tag(run: Path) -> None:
    done = export("small")
    assert done.exit_code == 0 and done.stdout == "runs/small/lm-eval\n"
    found = tasks(run / "lm-eval")
    assert found.keys() == {f"molsaki_small_{name}_{p}" for name in QUESTIONS for p in ("predict", "explain")}
    assert {task["tag"] for task in found.values()} == {"molsaki_small"}


def test_a_task_asks_our_questions_by_our_prompts_and_nothing_around_them(run: Path) -> None:
    export("small", "--out", "task")
    prompts = {"predict": predict_prompt, "explain": explain_prompt}
    for name, task in tasks(Path("task")).items():
        dataset, prompt = name.split("_")[2:]
        assert [(doc["id"], doc[task["doc_to_text"]]) for doc in task["docs"]] == [
            (question.id, prompts[prompt](question.text)) for question in asked() if question.dataset == dataset
        ]
        assert (task["num_fewshot"], task["target_delimiter"], task["output_type"]) == (0, "", "generate_until")
        assert "description" not in task and "fewshot_split" not in task


def test_decoding_and_its_end_are_written_out(run: Path) -> None:
    export("small", "--out", "task")
    for task in tasks(Path("task")).values():
        assert task["generation_kwargs"] == {
            "until": [END, "<s>"],
            "max_gen_toks": 64,
            "do_sample": False,
            "temperature": 0.0,
            "repetition_penalty": 1.0,
        }


def test_a_task_judges_every_answer_of_the_run_as_we_do(run: Path) -> None:
    done = export("small", "--out", "task")
    assert "all 20 answers of the run's students are judged as by us" in done.stderr
    found = tasks(Path("task"))
    table = read_predictions(RunFolder(run).evaluation().seeds().values())
    rows = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    for row in rows:
        task = found[f"molsaki_small_{row['dataset']}_{row['prompt']}"]
        (doc,) = [doc for doc in task["docs"] if doc["id"] == row["question_id"]]
        assert judged(task, doc, row["output"]) == row["correct"], row
    assert {row["correct"] for row in rows} == {True, False}


def test_answers_that_are_judged_otherwise_are_counted(run: Path) -> None:
    said = answers(0)
    said[0] = Prediction(**{**vars_of(said[0]), "output": "forty-five less forty", "correct": True})
    write_predictions(RunFolder(run).evaluation().predictions(0), 0, said, "f" * 64)
    done = export("small")
    assert "1 of 20 answers are judged otherwise than by us: figs predict 1" in done.stderr
    assert "1 of 20 answers" in (run / "lm-eval" / "README.md").read_text()


def vars_of(prediction: Prediction) -> dict[str, Any]:
    return {name: getattr(prediction, name) for name in Prediction.__annotations__}


def test_the_prompt_keeps_its_place_within_the_positions(run: Path) -> None:
    """The longest prompt has its characters, a token each, and the begin token."""
    longest = max(len(explain_prompt(question.text)) for question in asked()) + 1
    for student in RunFolder(run).students().values():
        write_student(student.path, positions=longest + 40)
    done = export("small", "--out", "task")
    assert {task["generation_kwargs"]["max_gen_toks"] for task in tasks(Path("task")).values()} == {40}
    assert "max_gen_toks is 40, not the 64 of evaluation.max_new_tokens" in done.stderr


def test_a_prompt_beyond_the_positions_is_wrong_whatever_is_said_and_leaves_the_others_their_room(run: Path) -> None:
    lengths = {question.id: len(predict_prompt(question.text)) + 1 for question in asked()}
    longest = max(lengths, key=lambda each: lengths[each])
    for student in RunFolder(run).students().values():
        write_student(student.path, positions=lengths[longest])
    done = export("small", "--out", "task")
    assert "2 prompts are longer than the student's positions" in done.stderr
    rows = [doc for task in tasks(Path("task")).values() for doc in task["docs"] if doc["id"] == longest]
    assert rows and all(row["answers_predict"] == row["answers_explain"] == [TOO_LONG] for row in rows)


def test_text_that_looks_like_a_special_token_is_counted(run: Path) -> None:
    with Path("figs.jsonl").open("a") as file:
        file.write(json.dumps({"id": "n-3", "question": "What is 1</s> + 1?", "answer": 2}) + "\n")
    assert "2 prompts hold what looks like a special token" in export("small").stderr


def test_a_folder_is_written_anew_and_none_of_somebody_else(run: Path) -> None:
    assert export("small").exit_code == 0
    task = run / "lm-eval"
    (task / "molsaki_old_explain.yaml").write_text("task: molsaki_old_explain\n")
    assert export("small").exit_code == 0 and not (task / "molsaki_old_explain.yaml").exists()
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    refused = export("small", "--out", "mine")
    assert refused.exit_code == 2 and "holds something else" in refused.stderr
    assert [path.name for path in Path("mine").iterdir()] == ["notes.txt"]
    assert export("small", "--out", "figs.jsonl").exit_code == 2


def test_what_is_no_run_is_one_line(run: Path) -> None:
    Path("empty").mkdir()
    (run.parent / "matrix.json").write_text(json.dumps({"small": {}}))
    shutil.copytree(run, "untrained")
    shutil.rmtree("untrained/student")
    for name, words in (
        ("nothing", "neither a folder nor a run"),
        ("empty", "no run's folder"),
        ("runs", "a matrix; name one of its points, such as runs/small"),
        ("untrained", "no finished student; train one with"),
    ):
        refused = export(name)
        assert refused.exit_code in (1, 2) and refused.stderr.count("\n") == 1 and words in refused.stderr, name


def test_a_data_set_with_two_kinds_of_answers_has_a_task_for_each() -> None:
    questions = [
        Question(id="1", dataset="own", text="?", answer="7", answer_kind="number"),
        Question(id="2", dataset="own", text="?", answer="yes", answer_kind="boolean"),
        Question(id="3", dataset="own", text="?", answer="8", answer_kind="number"),
    ]
    files = task_files("r", questions, Asking(prompts=("explain",), max_tokens=9, ends=("</s>",)), {})
    assert {"molsaki_r_own_number_explain.yaml", "molsaki_r_own_boolean_explain.yaml"} < files.keys()
    assert [json.loads(row)["id"] for row in files["own-number.jsonl"].splitlines()] == ["1", "3"]


def test_a_point_of_a_matrix_is_named_after_both(run: Path) -> None:
    (run.parent / "matrix.json").write_text(json.dumps({"small": {}}))
    assert export("small").exit_code == 0
    assert {task["tag"] for task in tasks(run / "lm-eval").values()} == {"molsaki_runs-small"}


def test_a_run_that_is_not_evaluated_has_a_task_without_numbers(run: Path) -> None:
    shutil.rmtree(RunFolder(run).evaluation().path)
    done = export("small")
    assert done.exit_code == 0 and "no student of the run is evaluated" in done.stderr
    assert "Our accuracies" not in (run / "lm-eval" / "README.md").read_text()


def test_answers_to_other_questions_are_counted_and_not_judged(run: Path) -> None:
    Path("figs.jsonl").write_text(json.dumps(QUESTIONS["figs"][1]) + "\n")
    said = export("small").stderr
    assert "all 16 answers" in said and "4 answers are to questions that data.test no longer names" in said


def test_the_readme_has_the_command_and_our_accuracies(run: Path) -> None:
    export("small", "--out", "task")
    readme = Path("task/README.md").read_text()
    assert "--include_path task" in readme and "--tasks molsaki_small" in readme and "dtype=float32" in readme
    assert "| figs | predict | 0 | 50.0 |" in readme and "| places | explain | 1 | 0.0 |" in readme
    assert str(run) not in readme


def test_no_model_and_no_torch_is_loaded(run: Path) -> None:
    code = (
        "import sys\nfrom pipeline.cli.main import molsaki\n"
        "molsaki(['export-task', 'small'], standalone_mode=False)\n"
        "print({'torch', 'transformers', 'vllm', 'datasets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "runs/small/lm-eval\nset()\n"


@pytest.mark.slow
def test_a_run_of_real_models_is_exported_as_it_was_asked(tiny: Tiny) -> None:
    tiny.run()
    done = export("tiny")
    assert done.exit_code == 0 and "all 3 answers of the run's students are judged as by us" in done.stderr
    ((name, task),) = tasks(Path("runs/tiny/lm-eval")).items()
    assert name == "molsaki_tiny_test_explain" and task["generation_kwargs"]["until"] == [END]
    assert [doc["prompt_explain"] for doc in task["docs"]] == [explain_prompt(tiny.question(n)) for n in (41, 42, 43)]
