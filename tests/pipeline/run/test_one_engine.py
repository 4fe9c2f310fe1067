"""Rationales and attention by one vLLM: which process records what, by whose engine. Engine and pass are scripted.

With the real ones: `tests/test_whole_pipeline.py` and `tests/stages/attention/in_vllm`.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import Result

from cache.reader import recorded_keys
from cache.spaces import Space
from data.errors import ModelError
from pipeline.run.processes import ForwardingStop
from tests.fakes import ScriptedEngine
from tests.pipeline.conftest import Experiment
from tests.pipeline.run.conftest import EVERYTHING, Teacher

BY_VLLM = ("--set", "rationales.engine=vllm", "--set", "attention.engine=vllm")
ONE_ENGINE = ("--with-attention", *BY_VLLM)


class ByVllm:
    """Stands in for the pass by vLLM."""

    def __init__(self, experiment: Experiment) -> None:
        self._write = experiment.scripted.write_attention
        self.recorded = experiment.scripted.attention
        self.by: Counter[ScriptedEngine | None] = Counter()
        """How many records the passes have committed that were given an engine, or none."""
        self.refuses = False
        self.commands: list[list[str]] = []
        """The commands of stages, without their options."""

    def write(self, *arguments: object, engine: ScriptedEngine | None, **options: object) -> None:
        """Commit what is missing."""
        if self.refuses:
            raise ModelError("no attention of this teacher")
        before = len(self.recorded)
        self._write(*arguments, **options)  # type: ignore[arg-type]
        self.by[engine] += len(self.recorded) - before


@pytest.fixture
def by_vllm(experiment: Experiment, teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> ByVllm:
    """The experiment with a scripted vLLM."""
    seen = ByVllm(experiment)
    kind, writing = ModuleType("stages.engines.kinds.vllm"), ModuleType("stages.attention.in_vllm.write")
    kind.ENGINE = teacher.open  # type: ignore[attr-defined]
    writing.write_attention_by_vllm = seen.write  # type: ignore[attr-defined]
    writing.vllm_of = lambda engine: engine  # type: ignore[attr-defined]
    for module in (kind, writing):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    here = ForwardingStop.run

    def run(self: ForwardingStop, command: Sequence[str]) -> int:
        seen.commands.append([argument for argument in command[4:6] if not argument.startswith("--")])
        return here(self, command)

    monkeypatch.setattr(ForwardingStop, "run", run)
    return seen


def matrix(**values: Sequence[object]) -> tuple[str, str]:
    return "--set", f"matrix={json.dumps({name.replace('__', '.'): given for name, given in values.items()})}"


def done(experiment: Experiment, *arguments: str) -> Result:
    result = experiment(arguments[0], "run.yaml", *arguments[1:])
    assert result.exit_code == 0, result.output
    return result


def records() -> list[int]:
    """How many records each space of attention holds."""
    return sorted(len(recorded_keys(Space.open(path))) for path in Path("store/attention").iterdir())


@pytest.mark.parametrize("command", [("run",), ("rationales", "--with-attention")])
def test_the_engine_that_writes_rationales_records_their_attention(
    experiment: Experiment, teacher: Teacher, by_vllm: ByVllm, command: tuple[str, ...]
) -> None:
    done(experiment, *command, *BY_VLLM)
    assert by_vllm.by == {teacher.engines[0]: 10} and len(teacher.engines) == 1


def test_rationales_alone_record_none(experiment: Experiment, by_vllm: ByVllm) -> None:
    done(experiment, "rationales", *BY_VLLM)
    done(experiment, "rationales", *BY_VLLM, *matrix(training__epochs=[1, 2]))
    assert not by_vllm.by


def test_a_point_without_attention_does_not_keep_it_from_the_others(
    experiment: Experiment, teacher: Teacher, by_vllm: ByVllm
) -> None:
    done(experiment, "run", *BY_VLLM, *matrix(objective__name=["dss", "molsaki"]))
    assert by_vllm.by == {teacher.engines[0]: 10} and len(teacher.engines) == 1


def test_attention_that_is_refused_stops_no_point_that_needs_none(
    experiment: Experiment, teacher: Teacher, by_vllm: ByVllm
) -> None:
    by_vllm.refuses = True
    objectives = matrix(objective__name=["dss", "molsaki"])
    ran = experiment("run", "run.yaml", *BY_VLLM, *objectives)
    assert ran.exit_code == 1 and ran.stderr.count("no attention of this teacher") == 2
    assert teacher.asked == EVERYTHING and experiment.scripted.trained == [0, 1]
    assert "rationales: going on without the attention, which the next stage tries by itself" in ran.stderr
    by_vllm.refuses = False
    done(experiment, "run", *BY_VLLM, *objectives)
    assert teacher.asked == EVERYTHING and experiment.scripted.trained == [0, 1, 0, 1]


@pytest.mark.parametrize("command", [("run",), ("rationales", "--with-attention")])
def test_one_engine_records_the_attention_of_all_points_that_share_rationales(
    experiment: Experiment, teacher: Teacher, by_vllm: ByVllm, command: tuple[str, ...]
) -> None:
    """Two points differ in their attention, and each is there with two objectives."""
    varied = matrix(objective__name=["dss", "molsaki"], attention__keep_bits=[7, 8])
    done(experiment, *command, *BY_VLLM, *varied)
    assert by_vllm.by == {teacher.engines[0]: 20} and len(teacher.engines) == 1
    assert records() == [10, 10]
    done(experiment, *command, *BY_VLLM, *varied)
    assert by_vllm.by.total() == 20 and len(teacher.engines) == 1


def test_what_a_kill_left_out_of_one_of_several_is_recorded_by_the_same_command(
    experiment: Experiment, teacher: Teacher, by_vllm: ByVllm
) -> None:
    done(experiment, *("rationales", *ONE_ENGINE), "--set", "attention.keep_bits=7")
    varied = matrix(objective__name=["dss", "molsaki"], attention__keep_bits=[7, 8])
    done(experiment, "rationales", *ONE_ENGINE, *varied)
    assert by_vllm.by == {teacher.engines[0]: 10, None: 10}
    done(experiment, "rationales", *ONE_ENGINE, *varied)
    assert by_vllm.by.total() == 20 and records() == [10, 10]


def test_shards_of_a_matrix_record_what_their_own_questions_gave(
    experiment: Experiment, teacher: Teacher, by_vllm: ByVllm
) -> None:
    varied = matrix(attention__keep_bits=[7, 8])
    for shard in ("1/2", "2/2"):
        done(experiment, "rationales", *ONE_ENGINE, *varied, "--shard", shard)
    assert records() == [10, 10] and len(teacher.engines) == 2
    assert by_vllm.by.keys() == {*teacher.engines}


def test_further_sources_come_first_and_their_records_are_read_too(
    experiment: Experiment, teacher: Teacher, by_vllm: ByVllm
) -> None:
    rows = [{"id": f"q-{n}", "rationale": f"Add 2 to {n}, that is {n + 2}.", "answer": str(n + 2)} for n in range(1, 5)]
    Path("more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    more = ("--set", 'more_rationales=[{"rationales": {"engine": "file", "path": "more.jsonl"}}]')
    done(experiment, "run", *BY_VLLM, *more)
    assert by_vllm.commands[:2] == [
        ["rationales", "runs/small/rationales-2/config.yaml"],
        ["rationales", "runs/small/config.yaml"],
    ]
    assert by_vllm.by == {teacher.engines[0]: 14} and len(teacher.engines) == 1


def test_points_that_have_no_such_engine_are_refused_where_it_is_asked_for(experiment: Experiment) -> None:
    mixed = ("--set", "rationales.engine=vllm", *matrix(attention__engine=["vllm", "transformers"]))
    without = (*BY_VLLM, *matrix(objective__name=["dss", "mmi"]))
    for points in (mixed, without):
        refused = experiment("rationales", "run.yaml", "--with-attention", *points)
        assert refused.exit_code == 2 and "--with-attention: " in refused.stderr


@pytest.mark.parametrize("shards", [(None,), ("2/2", "1/2")])
def test_attention_that_an_engine_was_killed_over_is_recorded_by_the_same_command(
    experiment: Experiment, teacher: Teacher, by_vllm: ByVllm, shards: tuple[str | None, ...]
) -> None:
    """All rationales are committed, of the attention nothing is: what is left has an engine of its own."""
    done(experiment, "rationales")
    asked = teacher.asked
    for shard in shards:
        said = done(experiment, "rationales", *ONE_ENGINE, *(() if shard is None else ("--shard", shard))).stderr
        assert "nothing to do" in said and "attention: " in said
    assert sorted(experiment.scripted.attention) == sorted(set(experiment.scripted.attention))
    assert len(experiment.scripted.attention) == 10 and teacher.asked == asked
    again = done(experiment, "rationales", *ONE_ENGINE)
    assert "attention: 10 of 10 records there, nothing to do" in again.stderr
    assert len(experiment.scripted.attention) == 10
