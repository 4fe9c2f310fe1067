"""The stage of soft labels as the command line runs it, with real models that are tiny."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cache import open_soft_labels
from cache.keys import record_key
from cache.soft_labels.reader import SoftLabelStore
from cache.spaces import Space
from pipeline.config.matrix import load_matrix
from pipeline.run.points import Run, look
from pipeline.run.provenance import read_provenance
from stages.soft_labels.head import TeacherHead
from stages.student.model import DistillationModel
from stages.student.objective import Objective
from tests.pipeline.conftest import Tiny

TOP = ("--set", "objective={name: fine-tune-cot, terms: {soft_labels: {weight: 0.4}}}")
TEXT = "objective.terms.soft_labels={weight: 0.5, match: text}"
WORDS = ("--set", "student={model: ./words, initialise: random}")


def space(layout: str) -> Path:
    """The only space with such a layout."""
    (found,) = Path("store/soft-labels").glob(f"teacher-{layout}*")
    return found


def stored(path: Path) -> SoftLabelStore:
    return SoftLabelStore(Space.open(path))


def plans(tiny: Tiny, *arguments: str, command: str = "status", name: str = "tiny") -> dict[str, dict[str, Any]]:
    """What a command says for machines of each stage."""
    result = tiny(command, "--json", *arguments, name=name)
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    return {plan["name"]: plan for plan in (said["stages"] if isinstance(said, dict) else said)}


def counts(found: dict[str, dict[str, Any]]) -> dict[str, tuple[int, int]]:
    return {name: (plan["done"], plan["to_do"]) for name, plan in found.items()}


def test_mentor_kd_goes_through_its_stages_and_does_nothing_again(tiny: Tiny) -> None:
    first = tiny.run()
    started = [line.partition(":")[0] for line in first.stderr.splitlines() if line.endswith("done") or "done;" in line]
    assert [name for name in started if name != "loading teacher"] == ["rationales", "soft-labels", "train", "evaluate"]
    trained = tiny.trained()
    assert trained["objective"]["name"] == "mentor-kd" and trained["attention"] is None and trained["records"] == 8
    assert all(entry["L_soft"] > 0 for entry in trained["log"] if "L_soft" in entry)
    assert not Path("store/attention").exists()
    again = tiny.run()
    assert again.stderr.count("nothing to do") == 4 and "warning" not in again.stderr
    assert counts(plans(tiny)) == {"rationales": (8, 0), "soft-labels": (8, 0), "train": (1, 0), "evaluate": (1, 0)}


def test_what_a_student_learned_from_stands_beside_it(tiny: Tiny) -> None:
    tiny.run()
    labels = stored(space("hidden")).space.fingerprint
    assert tiny.trained()["soft_labels"] == labels
    assert (
        f"| teacher's soft labels | cache fingerprint `{labels}` |"
        in Path("runs/tiny/student/seed-0/README.md").read_text()
    )
    report = Path("runs/tiny/report.html").read_text()
    assert labels in report and "L_soft, soft labels" in report
    (record,) = [record for record in read_provenance(Path("runs/tiny")).stages if record.stage == "soft-labels"]
    assert (record.units, record.outcome, dict(record.fingerprints)) == (8, "done", {"soft-labels": labels})


def test_the_layout_follows_from_the_loss(tiny: Tiny) -> None:
    for layout, k, arguments in (
        ("hidden", None, ()),
        ("top", 64, TOP),
        ("top", 9, (*TOP, "--set", "soft_labels.k=9")),
        ("top", 64, ("--set", TEXT)),
        ("hidden", None, ("--set", "objective.terms.soft_labels={temperature: 1.5}")),
        ("top", 64, ("--set", "objective.name=dss", "--set", "evaluation.prompts=[predict]")),
    ):
        matrix = load_matrix(Path("tiny.yaml"), arguments[1::2])
        (stages,) = look(Run(matrix=matrix, folder=Path("runs/tiny")))
        spec = stages.soft_labels.spec
        assert (spec["layout"], spec.get("k")) == (layout, k), arguments


@pytest.mark.parametrize(
    ("layout", "term"),
    [
        ("top", "{weight: 0.4}"),
        ("top", "{divergence: jensen-shannon, temperature: 2}"),
        ("sampled", "{}"),
        ("hidden", "{divergence: reverse-kl, temperature: 3}"),
        ("hidden", "{match: text}"),
    ],
)
def test_students_are_trained_from_each_layout(tiny: Tiny, layout: str, term: str) -> None:
    tiny.run(
        "--set", f"objective.terms.soft_labels={term}", "--set", f"soft_labels.layout={layout}", "--set", "data.test=[]"
    )
    (path,) = Path("store/soft-labels").iterdir()
    assert len(stored(path)) == 8 and stored(path).layout == layout
    assert tiny.trained()["log"][0]["L_soft"] > 0


def test_all_that_a_layout_costs_is_said_before_anything_is_written(tiny: Tiny) -> None:
    table = " ".join(tiny("status").stdout.split())
    assert (
        "soft-labels: after rationales; each of 8 questions gives a record; hidden, about 142 bytes a target token, "
        in table
    )
    assert "the head 32.4 KiB once" in table and not Path("store").exists()  # 4 bytes x width 32, and 259 tokens
    assert tiny("rationales").exit_code == 0
    of_hidden, of_top = plans(tiny)["soft-labels"]["cost"], plans(tiny, *TOP)["soft-labels"]["cost"]
    tokens = 8 * (sum(len(f"{n} and 2 make {n + 2}. The answer is {n + 2}.") for n in range(1, 9)) / 8 / 3.5 + 1)
    assert of_hidden["bytes"]["value"] == pytest.approx(tokens * 142 + 259 * 32 * 4, rel=0.02)
    assert of_top["bytes"]["value"] == pytest.approx(tokens * (3.3 * 64 + 14), rel=0.02)
    assert of_hidden["bytes"]["source"] == of_hidden["peak_bytes"]["source"] == "rough"
    said = " ".join(tiny("run", "--dry-run").stdout.split())
    assert "for a map of the soft labels, once for all students" in said
    assert {path.name for path in Path("store").iterdir()} == {"rationales"}
    tiny.run("--only", "soft-labels")
    known = plans(tiny, "--set", "data.train.0.limit=4", name="other")["soft-labels"]
    assert counts({"soft-labels": known}) == {"soft-labels": (4, 0)} and known["cost"] is None


def test_a_dry_run_writes_nothing(tiny: Tiny) -> None:
    for arguments in (("run",), ("soft-labels",), ("soft-labels", "--shard", "1/2"), ("train",)):
        assert tiny(arguments[0], "--dry-run", *arguments[1:]).exit_code == 0
    assert not Path("store").exists() and not Path("runs").exists()


def test_a_limit_and_one_stage_only(tiny: Tiny) -> None:
    early = tiny("run", "--only", "soft-labels")
    assert early.exit_code == 1 and "molsaki rationales CONFIG" in early.stderr
    tiny.run("--limit", "3")
    assert len(stored(space("hidden"))) == 3 and tiny.trained("tiny-limit-3")["records"] == 3
    assert tiny("rationales").exit_code == 0
    tiny.run("--only", "soft-labels")
    assert len(stored(space("hidden"))) == 8 and not Path("runs/tiny/student").exists()


def test_shards_share_out_the_records(tiny: Tiny) -> None:
    assert tiny("rationales").exit_code == 0
    whole = counts(plans(tiny))["soft-labels"]
    shares = [
        counts(plans(tiny, "--dry-run", "--shard", f"{n}/2", command="soft-labels"))["soft-labels"] for n in (1, 2)
    ]
    assert whole == (0, 8) and sum(to_do for _, to_do in shares) == 8 and all(to_do for _, to_do in shares)
    first = tiny("soft-labels", "--shard", "1/2")
    assert first.exit_code == 0 and "soft-labels, shard 1/2: " in first.stderr
    assert len(stored(space("hidden"))) == shares[0][1]
    early = tiny("train")
    assert early.exit_code == 1 and f"soft labels of {shares[1][1]} records are missing" in early.stderr
    assert tiny("soft-labels", "--shard", "2/2").exit_code == 0
    assert len(stored(space("hidden"))) == 8 and tiny("train").exit_code == 0


def test_missing_soft_labels_name_the_command(tiny: Tiny) -> None:
    assert tiny("rationales").exit_code == 0
    for arguments in (("train",), ("run", "--shard", "1/1")):
        result = tiny(*arguments)
        assert result.exit_code == 1 and "molsaki soft-labels CONFIG" in result.stderr, result.output
        assert "molsaki attention" not in result.stderr
    assert "soft labels of 8 records are missing; make them with" in tiny("train").stderr


def test_a_run_without_soft_labels_can_still_record_some(tiny: Tiny) -> None:
    without = ("--set", "objective.name=fine-tune-cot")
    assert "soft-labels" not in plans(tiny, *without)
    assert tiny("rationales", *without).exit_code == tiny("soft-labels", *without).exit_code == 0
    assert len(stored(space("top"))) == 8
    tiny.run(*without)
    assert "nothing to do" in tiny.run(*without).stderr and "soft_labels" not in tiny.trained()


def test_points_share_a_space_or_have_their_own(tiny: Tiny) -> None:
    name, term = "objective.name", "objective.terms.soft_labels"
    points = [
        {name: ["fine-tune-cot"]},
        {name: ["mentor-kd"], "objective.beta": [0.3, 0.6]},
        {name: ["fine-tune-cot"], term: [{"weight": 0.5}]},
    ]
    matrix = ("--set", f"matrix={json.dumps(points)}")
    said = json.loads(tiny("status", "--json", *matrix).stdout)
    assert [sorted(stage["name"] for stage in point["stages"]) for point in said["points"]] == [
        ["evaluate", "rationales", "train"],
        *[["evaluate", "rationales", "soft-labels", "train"]] * 3,
    ]
    ran = tiny.run(*matrix)
    assert "for 2 of 4 points" in ran.stderr and "for 1 of 4 points" in ran.stderr
    assert {path.name.rpartition("-")[0] for path in Path("store/soft-labels").iterdir()} == {
        "teacher-hidden", "teacher-top-64",
    }  # fmt: skip
    found = [json.loads(path.read_text()) for path in sorted(Path("runs/tiny").glob("*/student/seed-0/training.json"))]
    spaces = {each["run"]: each.get("soft_labels") for each in found}
    assert len(found) == 4 and len(set(spaces.values())) == 3
    again = tiny("soft-labels", *matrix)
    assert again.exit_code == 0 and again.stderr.count("8 of 8 records there, nothing to do") == 2


def test_too_long_records_are_dropped_counted_and_left_out_of_training(tiny: Tiny) -> None:
    texts = {n: f"{n} and 2 make {n + 2}." for n in range(1, 8)} | {
        8: f"{'8 and then some more. ' * 9}8 and 2 make 10."
    }
    tiny.write_rationales("rationales.jsonl", texts)
    tiny.run("--set", "soft_labels.max_length=160")  # of 259 tokens, each a byte
    plan = plans(tiny, "--set", "soft_labels.max_length=160")["soft-labels"]
    assert (plan["done"], plan["dropped"]) == (8, {"longer than max_length": 1})
    assert tiny.trained()["records"] == 7 and len(stored(space("hidden"))) == 7
    assert "longer than max_length" in Path("runs/tiny/report.html").read_text()
    nothing = tiny("run", "--set", "soft_labels.max_length=5")
    assert nothing.exit_code == 1 and tiny.trained()["records"] == 7, "the student of before stays"
    assert "no record is left to train on (longer than max_length 8); soft_labels.max_length" in nothing.stderr


def test_a_student_of_another_vocabulary_is_refused_before_anything_is_paid_for(tiny: Tiny) -> None:
    for command in ("run", "status", "soft-labels", "train"):
        result = tiny(command, *WORDS)
        assert result.exit_code == 2, result.output
        assert "objective.terms.soft_labels.match: tokens compares distributions over one vocabulary" in result.stderr
        assert "that of words (" in result.stderr and "`match: text` compares pieces of text" in result.stderr
    assert not Path("store").exists()
    tiny.run(*WORDS, "--set", TEXT)
    assert tiny.trained()["log"][0]["L_soft"] > 0


def test_stored_soft_labels_are_those_of_the_records(tiny: Tiny) -> None:
    tiny.run("--only", "rationales")
    tiny.run("--only", "soft-labels")
    (stages,) = look(Run(matrix=load_matrix(Path("tiny.yaml")), folder=Path("runs/tiny")))
    marked = [example.marked for example in stages.all_attention.selection.examples]
    labels = open_soft_labels(space("hidden"))
    assert set(labels) == {record_key(one) for one in marked}
    for one in marked:  # a token is a byte, and the end of the text one more
        assert labels[record_key(one)].ends.tolist() == [*range(1, len(one.rationale) + 1), len(one.rationale)]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["soft_labels={layout: top, k: 260}"], "soft_labels.k: expected at most 259, the tokens that teacher knows"),
        (["soft_labels.piece=5000"], "soft_labels.piece: expected at most 4,096, found 5,000"),
        (["soft_labels.layout=sampled"], "`hidden` tells the forward-kl at temperature 2"),
        (["objective.beta=2"], "objective.beta: expected at most 1, the share of L_soft in the loss, found 2"),
        (
            ["objective.terms.soft_labels={temperature: .inf}"],
            "terms.soft_labels.temperature: expected a finite number",
        ),
        (["objective.terms.attention={tau_teacher: .inf}"], "objective.terms.attention.tau_teacher: expected a finite"),
        (
            ["student.peft={peft_type: LORA, r: 2, lora_alpha: .inf}"],
            "student.peft.lora_alpha: expected a finite number",
        ),
        (["teacher.quantization={quant_method: x, y: .nan}"], "teacher.quantization.y: expected a finite number"),
        (["objective.tasks=[predict]"], "objective.terms.soft_labels: needs explain among the tasks"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(tiny: Tiny, overrides: list[str], line: str) -> None:
    assert line in tiny.refused(*overrides)


class Kept(Objective):
    """Says which head it was given."""

    name, preset_tasks = "kept", ("explain",)

    def losses(self, step: Any) -> Any:
        return {"device": step.teacher_head.weight.device, "bias": step.teacher_head.bias.device}


def test_the_teachers_head_follows_the_batch(tiny: Tiny) -> None:
    from stages.settings import ObjectiveSettings
    from tests.fakes import tiny_model

    head = TeacherHead(weight=torch.ones(5, 4), bias=torch.ones(5))
    assert head.on(torch.device("cpu")) is head
    model = DistillationModel(
        tiny_model("llama"), Kept(ObjectiveSettings(name="kept")), learning_rate=1.0, teacher_head=head
    )
    said = model(explain_ids=torch.zeros(1, 2, dtype=torch.long, device="meta"))
    assert str(said["device"]) == str(said["bias"]) == "meta"


PLAIN = ("--set", "objective={name: molsaki-cot, terms: {soft_labels: {}}}", "--set", "soft_labels.context=plain")


def test_attention_and_soft_labels_of_the_same_texts_come_from_one_pass(tiny: Tiny) -> None:
    tiny.run(*PLAIN, "--only", "rationales")
    said = tiny("attention", *PLAIN).stderr
    assert "soft labels come from the same pass" in said
    assert counts(plans(tiny, *PLAIN)) == {
        "rationales": (8, 0), "attention": (8, 0), "soft-labels": (8, 0), "train": (0, 1), "evaluate": (0, 1),
    }  # fmt: skip
    said = tiny.run(*PLAIN).stderr
    assert "soft-labels: 8 of 8 records there, nothing to do" in said
    assert tiny.trained()["attention"] and tiny.trained()["soft_labels"]


@pytest.mark.parametrize(
    "other", [("--set", "soft_labels.context=student"), ("--set", "soft_labels.begin_token=false")]
)
def test_other_texts_have_a_pass_of_their_own(tiny: Tiny, other: tuple[str, str]) -> None:
    tiny.run(*PLAIN, *other, "--only", "rationales")
    assert "same pass" not in tiny("attention", *PLAIN, *other).stderr
    assert counts(plans(tiny, *PLAIN, *other))["soft-labels"] == (0, 8)
