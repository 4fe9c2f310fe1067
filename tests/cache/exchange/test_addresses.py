import time

import pytest

from cache.exchange.addresses import is_elsewhere, is_tar, of_the_web, protocols, shown, without_secrets


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("/shared/space", "/shared/space"),
        ("space.tar", "space.tar"),
        ("s3://bucket/space.tar", "s3://bucket/space.tar"),
        ("s3://bucket/space?versionId=3", "s3://bucket/space?versionId=3"),
        ("s3://key:geheim@bucket/space", "s3://key@bucket/space"),
        ("sftp://me@host/space", "sftp://me@host/space"),
        ("sftp://me:geheim@host/space", "sftp://me@host/space"),
        ("abfs://container@account.dfs.example/space", "abfs://container@account.dfs.example/space"),
        ("hf://datasets/me/data@main/space.tar", "hf://datasets/me/data@main/space.tar"),
        ("https://me:geheim@host/a/space.tar?X-Amz-Signature=geheim#x", "https://host/a/space.tar"),
        ("https://geheim@host", "https://host"),
        ("zip://inside::https://me:geheim@host/a.zip?token=geheim", "zip://inside::https://host/a.zip"),
        ("simplecache::s3://bucket/x", "simplecache::s3://bucket/x"),
    ],
)
def test_an_address_is_shown_without_what_proves_who_asks(address: str, expected: str) -> None:
    assert shown(address) == expected
    assert shown(expected) == expected


def test_an_address_says_what_kind_it_is() -> None:
    assert [is_tar(address) for address in ("x.tar", "x.tar.gz", "https://h/x.tar?a=b", "s3://b/x.tar")] == [
        *(True, False),
        *(True, True),
    ]
    assert [is_elsewhere(address) for address in ("x", "x.tar", "s3://b/x")] == [False, True, True]
    assert protocols("zip://a::simplecache::s3://b/c") == ("zip", "s3")
    assert [of_the_web(address) for address in ("https://h/x", "http://h", "zip://::https://h/x", "s3://b", "x")] == [
        *(True, True),
        *(False, False, False),
    ]


def test_what_a_library_says_is_shown_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN_SECRET_KEY", "of the environment")
    monkeypatch.setenv("OWN_SHORT_TOKEN", "abc")
    monkeypatch.setenv("OWN_PLACE", "no secret")
    said = "GET https://me:pass@host/x?sig=9#f: of the environment, no secret, abc, a%2Fb+geheim, a/b+geheim, password"
    found = without_secrets(said, "https://user:password@host/x.tar?token=a%2Fb+geheim&y=1")
    assert found == "GET https://host/x …, no secret, abc, …, …, …"


@pytest.mark.parametrize("bait", ["http://", "a://", "@", "a:", "https://x?", "::", "%2F", "=&"])
def test_long_addresses_and_messages_take_no_time(bait: str) -> None:
    long = bait * (20_000 // len(bait))
    started = time.monotonic()
    shown(long), is_tar(long), protocols(long), without_secrets(long, long)
    shown(f"a://{long}"), without_secrets(long, f"https://{long}")
    assert time.monotonic() - started < 2
