"""One engine for several students: it stays where it proves to be the next one, and is started anew where it does not.

The scripted engine stands in for those faults that a real one shows on some machine only; what it does is held against
the real one below.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from data.errors import EngineError
from stages.engines import reuse
from stages.engines.contract import Answers, Decoding, Engine, EngineSetup, Generation
from stages.engines.reuse import ReusedEngines, log_probabilities
from tests.fakes import tiny_model_folder

SETUP = EngineSetup(model="", revision=None, decoding=Decoding(max_tokens=8), dtype="float32", device="cpu")
PROMPTS = ["Ann has 3 figs.", "Tom finds 12 more."]


class Scripted(Engine):
    """Answers with its model's name; `takes` says which weights it has after a reload."""

    reloads = True

    def __init__(self, setup: EngineSetup, takes: Callable[[str, str], str]) -> None:
        self.model, self._takes, self.closed = setup.model, takes, False

    def stream(self, prompts: Sequence[str], decoding: Decoding | None = None) -> Answers:
        yield from ((place, Generation(text=self.model, finish_reason="stop")) for place in range(len(prompts)))

    def reload(self, model: str) -> None:
        self.model = self._takes(self.model, model)

    def log_probabilities(self, ids: Sequence[int]) -> list[float]:
        return log_probabilities(self.model, ids)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def students(tmp_path: Path) -> list[str]:
    """Three students, alike but for their weights."""
    return [str(tiny_model_folder(tmp_path / f"student-{seed}", "llama", seed=seed)) for seed in range(3)]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str, str], str]], list[Scripted]]:
    """Let engines be scripted; returns those that are started."""

    def script(takes: Callable[[str, str], str]) -> list[Scripted]:
        engines: list[Scripted] = []

        def start(_name: str, setup: EngineSetup) -> Scripted:
            engines.append(Scripted(setup, takes))
            return engines[-1]

        monkeypatch.setattr(reuse, "open_engine", start)
        return engines

    return script


def setup_of(student: str) -> EngineSetup:
    return EngineSetup(**{**vars(SETUP), "model": student})


def asked(engines: ReusedEngines, student: str, **changes: object) -> str:
    setup = EngineSetup(**{**vars(SETUP), "model": student, **changes})  # type: ignore[arg-type]
    with engines.answering("vllm", setup) as engine:
        return engine.generate(["?"])[0].text


def test_an_engine_that_takes_the_weights_serves_all_students(students, started):
    notes: list[str] = []
    running = started(lambda _old, new: new)
    with ReusedEngines(notes.append) as engines:
        assert [asked(engines, student) for student in students] == students
        assert len(running) == 1 and not running[0].closed and notes == []
    assert running[0].closed


def test_an_engine_that_keeps_old_weights_is_noticed_and_not_tried_again(students, started):
    notes: list[str] = []
    running = started(lambda old, _new: old)
    with ReusedEngines(notes.append) as engines:
        assert [asked(engines, student) for student in students] == students
    assert len(running) == 3 and all(engine.closed for engine in running)
    assert len(notes) == 1 and notes[0].startswith("an engine for each student: one that was given new weights is ")


def test_an_engine_that_keeps_a_part_of_the_old_weights_is_noticed(students, started, tmp_path):
    """The head alone, as where it is shared with the embeddings."""

    def mixed(old: str, new: str) -> str:
        model, other = AutoModelForCausalLM.from_pretrained(new), AutoModelForCausalLM.from_pretrained(old)
        model.lm_head.weight = torch.nn.Parameter(other.lm_head.weight.detach().clone())
        model.config.tie_word_embeddings = False
        model.save_pretrained(tmp_path / "mixed")
        return str(tmp_path / "mixed")

    running = started(mixed)
    with ReusedEngines(lambda _line: None) as engines:
        assert [asked(engines, student) for student in students[:2]] == students[:2]
    assert len(running) == 2


def test_students_that_cannot_be_told_apart_get_an_engine_each(students, started, tmp_path):
    notes: list[str] = []
    same = str(shutil.copytree(students[0], tmp_path / "same"))
    running = started(lambda _old, new: new)
    with ReusedEngines(notes.append) as engines:
        assert [asked(engines, student) for student in (students[0], same)] == [students[0], same]
    assert len(running) == 2 and "too much alike to be told apart" in notes[0]


def test_another_configuration_tokenizer_or_setup_gets_an_engine_of_its_own(students, started):
    running = started(lambda _old, new: new)
    config = json.loads((Path(students[1]) / "config.json").read_text())
    (Path(students[1]) / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    with (Path(students[2]) / "tokenizer.json").open("a") as file:
        file.write("\n")
    with ReusedEngines(lambda _line: None) as engines:
        for student in students:
            assert asked(engines, student) == student
        assert len(running) == 3
        assert asked(engines, students[2], decoding=Decoding(max_tokens=9)) == students[2]
        assert len(running) == 4


def test_an_engine_that_failed_is_ended_and_the_next_student_gets_another(students, started):
    running = started(lambda _old, new: new)
    with ReusedEngines(lambda _line: None) as engines:
        with pytest.raises(EngineError, match="died"), engines.answering("vllm", setup_of(students[0])):
            raise EngineError("died")
        assert running[0].closed
        assert asked(engines, students[1]) == students[1]
    assert len(running) == 2


def written(answers: Sequence[Generation]) -> list[str]:
    """Texts; of a character that the last token begins engines say nothing, or that it is none."""
    return [answer.text.rstrip("\N{REPLACEMENT CHARACTER}") for answer in answers]


@pytest.mark.vllm
@pytest.mark.slow
def test_vllm_is_the_next_student_where_it_proves_to_be(tmp_path: Path):
    """Whatever the embeddings, each student answers as transformers lets it; untied ones by one engine."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    notes: list[str] = []
    folders = []
    for seed in range(2):
        folder = tiny_model_folder(tmp_path / f"student-{seed}", "llama", hidden=128, seed=seed)
        model = AutoModelForCausalLM.from_pretrained(folder)
        model.config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight) * 0.1)
        model.save_pretrained(folder)
        folders.append(str(folder))
    answers = []
    with ReusedEngines(notes.append) as engines:
        for folder in folders:
            setup = EngineSetup(**{**vars(SETUP), "model": folder, "arguments": {"max_model_len": 128}})
            with engines.answering("vllm", setup) as engine:
                answers.append(engine.generate(PROMPTS))
        assert notes == []
    for folder, found in zip(folders, answers, strict=True):
        with reuse.open_engine("transformers", EngineSetup(**{**vars(SETUP), "model": folder})) as engine:
            assert written(engine.generate(PROMPTS)) == written(found)
    assert answers[0] != answers[1]
