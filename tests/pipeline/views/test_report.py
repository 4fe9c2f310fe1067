"""`molsaki report`: one file for one run or many, said and shown as text whatever the text says."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from selenium.webdriver.common.keys import Keys

from pipeline.cli.main import molsaki
from pipeline.results.scores import compare, evaluation_folders, likelihood_table, score_table
from pipeline.views.run_figures import read_figures
from stages.student.summary import LAYER_WEIGHTS
from tests.browser import Browser
from tests.pipeline.conftest import Experiment
from tests.pipeline.run_folders import write_run

HOSTILE = "</script><img src=x onerror=alert(1)>"
LARGEST = 5_000_000


def report(*arguments: str) -> Result:
    return CliRunner().invoke(molsaki, ["report", *arguments])


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with `runs/dss` and `runs/molsaki`."""
    monkeypatch.chdir(tmp_path)
    write_run(Path("runs/dss"), objective="dss", right=0.15, likely=-2.0)
    write_run(Path("runs/molsaki"), right=0.35, likely=-1.5)
    return tmp_path


@pytest.fixture
def page(runs: Path, browser: Browser) -> Browser:
    """The report of both, opened."""
    assert report("dss", "molsaki", "--out", "both.html").exit_code == 0
    browser.open(Path("both.html"))
    return browser


def test_one_run_s_report_lies_in_its_folder_and_the_path_is_printed(runs: Path):
    result = report("molsaki")
    assert (result.exit_code, result.stdout) == (0, "runs/molsaki/report.html\n")
    assert Path("runs/molsaki/report.html").read_text().startswith("<!doctype html>")


def test_several_runs_have_a_report_beside_them_or_where_it_is_asked_for(runs: Path):
    assert report("dss", "molsaki").stdout == "runs/report-dss-molsaki.html\n"
    assert report("dss", "molsaki", "--out", "new/both.html").stdout == "new/both.html\n"
    assert Path("new/both.html").read_bytes() == Path("runs/report-dss-molsaki.html").read_bytes()


def test_a_matrix_has_one_report_in_its_folder(runs: Path):
    write_run(Path("runs/study/objective=dss"), objective="dss")
    write_run(Path("runs/study/objective=molsaki"))
    Path("runs/study/matrix.json").write_text(json.dumps({"objective=dss": {}, "objective=molsaki": {}}))
    result = report("study", "--base", "molsaki")
    assert result.stdout == "runs/study/report.html\n"
    text = Path("runs/study/report.html").read_text()
    assert "difference to molsaki" in text


def test_the_same_folders_give_the_same_bytes(runs: Path):
    report("dss", "molsaki", "--out", "first.html")
    report("dss", "molsaki", "--out", "second.html")
    assert Path("first.html").read_bytes() == Path("second.html").read_bytes()


