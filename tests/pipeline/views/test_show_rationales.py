"""`molsaki rationales show`: what is shown of what the teacher wrote, and that `rationales` itself works as before."""

import json
from collections.abc import Sequence

import click
import pytest
from click.testing import CliRunner

import stages.rationales.write
from pipeline.cli.lazy import WithSubcommands
from pipeline.cli.main import molsaki
from pipeline.views.rationales import highlighted, visible
from stages.engines.contract import Answers, Decoding, Generation
from tests.fakes import ScriptedEngine
from tests.pipeline.conftest import Experiment

SHOW = ("rationales", "show", "run.yaml")


@pytest.fixture
def written(experiment: Experiment) -> Experiment:
    """Of ten questions seven have a right rationale, one a wrong one, and two have none."""
    rows = [
        {"id": f"q-{n}", "rationale": f"{n} and 2 make {n + 2}.", "answer": str(n + 2 if n != 4 else 99)}
        for n in range(1, 9)
    ]
    (experiment.folder / "rationales.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert experiment("rationales", "run.yaml").exit_code == 0
    return experiment


def test_steps_have_numbers_and_critical_words_stand_in_brackets_without_colours(written: Experiment) -> None:
    shown = written(*SHOW, "--number", "1").stdout
    lines = [line.strip() for line in shown.splitlines()]
    assert lines[0] == "svamp q-1: kept (imported)"
    assert lines[1:5] == [
        "1   Ann has [1] figs and finds [2].",
        "2   How many figs?",
        "3   [1] and [2] make [3].",
        "4   The answer is [3].",
    ]
    assert "1 of 7 kept; 7 rationales of 10 questions are there" in lines


def test_reasons_come_with_their_number_and_an_example(written: Experiment) -> None:
    lines = [" ".join(line.split()) for line in written(*SHOW, "--number", "0").stdout.splitlines()]
    assert "no rationale in the file 2 svamp q-9 (nothing)" in lines
    assert "wrong answer 1 svamp q-4 4 and 2 make 6. The answer is 99." in lines


def test_another_outcome_is_shown_as_it_was_written(written: Experiment) -> None:
    lines = [" ".join(line.split()) for line in written(*SHOW, "--outcome", "wrong answer").stdout.splitlines()]
    assert lines[0] == "svamp q-4: wrong answer (imported)"
    assert "written 4 and 2 make 6. The answer is 99." in lines and "answer 99; 6 is right" in lines


def test_for_machines_every_span_lies_where_its_words_do(written: Experiment) -> None:
    found = json.loads(written(*SHOW, "--json", "--number", "2").stdout)
    assert (found["questions"], found["rationales"], found["of"]) == (10, 7, 7)
    assert [entry["question_id"] for entry in found["samples"]] == ["q-1", "q-5"], "spread over all of them"
    entry = found["samples"][1]
    text = f"{entry['question']}\n{entry['rationale']}"
    assert [text[start:end] for start, end in entry["critical_spans"]] == ["5", "2", "5", "2", "7", "7"]
    assert [text[start:end] for start, end in entry["step_spans"]][2:] == ["5 and 2 make 7.", "The answer is 7."]
    assert {reason["reason"]: reason["attempts"] for reason in found["dropped"]} == {
        "wrong answer": 1,
        "no rationale in the file": 2,
    }


def test_a_rationale_without_a_critical_word_is_among_the_dropped(written: Experiment) -> None:
    rule = ("--set", "attention.critical=regex", "--set", "attention.pattern=^5.*")
    found = json.loads(written(*SHOW, *rule, "--json").stdout)
    assert found["of"] == 1
    assert {"no critical word": 6}.items() <= {each["reason"]: each["attempts"] for each in found["dropped"]}.items()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--outcome", "bad luck"), "no attempt has 'bad luck'; there are 'kept', 'wrong answer'"),
        (("--dataset", "gsm8k"), "no question of 'gsm8k' among those of svamp"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(written: Experiment, options: Sequence[str], said: str) -> None:
    result = written(*SHOW, *options)
    assert result.exit_code == 2 and said in result.stderr


def test_before_the_first_rationale_the_command_that_makes_them_is_named(experiment: Experiment) -> None:
    result = experiment(*SHOW)
    assert result.exit_code == 1 and "molsaki rationales CONFIG" in result.stderr


def test_samples_and_key_words_are_shown(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    class Teacher(ScriptedEngine):
        def stream(self, prompts: Sequence[str], decoding: Decoding | None = None) -> Answers:
            for place, _ in super().stream(prompts, decoding):
                asked = prompts[place].rpartition("Q: ")[2]
                number = int(asked.split("Ann has ")[1].split()[0])
                text = f" She has {number} and 2. The answer is {number + 2}."
                if asked.endswith("Key words:"):
                    text = " figs, pears"
                yield place, Generation(text=text, finish_reason="stop")

    monkeypatch.setattr(stages.rationales.write, "open_engine", lambda name, setup: Teacher(lambda prompt: ""))
    options = [
        *("--set", "rationales={engine: transformers, samples: 2, temperature: 1, keywords: true, shots: 0}"),
        *("--set", "attention={critical: keywords, keyword_sources: [teacher]}"),
    ]
    assert experiment("rationales", "run.yaml", *options).exit_code == 0
    status = experiment("status", "run.yaml", *options).stdout
    assert "10 rationales of up to 2 each, 10 more the same" in " ".join(status.split())
    shown = experiment(*SHOW, *options, "--number", "1").stdout
    assert "Ann has 1 [figs] and finds 2." in shown and "key words   figs" in shown
    assert "20 key words named by the teacher, 10 left out: not in the text" in shown
    assert "same as another sample   10" in shown
    one = experiment(*SHOW, *options, "--outcome", "same as another sample", "--number", "1").stdout
    assert "svamp q-1: same as another sample (plain, sample 1)" in one


def test_texts_are_no_markup_and_steer_no_terminal() -> None:
    text = "[bold]5[/bold] \x1b[31mred\u202e 7"
    shown = highlighted(text, (0, len(text)), [(6, 7), (len(text) - 1, len(text))], colour=True)
    assert shown.plain == "[bold]5[/bold] \ufffd[31mred\ufffd 7"
    assert [shown.plain[span.start : span.end] for span in shown.spans if span.style] == ["5", "7"]
    assert visible("a\tb\nc\x07\x9b") == "a b\nc\ufffd\ufffd"
    assert highlighted("a 5 b", (2, 5), [(0, 3)], colour=False).plain == "[5] b"


def test_a_hostile_text_reaches_the_terminal_harmless(written: Experiment) -> None:
    hostile = "[red]\x1b]0;title\x07 2 and 2 make 4."
    (written.folder / "rationales.jsonl").write_text(json.dumps({"id": "q-2", "rationale": hostile, "answer": "4"}))
    written("rationales", "run.yaml")
    shown = written(*SHOW).stdout
    assert "[red]\ufffd][0];title\ufffd [2] and [2] make [4]." in shown
    assert "\x1b" not in shown and "\x07" not in shown


def test_the_stage_itself_takes_its_options_anywhere(experiment: Experiment) -> None:
    for words in (
        ("run.yaml", "--dry-run"),
        ("--dry-run", "run.yaml"),
        ("--set", "name=other", "run.yaml", "--dry-run"),
    ):
        result = experiment("rationales", *words)
        assert result.exit_code == 0 and "rationales" in result.stdout


def test_a_file_called_like_the_command_is_written_with_its_folder(experiment: Experiment) -> None:
    (experiment.folder / "run.yaml").rename(experiment.folder / "show")
    result = experiment("rationales", "show")
    assert result.exit_code == 2 and "a file of that name is ./show" in result.stderr
    assert experiment("rationales", "./show").exit_code == 0
    assert experiment("rationales", "show", "show").exit_code == 0


def test_without_arguments_the_missing_one_is_named() -> None:
    for words in (["rationales"], ["rationales", "show"]):
        result = CliRunner().invoke(molsaki, words)
        assert result.exit_code == 2 and "Missing argument 'CONFIG'" in result.stderr


def test_help_of_the_command_lists_the_one_below_it() -> None:
    runner = CliRunner()
    shown = runner.invoke(molsaki, ["rationales", "--help"]).stdout
    assert "Commands:" in shown and "molsaki rationales show examples/svamp.yaml" in shown
    below = runner.invoke(molsaki, ["rationales", "show", "--help"]).stdout
    assert below.startswith("Usage: molsaki rationales show [OPTIONS] CONFIG") and "--outcome" in below


def test_a_command_below_gets_the_context_of_the_whole() -> None:
    command = WithSubcommands("above", callback=lambda: None)

    @click.command("below")
    @click.argument("word")
    def below(word: str) -> None:
        click.echo(click.get_current_context().command_path + " " + word)

    command.add_command(below)
    assert CliRunner().invoke(command, ["below", "x"], prog_name="above").stdout == "above below x\n"
