"""Addresses that hold no secret, and how long to wait before asking a server again."""

import pytest

from data.errors import ConfigError
from stages.engines.openai_server import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    Attempts,
    address_problem,
    server_address,
    server_key,
    without_secrets,
)


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:8000/v1", "https://api.openai.com/v1", "http://node-7.cluster:80", "http://[::1]:8000/v1/"],
)
def test_an_address_of_a_server_is_accepted(address: str) -> None:
    assert address_problem(address) is None
    assert server_address(address, {}) == address


@pytest.mark.parametrize(
    "address",
    [
        "http://user:hunter2hunter2@host/v1",
        "http://hunter2hunter2@host/v1",
        "https://host/v1?api_key=hunter2hunter2",
        "https://host/v1#hunter2hunter2",
        "https://host/sk-hunter2hunter2hunter2/v1",
    ],
)
def test_an_address_with_a_secret_is_refused_without_repeating_it(address: str) -> None:
    problem = address_problem(address)
    assert problem is not None and "OPENAI_API_KEY" in problem and "hunter2" not in problem
    for configured, environment in ((address, {}), (None, {"OPENAI_BASE_URL": address})):
        with pytest.raises(ConfigError) as caught:
            server_address(configured, environment)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        *("localhost:8000", "ftp://host/v1", "http://", "http://host:port/v1", "/v1", "http://ho st/v1"),
        *("http://host/v1\n", "user:hunter2@host/v1", "https//user:hunter2@host/v1", "https:/user:hunter2@host"),
    ],
)
def test_something_that_is_no_address_is_refused_and_not_repeated(address: str) -> None:
    problem = address_problem(address) or ""
    assert "http://127.0.0.1:8000/v1" in problem and "hunter2" not in problem


def test_the_key_is_sent_without_white_space_around_it_and_blotted_out_alike() -> None:
    assert server_key({"OPENAI_API_KEY": " s3cret\n"}) == "s3cret"
    assert server_key({}) == server_key({"OPENAI_API_KEY": " "}) == "none"
    assert without_secrets("wrong key s3cret!", {"OPENAI_API_KEY": "s3cret\n"}) == "wrong key (key)!"


@pytest.mark.parametrize("key", ["s3cret\nX: y", "s3cr\u00e9t", "s3cret\u2013"])
def test_a_key_that_no_header_can_hold_is_refused_without_repeating_it(key: str) -> None:
    with pytest.raises(ConfigError, match="OPENAI_API_KEY in the environment") as caught:
        server_key({"OPENAI_API_KEY": key})
    assert "s3cr" not in str(caught.value)


def test_the_address_comes_from_the_environment_where_none_is_configured() -> None:
    environment = {"OPENAI_BASE_URL": "http://there/v1"}
    assert server_address(None, environment) == "http://there/v1"
    assert server_address("http://here/v1", environment) == "http://here/v1"
    with pytest.raises(ConfigError, match=r"rationales.server: missing, and OPENAI_BASE_URL is not set"):
        server_address(None, {})


def test_a_key_is_blotted_out_of_what_a_server_says() -> None:
    assert without_secrets("wrong key s3cret!", {"OPENAI_API_KEY": "s3cret"}) == "wrong key (key)!"
    assert without_secrets("wrong key", {}) == "wrong key"


class Clock:
    """A time that only waiting moves on."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def attempts(patience: float, *, jitter: float = 1.0) -> tuple[Attempts, Clock]:
    clock = Clock()
    return Attempts(patience=patience, clock=clock, jitter=lambda: jitter), clock


def test_pauses_double_up_to_the_longest() -> None:
    tried, _ = attempts(10_000)
    pauses = [tried.pause() for _ in range(10)]
    assert pauses == [min(LONGEST_PAUSE, FIRST_PAUSE * 2**count) for count in range(10)]
    assert tried.count == 10


def test_jitter_takes_off_up_to_half_of_a_pause() -> None:
    assert attempts(100, jitter=0.0)[0].pause() == FIRST_PAUSE / 2
    assert attempts(100, jitter=0.5)[0].pause() == 0.75 * FIRST_PAUSE


def test_a_server_may_ask_for_a_longer_pause_but_not_for_a_shorter_one() -> None:
    assert attempts(100)[0].pause(retry_after=20) == 20
    assert attempts(100)[0].pause(retry_after=0.01) == FIRST_PAUSE
    assert attempts(100)[0].pause(retry_after=-5) == FIRST_PAUSE


def test_patience_ends_so_long_after_the_first_failure() -> None:
    tried, clock = attempts(10)
    clock.now += 1000  # what came before the first failure does not count
    waited = 0.0
    while (pause := tried.pause()) is not None:
        clock.now += pause
        waited += pause
    assert waited < 10 and tried.seconds == waited
    assert tried.count == 5  # after 0.5 + 1 + 2 + 4 seconds the next pause would be 8


def test_a_wait_beyond_patience_is_not_begun() -> None:
    assert attempts(10)[0].pause(retry_after=11) is None
