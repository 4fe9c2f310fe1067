"""What docs/training.md shows can be used as it stands."""

from pathlib import Path

import pytest
import yaml

from pipeline.config.load import load_config
from stages.student.adapters import adapter_config
from tests.test_documents import ROOT, blocks

DOCUMENT = ROOT / "docs" / "training.md"
SHOWN = [body for body in blocks(DOCUMENT, "yaml") if "fsdp_config" not in body]


@pytest.mark.parametrize("body", SHOWN)
def test_configurations_load(body: str, tmp_path: Path) -> None:
    whole = {
        "name": "shown",
        "data": {"train": [{"name": "synthetic"}]},
        "teacher": {"model": "t"},
        "student": {"model": "s"},
        **yaml.safe_load(body),
    }
    (tmp_path / "shown.yaml").write_text(yaml.safe_dump(whole))
    config = load_config(tmp_path / "shown.yaml")
    if config.student.peft:
        adapter_config(config.student.peft)


def test_the_file_for_accelerate_is_one_that_it_takes(tmp_path: Path) -> None:
    from accelerate.commands.config.config_args import ClusterConfig

    (body,) = (one for one in blocks(DOCUMENT, "yaml") if "fsdp_config" in one)
    (tmp_path / "fsdp.yaml").write_text(body)
    config = ClusterConfig.from_yaml_file(tmp_path / "fsdp.yaml")
    assert config.distributed_type == "FSDP" and config.fsdp_config["fsdp_version"] == 2


def test_every_kind_of_setting_is_shown() -> None:
    keys = {key for body in SHOWN for key in (yaml.safe_load(body).get("training") or {})}
    assert {"processes", "early_stopping", "report_to"} <= keys
