"""What `make setup` tells uv is what pip is told, and what is installed."""

import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

NAME = re.compile(r"[\w-]+")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).parents[1] / "requirements" / "install.py"
    spec = importlib.util.spec_from_file_location("install", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_settings_of_pip_by_hand(script: ModuleType) -> None:
    settings = {
        "index-url": "https://example.org/simple",
        "extra-index-url": "file:///a/simple https://example.org/more",
        "find-links": "/wheels",
        "constraint": "/constraints.txt",
        "cert": "/ca.pem",
        "timeout": "5",
        "no-index": "true",
    }
    arguments, variables = script.translated(settings)
    assert arguments == [
        "--index-strategy", "unsafe-best-match", "--default-index", "https://example.org/simple",
        "--index", "file:///a/simple", "--index", "https://example.org/more", "--find-links", "/wheels",
        "--constraints", "/constraints.txt", "--no-index",
    ]  # fmt: skip
    assert variables == {"SSL_CERT_FILE": "/ca.pem"}
    assert script.translated({}) == (["--index-strategy", "unsafe-best-match"], {})


def test_the_environment_wins_over_pips_files(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "pip.conf"
    file.write_text("[global]\nindex-url = https://example.org/file\nextra-index-url =\n  file:///a\n  file:///b\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    found = script.pip_settings()
    assert (found["index-url"], found["extra-index-url"]) == ("https://example.org/file", "file:///a file:///b")
    monkeypatch.setenv("PIP_INDEX_URL", "https://example.org/environment")
    assert script.pip_settings()["index-url"] == "https://example.org/environment"


@pytest.mark.parametrize("arguments", [[], ["tpu"], ["cpu", "gpu"]])
def test_what_is_not_asked_right_installs_nothing(
    script: ModuleType, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["install.py", *arguments])
    monkeypatch.setattr(script, "install", lambda *_: pytest.fail("it installs"))
    with pytest.raises(SystemExit, match=r"\Aerror: expected one of cpu, gpu, newest"):
        script.main()


def test_what_is_installed_by_hand(script: ModuleType) -> None:
    folder = Path(__file__).parents[1] / "requirements"
    project = ["--no-deps", "--editable", str(folder.parent)]
    assert script.steps("cpu") == [["torch==2.13.0"], ["--no-deps", "-r", str(folder / "cpu.txt")], project]
    assert script.steps("gpu") == [["--no-deps", "-r", str(folder / "gpu.txt")], project]
    assert script.steps("newest") == [["--upgrade", "-r", str(folder / "direct.in")], project]
    overridden = ["--upgrade", "--overrides", str(folder / "overrides.txt"), "-r", str(folder / "direct.in")]
    assert script.steps("newest", by_uv=True) == [overridden, project]
    assert script.steps("cpu", by_uv=True) == script.steps("cpu")


def test_the_newest_releases_are_all_that_the_project_needs_and_its_tests_without_vllm() -> None:
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = {NAME.match(one)[0] for one in [*project["dependencies"], *extras["dev"], *extras["server"]]}
    lines = (root / "requirements" / "direct.in").read_text(encoding="utf-8").splitlines()
    listed = {NAME.match(one)[0].replace("_", "-") for one in lines if not one.startswith("#")}
    assert listed == needed
    assert not any("==" in one or "<" in one for one in lines), "an upper bound is none of the newest"


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_the_engines_of_each_machine_are_those_of_its_extra(kind: str) -> None:
    root = Path(__file__).parents[1]
    extras = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    asked = (root / "requirements" / f"{kind}.in").read_text(encoding="utf-8").splitlines()
    assert asked == [*extras[kind], *extras["ray"]]
    pinned = (root / "requirements" / f"{kind}.txt").read_text(encoding="utf-8").splitlines()
    assert {one.replace("[data]", "") for one in asked} <= set(pinned)


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_the_extra_for_buckets_asks_for_what_is_pinned(kind: str) -> None:
    """s3fs takes one version of fsspec alone: any other pin would move it. gcsfs is in no environment of ours."""
    root = Path(__file__).parents[1]
    extras = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    pinned = (root / "requirements" / f"{kind}.txt").read_text(encoding="utf-8").splitlines()
    asked = {one.replace("[http]", "") for one in extras["remote"]}
    assert {one.partition("==")[0] for one in asked} == {"fsspec", "s3fs", "gcsfs"}
    assert {one for one in asked if not one.startswith("gcsfs")} <= set(pinned)