def test_json_has_the_path_and_every_figure(runs: Path):
    found = json.loads(report("dss", "molsaki", "--json").stdout)
    assert found["path"] == "runs/report-dss-molsaki.html"
    assert [run["name"] for run in found["runs"]] == ["dss", "molsaki"]
    compared = json.loads(CliRunner().invoke(molsaki, ["compare", "dss", "molsaki", "--json"]).stdout)
    assert found["scores"] == compared
    assert found["runs"][1]["training"]["losses"]["L_att"]["steps"]
    assert found["runs"][0]["accuracies"][0]["by_seed"].keys() == {"0", "1", "2"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing",), "neither a folder nor a run"),
        (("dss", "dss"), "named twice"),
        (("dss", "--base", "other"), "--base other"),
        (("dss", "--out", "runs"), "is a folder"),
    ],
)
def test_what_cannot_be_reported_ends_with_2_and_one_line(runs: Path, arguments: tuple[str, ...], message: str):
    result = report(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_a_run_that_has_only_begun_has_a_report_too(runs: Path):
    Path("runs/new").mkdir()
    Path("runs/new/config.yaml").write_text("name: new\n")
    assert report("new").exit_code == 0
    text = Path("runs/new/report.html").read_text()
    for said in (
        "no student is trained yet",
        "No student is evaluated yet",
        "No losses were logged",
        "Nothing is recorded",
    ):
        assert said in text


def test_no_model_is_looked_at_and_torch_is_not_imported(runs: Path):
    code = """
import sys
from pipeline.cli.main import molsaki
sys.argv = ["molsaki", "report", "dss", "molsaki"]
try:
    molsaki(prog_name="molsaki")
except SystemExit as end:
    assert not end.code
print([name for name in ("torch", "transformers", "vllm", "datasets", "matplotlib") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_questions_on_the_hub_are_not_fetched_and_counts_are_those_of_the_space(experiment: Experiment):
    experiment.run()
    config = Path("runs/small/config.yaml")
    config.write_text(config.read_text().replace("train.jsonl", "null"))
    (run,) = read_figures(["small"], Path("runs")).runs
    assert run.dropped is not None and run.dropped.whole_spaces
    assert run.dropped.questions == run.dropped.kept == 10
    assert report("small").exit_code == 0
    assert "other runs may share" in Path("runs/small/report.html").read_text()


@pytest.mark.slow
def test_a_hundred_students_of_many_points_stay_one_small_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    points = [f"objective=molsaki,beta={beta},alignment=mixture-{'x' * 40}" for beta in range(50)]
    for number, point in enumerate(points):
        write_run(Path("runs/study") / point, seeds=(0, 1), entries=500, layers=(32, 22), right=number / 60)
    Path("runs/study/matrix.json").write_text(json.dumps({point: {} for point in points}))
    assert report("study").exit_code == 0
    text = Path("runs/study/report.html").read_text()
    assert len(text.encode()) < LARGEST
    assert "26 more runs are not drawn" in text


def test_the_page_says_nothing_on_the_console_and_asks_nobody(page: Browser):
    page.require_quiet()
    assert page.texts("h1") == ["dss, molsaki"]
    assert page.texts("h2") == [
        "Accuracy", "Losses over training", "Layer weights", "Time and memory", "What was run", "Configuration"
    ]  # fmt: skip


def test_accuracies_and_intervals_are_those_that_compare_prints(page: Browser):
    table = score_table(compare(evaluation_folders(["dss", "molsaki"], Path("runs"))))
    columns = dict(zip(table.headings, zip(*table.rows, strict=True), strict=True))
    cells = [[cell for cell in row.split("\n") if cell] for row in page.texts(".scores tr.score")]
    shown = [" ".join(row) for row in cells]
    for run, accuracy, difference, interval, line in zip(
        columns["run"], columns["accuracy"], columns["difference"], columns["95% interval"], shown, strict=True
    ):
        assert line.startswith(f"{run} {accuracy}")
        assert f"{difference} {interval}".strip() in line


def test_log_probabilities_stand_below_accuracies_as_compare_prints_them(page: Browser):
    table = likelihood_table(compare(evaluation_folders(["dss", "molsaki"], Path("runs"))))
    assert table is not None
    shown = page.texts("#accuracy table:not(.scores) tbody tr")
    assert shown == [" ".join(row).strip() for row in table.rows]
    assert "+0." in shown[1] and page.texts("#accuracy caption") == [table.caption]
    assert "closer to 0, is better" in table.caption


def test_a_run_without_log_probabilities_has_no_table_of_them(runs: Path):
    write_run(Path("runs/old"))
    assert report("old").exit_code == 0
    assert "Log-probability" not in Path("runs/old/report.html").read_text()


def test_drawings_have_names_and_their_numbers_unfold(page: Browser):
    drawings = page.all("svg[role=img]")
    assert len(drawings) > 15
    assert all(drawing.get_attribute("aria-label") for drawing in drawings)
    summary = "#losses figure:first-child summary"
    assert "three quarters" not in page.find("#losses").text
    page.click(summary)
    rows = page.texts("#losses figure:first-child tbody tr")
    training = read_figures(["molsaki"], Path("runs")).runs[0].training
    assert training is not None
    assert rows[1].startswith(f"molsaki {training.losses['loss'].mean[0]:.4g} ")


def test_a_run_in_the_legend_lights_its_curves_by_mouse_keyboard_and_click(page: Browser):
    lit = "[...document.querySelectorAll('#losses .series.lit')].map(e => e.getAttribute('class').match(/r\\d+/)[0])"
    assert page.evaluate(lit) == []
    page.hover("#losses [data-run='1']")
    assert set(page.evaluate(lit)) == {"r1"}
    assert float(page.style("#losses .series.r0", "opacity")) < 0.2
    page.hover("h1")
    assert page.evaluate(lit) == []
    page.click("#losses [data-run='0']")
    page.press(Keys.TAB, Keys.TAB)
    assert set(page.evaluate(lit)) == {"r0"}
    assert page.find("#losses [data-run='0']").get_attribute("aria-pressed") == "true"


def test_drawings_follow_dark_mode_and_keep_their_contrast(page: Browser):
    def colours() -> set[str]:
        return {page.style(f".r{number} .curve", "stroke") for number in (0, 1)} | {page.style("svg text", "fill")}

    light = colours()
    page.prefer("dark")
    dark = colours()
    assert len(light) == len(dark) == 3
    assert not light & dark


@pytest.mark.parametrize("width", [360, 800, 1600])
def test_nothing_sticks_out_of_a_narrow_window(page: Browser, width: int):
    page.resize(width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_report_can_be_printed(page: Browser):
    pdf = page.pdf()
    assert pdf.startswith(b"%PDF") and len(pdf) > 10_000
    page.require_quiet()


def test_hostile_names_data_and_settings_are_shown_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, browser: Browser
):
    monkeypatch.chdir(tmp_path)
    name = "<img src=x onerror=alert(2)>{{7*7}}"
    write_run(Path(name), teacher=f"made/{HOSTILE}", store="javascript:alert(3)", dataset=HOSTILE)
    write_run(Path("other"), objective="mmi", teacher="made/{{7*7}}", dataset=HOSTILE)
    entry = next(Path(name, "provenance").glob("*.json"))
    entry.write_text(entry.read_text().replace('"molsaki"', json.dumps(HOSTILE), 1))
    summary = Path(name, "student", "seed-0", "training.json")
    log = json.loads(summary.read_text())
    log["log"][0][HOSTILE] = 1.0
    summary.write_text(json.dumps(log))
    result = report(name, "other", "--out", "hostile.html")
    assert result.exit_code == 0, result.output
    browser.open(Path("hostile.html"))
    browser.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")
    browser.require_quiet()
    assert browser.all("img") == []
    assert browser.texts("h1") == [f"{name}, other"]
    assert HOSTILE in browser.find("#accuracy").text
    assert f"made/{HOSTILE}" in browser.find("#made-from").text
    assert HOSTILE in browser.find("#losses").text
    assert "javascript:alert(3)" in browser.find("#configuration").text
    assert "49" not in browser.texts("h1")[0]


def test_hostile_reasons_and_outputs_do_not_matter(experiment: Experiment, browser: Browser):
    """Questions and answers of a real store; what a question says reaches the page in no form but counts."""
    rows = [json.loads(line) for line in Path("train.jsonl").read_text().splitlines()]
    rows[0]["Body"] = HOSTILE
    Path("train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    experiment.run()
    frame = pd.read_parquet("runs/small/evaluation/seed-0.parquet")
    assert len(frame)
    assert report("small").exit_code == 0
    browser.open(Path("runs/small/report.html"))
    browser.require_quiet()
    assert browser.texts("#data tbody tr")[0] == "training questions 10"
    assert LAYER_WEIGHTS not in browser.find("body").text


def test_a_run_ends_with_its_report(experiment: Experiment):
    result = experiment.run()
    assert "runs/small/report.html shows the run on one page" in result.stderr
    assert Path("runs/small/report.html").read_text().startswith("<!doctype html>")


def test_one_stage_alone_writes_no_report(experiment: Experiment):
    experiment.run("--only", "rationales")
    assert not Path("runs/small/report.html").exists()


def test_a_report_that_cannot_be_written_does_not_fail_the_run(experiment: Experiment):
    experiment.run()
    Path("runs/small/report.html").unlink()
    Path("runs/small/student/seed-0/layer_weights.parquet").write_bytes(b"damaged")
    result = experiment("run", "run.yaml")
    assert result.exit_code == 0
    assert "no report was written" in result.stderr and "layer_weights.parquet" in result.stderr
    assert '"exc' in Path("runs/small/log.jsonl").read_text() or "Traceback" in Path("runs/small/log.jsonl").read_text()
