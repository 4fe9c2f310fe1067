"""Every field of a spec, however two specs meet: the error names it, our value and theirs.

The fields come from the functions that make specs, so that a new one is tested without being listed here.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import cache
from cache.exchange.exporting import export_space
from cache.exchange.importing import import_space
from cache.fingerprints import JSON, SCHEMA_VERSION, Spec, fingerprint
from cache.nearest import neighbour
from cache.reader import AttentionStore
from cache.spaces import SPEC_FILE, Kind, Space
from cache.verify import verify
from data.errors import DamagedCacheError, MismatchError, MolsakiError
from stages.attention import against_teacher
from stages.attention.spec import attention_spec
from stages.models.identity import ModelIdentity
from stages.rationales.spec import rationale_spec
from stages.settings import AttentionSettings, RationaleSettings, TeacherSettings

TEACHER = ModelIdentity(source="hub", path="Qwen/Qwen2.5-7B-Instruct", revision="0" * 40, tokenizer="1" * 64)
SETTINGS = TeacherSettings(
    model="Qwen/Qwen2.5-7B-Instruct", quantization={"load_in_4bit": True}, trust_remote_code=True
)
ATTENTION = attention_spec(
    TEACHER, SETTINGS, AttentionSettings(critical="regex", pattern="[0-9]+", max_length=512, keep_bits=7)
)
RATIONALES = rationale_spec(
    TEACHER, SETTINGS, RationaleSettings(temperature=0.7, engine_arguments={"max_model_len": 1024})
)
SPECS: Mapping[Kind, Spec] = {"attention": ATTENTION, "rationales": RATIONALES}


def paths(value: JSON, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The way to each value of a spec."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from paths(inner, (*above, name))
    else:
        yield above


def changed(spec: JSON, path: tuple[str, ...]) -> tuple[JSON, str, str]:
    """The spec with another value at `path`; and the two values as they are shown."""
    if not path:
        other: JSON = "another" if not isinstance(spec, int) or isinstance(spec, bool) else spec + 1
        return other, json.dumps(spec), json.dumps(other)
    assert isinstance(spec, Mapping)
    inner, before, after = changed(spec[path[0]], path[1:])
    return {**spec, path[0]: inner}, before, after


FIELDS = [(kind, path) for kind, spec in SPECS.items() for path in paths(spec)]
OPENED = [(kind, path) for kind, path in FIELDS if path != ("schema",)]
"""Those in which two spaces may differ that this version opens."""


def names(fields: list[tuple[Kind, tuple[str, ...]]]) -> list[str]:
    return [f"{kind}-{'.'.join(path)}" for kind, path in fields]


def spec_file_of(kind: Kind, folder: Path, spec: JSON) -> Path:
    """A folder with nothing but spec.json, whose fingerprint fits it."""
    folder.mkdir(parents=True)
    content = {"kind": kind, "slug": "teacher", "fingerprint": fingerprint(spec), "spec": spec}
    (folder / SPEC_FILE).write_text(json.dumps(content))
    return folder


def shows(error: Exception, path: tuple[str, ...], ours: str, theirs: str) -> bool:
    return f"  {'.'.join(path)}\n    ours:   {ours}\n    theirs: {theirs}" in str(error)


def test_no_field_of_a_spec_is_forgotten() -> None:
    assert {path[0] for kind, path in FIELDS if kind == "attention"} == set(ATTENTION)
    assert {"model", "tokenizer", "rules", "dtype", "schema", "rounding", "max_length", "heads", "steps"} <= set(
        ATTENTION
    )
    assert {path[0] for kind, path in FIELDS if kind == "rationales"} == set(RATIONALES)


def test_the_document_says_what_each_field_is(tmp_path: Path) -> None:
    tmp_path.joinpath("modelling.py").write_text("")
    folder = ModelIdentity(source="folder", path=str(tmp_path), revision="0" * 64, tokenizer="1" * 64)
    with_code = attention_spec(folder, SETTINGS, AttentionSettings())
    document = Path(__file__).parents[3].joinpath("docs", "cache-format.md").read_text(encoding="utf-8")
    table = document.split("| field of `spec` |")[1].split("\n\n")[0]
    documented = {
        name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1] if row else "")
    }
    assert documented == set(ATTENTION) | set(RATIONALES) | set(with_code)


@pytest.mark.parametrize(("kind", "path"), FIELDS, ids=names(FIELDS))
def test_a_run_that_meets_a_space_of_another_spec_is_shown_the_field(
    tmp_path: Path, kind: Kind, path: tuple[str, ...]
) -> None:
    other, before, after = changed(SPECS[kind], path)
    made = Space.open_or_create(tmp_path, kind, "teacher", SPECS[kind])
    shutil.rmtree(made.path)
    spec_file_of(kind, made.path, other)
    with pytest.raises(MismatchError) as caught:
        Space.open_or_create(tmp_path, kind, "teacher", SPECS[kind])
    assert shows(caught.value, path, before, after)
    with pytest.raises(MismatchError) as caught:
        Space.open(made.path)
    assert "upgrade" in str(caught.value) if path == ("schema",) else "named for another space" in str(caught.value)


@pytest.mark.parametrize(("kind", "path"), OPENED, ids=names(OPENED))
def test_an_import_into_a_space_of_another_spec_is_shown_the_field_and_changes_nothing(
    tmp_path: Path, kind: Kind, path: tuple[str, ...]
) -> None:
    """The folder here is named for the fingerprint of what comes; another spec lies in it."""
    theirs = Space.open_or_create(tmp_path / "b", kind, "teacher", SPECS[kind])
    theirs.commit(None, counts={"records": 0}, dropped={"k": "too long"})
    other, before, after = changed(SPECS[kind], path)
    ours = spec_file_of(kind, tmp_path / "a" / kind / theirs.path.name, other)
    export_space(theirs, str(tmp_path / "out.tar"))
    for source in (theirs.path, tmp_path / "out.tar"):
        with pytest.raises(MismatchError, match=str(source)) as caught:
            import_space(str(source), tmp_path / "a")
        assert shows(caught.value, path, after, before)
    assert [file.name for file in ours.iterdir()] == [SPEC_FILE]


@pytest.mark.parametrize(("kind", "path"), OPENED, ids=names(OPENED))
def test_a_configuration_that_misses_a_space_by_one_field_is_told_which(
    tmp_path: Path, kind: Kind, path: tuple[str, ...]
) -> None:
    other, before, after = changed(SPECS[kind], path)
    assert isinstance(other, Mapping)
    space = Space.open_or_create(tmp_path, kind, "teacher", other)
    assert neighbour(tmp_path, kind, "teacher", SPECS[kind]) is None
    space.commit(None, counts={"records": 12_000})
    found = neighbour(tmp_path, kind, "teacher", SPECS[kind])
    assert found is not None
    ((field, ours, theirs),) = ((one.field, one.ours, one.theirs) for one in found.differences)
    assert (field, ours, theirs) == (".".join(path), before, after)
    start = f"nothing stored for this; nearest is {kind}/{space.path.name} (12,000 records): {field} ours "
    assert found.line().startswith(start)
    assert neighbour(tmp_path, kind, "teacher", other) is None


def test_the_nearest_is_the_one_with_fewest_differences_then_with_most_records(tmp_path: Path) -> None:
    def make(records: int, **changes: JSON) -> Space:
        space = Space.open_or_create(tmp_path, "attention", "teacher", {**ATTENTION, **changes})
        space.commit(None, counts={"records": records})
        return space

    make(900, steps="lines", dtype="float32")
    make(5, steps="lines")
    best = make(6, max_length=7)
    make(900, steps="lines", dtype="float32", max_length=1, heads="all")
    damaged = make(900, steps="sentences")
    (damaged.path / SPEC_FILE).write_text("{")
    found = neighbour(tmp_path, "attention", "teacher", ATTENTION)
    assert found is not None
    assert found.space.path == best.path
    far = {**ATTENTION, "steps": 1, "heads": 1, "dtype": 1, "max_length": 1, "tokenizer": 1}
    assert neighbour(tmp_path, "attention", "teacher", far) is None


def test_hashes_are_short_in_one_line(tmp_path: Path) -> None:
    Space.open_or_create(tmp_path, "attention", "teacher", ATTENTION).commit(None, counts={"records": 1})
    ours = attention_spec(replace(TEACHER, revision="a1" * 20), SETTINGS, AttentionSettings())
    found = neighbour(tmp_path, "attention", "teacher", {**ATTENTION, "model": ours["model"]})
    assert found is not None
    name = "Qwen/Qwen2.5-7B-Instruct"
    assert found.line().endswith(f'(1 records): model ours "{name}@a1a1a1a1a1a1…", theirs "{name}@000000000000…"')


SCHEMAS = [
    (SCHEMA_VERSION + 1, "pip install --upgrade molsaki"),
    (SCHEMA_VERSION - 1, "older molsaki"),
    ("x", "no molsaki"),
]


@pytest.mark.parametrize(("schema", "who"), SCHEMAS)
def test_another_version_of_the_schema_says_which_molsaki_reads_it(tmp_path: Path, schema: JSON, who: str) -> None:
    spec = {**ATTENTION, "schema": schema}
    folder = spec_file_of("attention", tmp_path / "attention" / f"teacher-{fingerprint(spec)[:16]}", spec)
    export = spec_file_of("attention", tmp_path / "handed-on", spec)
    ways: list[Callable[[], object]] = [
        lambda: Space.open(folder),
        lambda: cache.open_attention(folder),
        lambda: verify(folder),  # and so no repair takes it for damage
        lambda: import_space(str(folder), tmp_path / "other"),
        lambda: import_space(str(export), tmp_path / "other"),
    ]
    for way in ways:
        with pytest.raises(MismatchError, match=who) as caught:
            way()
        assert shows(caught.value, ("schema",), str(SCHEMA_VERSION), json.dumps(schema))


def test_a_newer_schema_is_no_damage_whatever_else_it_has_changed(tmp_path: Path) -> None:
    folder = tmp_path / "attention" / "teacher-0123456789abcdef"
    folder.mkdir(parents=True)
    content = {"kind": "gradients", "slug": "../x", "fingerprint": "by another rule", "spec": {"schema": 2}}
    (folder / SPEC_FILE).write_text(json.dumps(content))
    with pytest.raises(MismatchError, match="upgrade"):
        Space.open(folder)


def test_a_flipped_bit_in_the_schema_is_damage(tmp_path: Path) -> None:
    space = Space.open_or_create(tmp_path, "attention", "teacher", ATTENTION)
    path = space.path / SPEC_FILE
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 3'))
    with pytest.raises(DamagedCacheError, match="does not have the fingerprint"):
        Space.open(space.path)


def test_a_folder_or_archive_named_for_another_space_is_refused_by_name(tmp_path: Path) -> None:
    theirs = Space.open_or_create(tmp_path, "attention", "teacher", ATTENTION)
    other = Space.open_or_create(tmp_path, "attention", "teacher", {**ATTENTION, "steps": "lines"})
    shutil.copy(other.path / SPEC_FILE, theirs.path / SPEC_FILE)
    export_space(other, str(tmp_path / "out.tar"))
    archive = (tmp_path / "out.tar").rename(tmp_path / f"{theirs.path.name}.tar")
    ways: list[Callable[[], object]] = [
        lambda: Space.open(theirs.path),
        lambda: cache.open_attention(theirs.path),
        lambda: cache.open_attention(archive),
        lambda: import_space(str(theirs.path), tmp_path / "other"),
        lambda: import_space(str(archive), tmp_path / "other"),
        lambda: export_space(other, str(tmp_path / theirs.path.name)),
    ]
    ours, found = theirs.fingerprint[:16], other.fingerprint[:16]
    for way in ways:
        with pytest.raises(MismatchError, match="molsaki cache verify") as caught:
            way()
        assert shows(caught.value, ("fingerprint",), f"{ours}… (by the name)", f"{found}… (spec.json)")


def test_every_field_is_compared_with_the_teacher_or_taken_from_the_space() -> None:
    """A new field has to be put on one of the two sides before `cache verify --against-teacher` is right again."""
    taken = {"dtype", "quantization", "rounding", "marking", "steps", "critical", "max_length", "begin"}
    withheld = {"trust_remote_code"}  # a space from somewhere else must not switch code on
    assert set(ATTENTION) == set(against_teacher.COMPARED) | taken | withheld
    assert not set(against_teacher.COMPARED) & taken


@pytest.mark.parametrize("field", [*against_teacher.COMPARED, "dtype"])
def test_verifying_against_another_teacher_shows_the_field(tmp_path: Path, field: str) -> None:
    other, before, after = changed(ATTENTION, (field,))
    assert isinstance(other, Mapping)
    store = AttentionStore(Space.open_or_create(tmp_path, "attention", "teacher", ATTENTION))
    store.space = replace(store.space, spec=other)
    with pytest.raises(MismatchError, match=str(store.space.path)) as caught:
        if field == "dtype":
            before = '"float32 or bfloat16 or float16"'
            against_teacher._teacher_of(store, "nowhere", "cpu")
        else:
            against_teacher._require_same(other, ATTENTION, store)
    assert shows(caught.value, (field,), before, after)


def test_errors_of_a_mismatch_are_configuration_not_damage() -> None:
    assert (MismatchError.exit_code, issubclass(MismatchError, MolsakiError)) == (2, True)
