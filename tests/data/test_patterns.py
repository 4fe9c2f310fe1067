"""Expressions that are compiled on use: every one of them is one, and they find what `re` finds."""

import importlib
import pkgutil
import re
from typing import Any

import pytest

import data
from data.patterns import METHODS, regex


def patterns_in(value: Any) -> list[Any]:
    """The expressions in a value of a module, one by one."""
    if type(value) is type(regex("")):
        return [value]
    if isinstance(value, dict):
        value = [*value, *value.values()]
    return [found for each in value for found in patterns_in(each)] if isinstance(value, list | tuple | set) else []


def expressions() -> list[Any]:
    """Those at the top of all modules of the room."""
    modules = [importlib.import_module(each.name) for each in pkgutil.walk_packages(data.__path__, "data.")]
    found = [pattern for module in modules for value in vars(module).values() for pattern in patterns_in(value)]
    return [*{id(pattern): pattern for pattern in found}.values()]


def test_every_expression_of_the_room_is_one() -> None:
    found = expressions()
    assert len(found) > 120
    for pattern in found:
        compiled = re.compile(pattern.pattern, pattern.flags)
        assert pattern.search.__self__ == compiled, pattern.pattern


def test_it_is_compiled_when_it_is_used_and_once() -> None:
    pattern = regex(r"(\d+)\s*FIGS", re.IGNORECASE)
    assert not set(METHODS) & set(vars(pattern))
    assert pattern.search("12 figs")[1] == "12"  # type: ignore[index]
    assert set(METHODS) <= set(vars(pattern))
    assert pattern.sub.__self__ is pattern.search.__self__  # type: ignore[attr-defined]


def test_its_methods_are_those_of_re() -> None:
    lazy, eager, text = regex(r"a(b?)"), re.compile(r"a(b?)"), "ab a xab"
    assert lazy.findall(text) == eager.findall(text)
    assert lazy.split(text) == eager.split(text)
    assert lazy.sub(r"<\1>", text) == eager.sub(r"<\1>", text)
    assert lazy.subn("c", text) == eager.subn("c", text)
    assert [found.span() for found in lazy.finditer(text)] == [found.span() for found in eager.finditer(text)]
    found, expected = lazy.match("abc"), eager.match("abc")
    assert found is not None and expected is not None
    assert (found.span(), found[1]) == (expected.span(), expected[1]) == ((0, 2), "b")
    assert lazy.match("ba") is None and lazy.fullmatch("abc") is None
    assert lazy.pattern == eager.pattern


def test_what_is_no_expression_says_so_at_its_first_use() -> None:
    pattern = regex("(")
    with pytest.raises(re.error, match="missing"):
        pattern.search("")


def test_it_has_no_other_attributes() -> None:
    with pytest.raises(AttributeError, match="groupindex"):
        _ = regex("a").groupindex
