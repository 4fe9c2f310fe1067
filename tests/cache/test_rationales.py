import errno
from dataclasses import replace

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from cache.exchange.exporting import export_space
from cache.exchange.importing import import_space
from cache.rationales import ADDED, NAMES, PREFERENCE, Attempt, RationaleStore, as_table
from cache.spaces import Space, describe
from cache.verify import verify
from data.errors import DamagedCacheError, DataError

ATTEMPT = Attempt(
    key="a" * 64,
    question_id="7",
    dataset="svamp",
    question="2 + 2?",
    gold="4",
    phase="plain",
    output=" It is 4. The answer is 4.",
    rationale="It is 4. The answer is 4.",
    answer="4",
    outcome="kept",
)
WRONG = replace(ATTEMPT, key="b" * 64, output="5", rationale="", answer="5", outcome="wrong answer")
SHOWN = replace(WRONG, phase="gold_shown", output="4", rationale="It is 4.", answer="4", outcome="kept")


@pytest.fixture
def store(tmp_path) -> RationaleStore:
    return RationaleStore(Space.open_or_create(tmp_path, "rationales", "teacher", {"schema": 1}))


def part_file(store: RationaleStore):
    return store.space.part_path(store.space.commits()[0]) / "attempts.parquet"


def test_attempts_come_back_as_they_were(store):
    store.append([ATTEMPT, WRONG])
    store.append([SHOWN])
    again = RationaleStore(Space.open(store.space.path))
    assert list(again.attempts().values()) == [ATTEMPT, WRONG, SHOWN]
    assert list(again.attempts()) == [(each.key, each.phase, 0) for each in (ATTEMPT, WRONG, SHOWN)]


def test_a_commit_counts_what_was_kept_and_why_the_rest_was_dropped(store):
    commit = store.append([ATTEMPT, WRONG])
    assert commit.counts == {"records": 2, "kept": 1}
    assert commit.dropped == {f"{'b' * 64}/plain": "wrong answer"}
    store.append([SHOWN])
    assert describe(store.space).drop_reasons == {"wrong answer": 1}
    assert describe(store.space).summary.records == 3


def test_kept_prefers_the_attempt_that_saw_least_of_the_answer(store):
    late = replace(ATTEMPT, phase="gold_shown", rationale="It was shown.")
    store.append([late, SHOWN])
    assert store.kept() == {late.key: late, SHOWN.key: SHOWN}
    store.append([ATTEMPT, WRONG])
    assert store.kept() == {ATTEMPT.key: ATTEMPT, SHOWN.key: SHOWN}
    assert sorted(PREFERENCE) == ["gold_shown", "imported", "plain"]


def test_an_attempt_that_two_jobs_made_is_served_once_as_first_committed(store):
    store.append([ATTEMPT])
    store.append([replace(ATTEMPT, output="another sample")])
    assert list(store.attempts().values()) == [ATTEMPT]


def test_an_empty_store_has_no_attempts(store):
    assert store.attempts() == {}
    assert store.kept() == {}


def test_a_part_is_plain_parquet(store):
    store.append([ATTEMPT, WRONG])
    frame = pd.read_parquet(part_file(store))
    assert tuple(frame.columns) == NAMES
    assert frame.outcome.tolist() == ["kept", "wrong answer"]


def test_samples_and_key_words_come_back_as_they_were(store):
    second = replace(ATTEMPT, sample=1, output="another")
    named = replace(ATTEMPT, key="c" * 64, phase="keywords", answer="", keywords=("ice cream", "tea"))
    commit = store.append([ATTEMPT, second, named, replace(WRONG, sample=2)])
    assert list(store.attempts().values())[:3] == [ATTEMPT, second, named]
    assert commit.dropped == {f"{'b' * 64}/plain/2": "wrong answer"}
    assert store.kept() == {ATTEMPT.key: ATTEMPT}, "key words are no rationale"
    frame = pd.read_parquet(part_file(store))
    assert (frame["sample"].tolist(), frame["keywords"].tolist()) == ([0, 1, 0, 2], ["", "", "ice cream\ntea", ""])


def append_old(store: RationaleStore, attempts) -> None:
    """Commit a part as it was before there were samples and key words."""
    with store.space.filling_part() as part:
        pq.write_table(as_table(attempts).drop_columns(list(ADDED)), part / "attempts.parquet", compression="zstd")
    dropped = {f"{each.key}/{each.phase}": each.outcome for each in attempts if each.outcome != "kept"}
    counts = {"records": len(attempts), "kept": len(attempts) - len(dropped)}
    store.space.commit(part, counts=counts, dropped=dropped)


def test_a_part_of_before_samples_and_key_words_is_read_verified_and_imported(store, tmp_path):
    append_old(store, [ATTEMPT, WRONG])
    store.append([SHOWN])
    assert list(store.attempts().values()) == [ATTEMPT, WRONG, SHOWN]
    assert verify(store.space.path).findings == ()
    export_space(store.space, str(tmp_path / "out.tar"))
    theirs = import_space(str(tmp_path / "out.tar"), tmp_path / "other")
    assert theirs.records == 3
    assert RationaleStore(Space.open(theirs.path)).attempts() == store.attempts()


def test_a_missing_part_is_an_error_that_names_it(store):
    store.append([ATTEMPT])
    part_file(store).unlink()
    with pytest.raises(DamagedCacheError, match=r"attempts\.parquet: missing.*molsaki cache verify"):
        store.attempts()


def test_a_shortened_part_is_an_error_that_names_it(store):
    store.append([ATTEMPT])
    part_file(store).write_bytes(part_file(store).read_bytes()[:-1])
    with pytest.raises(DamagedCacheError, match=r"attempts\.parquet: \d+ bytes, \d+ were committed"):
        store.attempts()


def test_every_flipped_bit_of_a_part_is_detected(store):
    store.append([ATTEMPT])
    content = part_file(store).read_bytes()
    for bit in range(0, 8 * len(content), 97):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        part_file(store).write_bytes(flipped)
        with pytest.raises(DamagedCacheError, match="not what was committed"):
            store.attempts()


def test_a_committed_file_of_another_form_is_an_error(store):
    part = store.space.new_part()
    pd.DataFrame({"key": ["a"], "note": ["b"]}).to_parquet(part / "attempts.parquet")
    store.space.commit(part, counts={"records": 1})
    with pytest.raises(DamagedCacheError, match=r"attempts\.parquet"):
        store.attempts()


def test_a_part_that_cannot_be_written_leaves_nothing_behind(store, monkeypatch):
    def full(table, path, compression):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(pq, "write_table", full)
        store.append([ATTEMPT])
    assert describe(store.space).uncommitted_parts == ()
    store.append([ATTEMPT])
    assert list(store.attempts().values()) == [ATTEMPT]


def test_a_text_that_is_no_unicode_is_an_error_that_names_the_question(store):
    with pytest.raises(DataError, match="question 7 of svamp"):
        store.append([replace(ATTEMPT, question="half a pair: \ud800")])
    assert store.attempts() == {}


text = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(st.tuples(text, text, st.sampled_from(PREFERENCE)), min_size=1, max_size=5))
@hypothesis_settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_comes_back_as_it_was(tmp_path_factory, rows):
    space = Space.open_or_create(tmp_path_factory.mktemp("store"), "rationales", "teacher", {"schema": 1})
    attempts = [
        replace(ATTEMPT, key=f"{number:064x}", question=question, output=output, phase=phase)
        for number, (question, output, phase) in enumerate(rows)
    ]
    RationaleStore(space).append(attempts)
    assert list(RationaleStore(space).attempts().values()) == attempts
