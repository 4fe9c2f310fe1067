"""Shares of one stage's work, for processes that do not talk to each other.

In: `--shard i/n`, or the environment variables that torchrun sets. Out: a `Shard`, which says of every record whether
it is its own. It looks at the record's key alone, which is the hash of the content: whatever the order of the records,
whatever is done already and whoever does the rest, each record belongs to exactly one of n shards, and n processes need
no coordination. SLURM's variables are not read: what they mean depends on how a job starts its tasks, so a job script
says which shard it wants (docs/slurm.md).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from data.errors import ConfigError

FORM = re.compile(r"([0-9]+)/([0-9]+)")
HASH_DIGITS = 16
"""Hexadecimal digits of a key that decide: 64 bits, so that shares are even for any number of shards."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """The share `index` of `count`, counted from 1; written `2/8`."""

    index: int
    count: int

    def __post_init__(self) -> None:
        assert 1 <= self.index <= self.count, f"no shard: {self.index} of {self.count}"

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read `2/8`; raises `ConfigError` for anything else than one of the shards 1/n to n/n."""
        form = FORM.fullmatch(text)
        if not form:
            raise ConfigError(f"shard {text!r}: expected i/n, such as 2/8 for the second of eight")
        index, count = int(form[1]), int(form[2])
        if count < 1:
            raise ConfigError(f"shard {text}: expected i/n with n of at least 1, such as 2/8")
        if not 1 <= index <= count:
            raise ConfigError(
                f"shard {text}: shards are counted from 1, so those of {count} are 1/{count} to {count}/{count}"
            )
        return cls(index=index, count=count)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Shard | None":
        """The shard of the process with torchrun's `RANK` of `WORLD_SIZE`; None without them, and for a world of one.

        Raises `ConfigError` naming the variable where one is missing or makes no sense.
        """
        rank, world = _whole_number(environment, "RANK"), _whole_number(environment, "WORLD_SIZE")
        if rank is None and world is None:
            return None
        if rank is None or world is None:
            there, missing = ("RANK", "WORLD_SIZE") if world is None else ("WORLD_SIZE", "RANK")
            raise ConfigError(
                f"{there}={environment[there]} is set in the environment, but {missing} is not; torchrun sets both: "
                f"set {missing} as well, or unset {there}"
            )
        if world < 1:
            raise ConfigError(f"WORLD_SIZE={world} in the environment: expected a number from 1; unset it")
        if rank >= world:
            raise ConfigError(
                f"RANK={rank} with WORLD_SIZE={world} in the environment: ranks are counted from 0 to {world - 1}"
            )
        return cls(index=rank + 1, count=world) if world > 1 else None

    @property
    def is_main(self) -> bool:
        """Whether it is the first one, which writes what all processes of one piece of work achieve."""
        return self.index == 1

    def owns(self, key: str) -> bool:
        """Whether the record with this key (hexadecimal digits of a hash) belongs to this shard."""
        return int(key[:HASH_DIGITS], 16) % self.count == self.index - 1


def chosen_shard(option: Shard | None, environment: Mapping[str, str]) -> Shard | None:
    """The shard that `--shard` names, else the environment; None where this process does everything.

    Raises `ConfigError` where both name one and they differ.
    """
    found = Shard.from_environment(environment)
    if option is not None and found is not None and option != found:
        raise ConfigError(
            f"--shard {option}, but RANK={found.index - 1} and WORLD_SIZE={found.count} in the environment mean "
            f"{found}: leave --shard out under torchrun, or unset both variables"
        )
    chosen = option or found
    return chosen if chosen is not None and chosen.count > 1 else None


def process_of(environment: Mapping[str, str]) -> Shard:
    """The process that torchrun's `RANK` and `WORLD_SIZE` tell; without them the only one."""
    return Shard.from_environment(environment) or Shard(index=1, count=1)


def local_rank(environment: Mapping[str, str]) -> int | None:
    """Which of this machine's processes this is, from 0, by torchrun's `LOCAL_RANK`; None where it is not set."""
    return _whole_number(environment, "LOCAL_RANK")


def _whole_number(environment: Mapping[str, str], name: str) -> int | None:
    if name not in environment:
        return None
    if not re.fullmatch(r"[0-9]+", environment[name]):
        raise ConfigError(f"{name}={environment[name]!r} in the environment: expected a whole number from 0; unset it")
    return int(environment[name])
