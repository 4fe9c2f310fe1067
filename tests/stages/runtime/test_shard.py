"""Which process does which record, without asking any other."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import ConfigError
from stages.runtime.shard import Shard, chosen_shard, local_rank

KEYS = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(10_000)]
COUNTS = st.integers(min_value=1, max_value=1000)


def shards(count: int) -> list[Shard]:
    return [Shard(index=index, count=count) for index in range(1, count + 1)]


def test_a_shard_is_written_as_it_is_read():
    assert Shard.parse("2/8") == Shard(index=2, count=8)
    assert str(Shard(index=2, count=8)) == "2/8"


@given(COUNTS.flatmap(lambda count: st.tuples(st.integers(1, count), st.just(count))))
def test_every_shard_reads_back_as_itself(numbers: tuple[int, int]):
    shard = Shard(index=numbers[0], count=numbers[1])
    assert Shard.parse(str(shard)) == shard


@pytest.mark.parametrize("text", ["0/8", "9/8"])
def test_a_shard_beyond_the_others_is_told_how_they_are_counted(text: str):
    with pytest.raises(ConfigError, match="counted from 1, so those of 8 are 1/8 to 8/8"):
        Shard.parse(text)


@pytest.mark.parametrize("text", ["3", "", "a/b", "1/2/3", "-1/8", "1 / 8", "1/8\n", "1.0/8", "²/8", "1/"])
def test_what_is_no_shard_is_told_what_one_looks_like(text: str):
    with pytest.raises(ConfigError, match="expected i/n, such as 2/8"):
        Shard.parse(text)


@pytest.mark.parametrize("text", ["0/0", "1/0"])
def test_a_share_of_nothing_is_refused(text: str):
    with pytest.raises(ConfigError, match="at least 1"):
        Shard.parse(text)


@given(st.binary(min_size=32, max_size=32), COUNTS)
def test_every_key_belongs_to_exactly_one_shard(key: bytes, count: int):
    assert sum(shard.owns(key.hex()) for shard in shards(count)) == 1


def test_shares_worked_out_by_hand():
    key = "00000000000000ff" + "f" * 48  # the first 64 bits say 255
    assert [str(shard) for count in (1, 2, 8, 10) for shard in shards(count) if shard.owns(key)] == [
        "1/1", "2/2", "8/8", "6/10",
    ]  # fmt: skip


@pytest.mark.parametrize("count", [2, 3, 7, 8, 64])
def test_shares_of_hashes_are_even(count: int):
    sizes = [sum(map(shard.owns, KEYS)) for shard in shards(count)]
    assert sum(sizes) == len(KEYS)
    expected = len(KEYS) / count
    assert all(abs(size - expected) < 4.5 * expected**0.5 for size in sizes), sizes


def test_torchrun_s_rank_counts_from_zero():
    assert Shard.from_environment({"RANK": "0", "WORLD_SIZE": "8"}) == Shard(index=1, count=8)
    assert Shard.from_environment({"RANK": "7", "WORLD_SIZE": "8"}) == Shard(index=8, count=8)


@pytest.mark.parametrize("environment", [{}, {"RANK": "0", "WORLD_SIZE": "1"}, {"LOCAL_RANK": "3"}])
def test_without_torchrun_or_alone_there_is_no_shard(environment: dict[str, str]):
    assert Shard.from_environment(environment) is None


def test_slurm_s_variables_say_nothing():
    environment = {"SLURM_PROCID": "1", "SLURM_NTASKS": "8", "SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "4"}
    assert Shard.from_environment(environment) is None


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "1"}, "RANK=1 .* but WORLD_SIZE is not"),
        ({"WORLD_SIZE": "8"}, "WORLD_SIZE=8 .* but RANK is not"),
        ({"RANK": "8", "WORLD_SIZE": "8"}, "RANK=8 with WORLD_SIZE=8 .* 0 to 7"),
        ({"RANK": "-1", "WORLD_SIZE": "8"}, "RANK='-1'"),
        ({"RANK": "one", "WORLD_SIZE": "8"}, "RANK='one'"),
        ({"RANK": "1", "WORLD_SIZE": ""}, "WORLD_SIZE=''"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE=0"),
    ],
)
def test_variables_that_make_no_sense_are_named(environment: dict[str, str], message: str):
    with pytest.raises(ConfigError, match=message):
        Shard.from_environment(environment)


def test_the_option_is_taken_and_the_environment_where_there_is_none():
    torchrun = {"RANK": "1", "WORLD_SIZE": "8"}
    second = Shard(index=2, count=8)
    assert chosen_shard(second, {}) == chosen_shard(None, torchrun) == chosen_shard(second, torchrun) == second
    assert chosen_shard(None, {}) is None


def test_an_option_inside_a_world_of_one_stands():
    assert chosen_shard(Shard(index=2, count=8), {"RANK": "0", "WORLD_SIZE": "1"}) == Shard(index=2, count=8)


def test_one_of_one_is_everything():
    assert chosen_shard(Shard(index=1, count=1), {}) is None


@pytest.mark.parametrize("option", [Shard(index=1, count=8), Shard(index=2, count=4), Shard(index=1, count=1)])
def test_an_option_that_contradicts_the_environment_is_refused(option: Shard):
    with pytest.raises(ConfigError, match=f"--shard {option}, but RANK=1 and WORLD_SIZE=8 .* mean 2/8"):
        chosen_shard(option, {"RANK": "1", "WORLD_SIZE": "8"})


def test_local_rank_is_a_number_or_not_there():
    assert local_rank({"LOCAL_RANK": "3"}) == 3
    assert local_rank({}) is None
    with pytest.raises(ConfigError, match="LOCAL_RANK='gpu'"):
        local_rank({"LOCAL_RANK": "gpu"})
