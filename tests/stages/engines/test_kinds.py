"""Which engines there are: a file in `stages/engines/kinds` is one, and a package that it misses is named."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from data.errors import ConfigError, EngineError
from stages.engines.contract import Decoding, EngineSetup
from stages.engines.start import RestartingEngine, open_engine
from stages.runtime.packages import needed
from stages.settings import ENGINES, RationaleSettings, engine_names
from tests.engines import ENGINES as UNDER_CONTRACT

ROOT = Path(__file__).parents[3]
ECHO = '''
"""An engine that says what it is asked."""
from stages.engines.contract import Engine, Generation

class EchoEngine(Engine):
    def __init__(self, setup):
        self.end = setup.model
    def stream(self, prompts, decoding=None):
        for place, prompt in enumerate(prompts):
            yield place, Generation(text=f"{prompt} {self.end}", finish_reason="stop")
    def close(self):
        pass

ENGINE = EchoEngine
'''
OPENS_WHAT_IS_CONFIGURED = """
from pathlib import Path
from pipeline.config.load import load_config
from stages.engines.contract import Decoding, EngineSetup
from stages.engines.start import open_engine
from stages.settings import engine_names

assert engine_names() == ("vllm", "transformers", "openai", "ray", "echo-back"), engine_names()
name = load_config(Path("run.yaml")).rationales.engine
with open_engine(name, EngineSetup(model="there", revision=None, decoding=Decoding(max_tokens=1))) as engine:
    print(name, engine.generate(["hello"])[0].text)
"""
CONFIG = """\
name: small
store: store
data:
  train: [{name: svamp, path: train.jsonl}]
  test: [{name: svamp, path: test.jsonl}]
teacher: {model: ./teacher}
rationales: {engine: echo-back}
student: {model: ./student}
"""
SETUP = EngineSetup(model="m", revision=None, decoding=Decoding(max_tokens=1))


def test_every_file_of_the_folder_is_an_engine_and_held_to_the_contract() -> None:
    names = {path.stem.replace("_", "-") for path in ENGINES.glob("[!_]*.py")}
    tested = {name if isinstance(name, str) else name.values[0] for name in UNDER_CONTRACT}
    assert names == set(engine_names()) == tested


def test_names_stand_in_messages_in_their_order() -> None:
    assert engine_names() == ("vllm", "transformers", "openai", "ray")
    with pytest.raises(ValidationError, match="'vllm', 'transformers', 'openai', 'ray' or 'file'"):
        TypeAdapter(RationaleSettings).validate_python({"engine": "gpt"})


def test_a_file_that_is_dropped_in_is_an_engine_of_the_configuration(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "stages", tmp_path / "stages")
    (tmp_path / "stages" / "engines" / "kinds" / "echo_back.py").write_text(ECHO)
    (tmp_path / "run.yaml").write_text(CONFIG)
    done = subprocess.run(
        [sys.executable, "-P", "-c", OPENS_WHAT_IS_CONFIGURED],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["echo-back hello there"], done.stderr


@pytest.mark.parametrize(
    ("name", "error", "wanted"),
    [("openai", ConfigError, r"molsaki\[server\]"), ("ray", EngineError, r"molsaki\[ray\]")],
)
def test_a_package_that_an_engine_misses_is_named_with_its_command(
    name: str, error: type[Exception], wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"stages.engines.kinds.{name}", raising=False)
    with pytest.raises(error, match=rf"rationales.engine: {name} is not installed.*pip install '{wanted}'"):
        open_engine(name, SETUP)


def test_a_package_that_is_there_and_fails_says_why() -> None:
    with pytest.raises(ConfigError, match=r"x: vllm is not installed.*\(no such library\)"), needed("vllm", "x"):
        raise ImportError("no such library", name="libcuda")


def test_only_engines_that_say_so_are_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.engines.kinds import transformers, vllm

    monkeypatch.setattr(vllm, "ENGINE", lambda setup: setup)
    monkeypatch.setattr(transformers, "ENGINE", lambda setup: setup)
    restarted = EngineSetup(model="m", revision=None, decoding=Decoding(max_tokens=1), restarts=2)
    assert isinstance(open_engine("vllm", restarted), RestartingEngine)
    assert open_engine("vllm", SETUP) is SETUP
    assert open_engine("transformers", restarted) is restarted
