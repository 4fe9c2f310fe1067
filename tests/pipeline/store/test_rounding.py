"""`molsaki cache show` says what storing has changed."""

import json
from pathlib import Path

from click.testing import CliRunner

from cache.certificates import NOTE, Certificate
from cache.writer import AttentionWriter
from pipeline.cli.main import molsaki
from tests.cache.truth import make_block, make_space

CERTIFICATE = Certificate(
    tau=0.1,
    records=2,
    values=12_345,
    sampled_records=2,
    largest_relative_error=0.00048,
    mean_relative_error=0.00012,
    largest_weight_change=3.1e-05,
    mean_weight_distance=1.2e-05,
    largest_target_divergence=4.5e-09,
    mean_target_divergence=1.5e-09,
)


def show(store: Path, *options: str) -> str:
    result = CliRunner().invoke(molsaki, ["cache", "show", "attention/teacher", "--store", str(store), *options])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_cache_show_states_the_certificate(tmp_path: Path) -> None:
    AttentionWriter(make_space(tmp_path)).append([make_block(1), make_block(2)], note={NOTE: CERTIFICATE.as_note()})
    shown = " ".join(show(tmp_path).split())
    assert "relative error at most 0.00048, 0.00012 in the mean of 12,345 values" in shown
    assert "change by at most 3.1e-05, total variation 1.2e-05 in the mean of 2 sampled records, tau 0.1" in shown
    assert "KL divergence 1.5e-09 nats in the mean, 4.5e-09 at most" in shown
    assert "not measured" not in shown and "recorded rounding" not in shown


def test_cache_show_adds_the_certificate_up_for_machines(tmp_path: Path) -> None:
    for number in (1, 3):
        blocks = [make_block(number), make_block(number + 1)]
        AttentionWriter(make_space(tmp_path)).append(blocks, note={NOTE: CERTIFICATE.as_note()})
    found = json.loads(show(tmp_path, "--json"))
    (certificate,) = found["certificates"]
    assert (certificate["values"], certificate["largest_relative_error"]) == (24_690, 0.00048)
    assert all(NOTE not in note for note in found["notes"])


def test_cache_show_says_for_how_many_records_nothing_was_measured(tmp_path: Path) -> None:
    writer = AttentionWriter(make_space(tmp_path))
    writer.append([make_block(1), make_block(2)], note={NOTE: CERTIFICATE.as_note()})
    writer.append([make_block(3)])
    assert "not measured for 1 of 3 records" in show(tmp_path)
