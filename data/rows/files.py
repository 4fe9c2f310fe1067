"""Rows of local files: JSON Lines, JSON arrays, tables, XML, Parquet and Arrow, packed or not.

Enters: a path. Leaves: a `Row` for each record, with file and line in its name. A file that is not there or may not be
read is a ConfigError; a line that cannot be read is a DataError that names file and line, or row where there are none.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from data.answers.numbers import LONGEST_NUMBER
from data.errors import ConfigError, DataError
from data.patterns import regex
from data.rows.columnar import columnar_rows
from data.rows.contents import Content, file_content
from data.rows.row import Refuse, Row, bare_name, raise_it
from data.rows.tables import table_rows
from data.rows.xml_records import BadXml, xml_records

Numbered: TypeAlias = Iterator[tuple[int, dict[str, object]]]
"""Fields of records, each with its line."""
Reader: TypeAlias = Callable[[Content, Refuse], Numbered]
_HALF_A_CHARACTER = regex("[\ud800-\udfff]")
_SPACE, _SEPARATOR = regex(r"\s*"), regex(r"\s*(?:,\s*(?!\])|(?=\]))")


def file_rows(
    path: Path, *, dataset: str | None = None, setting: str, usual: Reader | None = None, refuse: Refuse = raise_it
) -> Iterator[Row]:
    """Rows of a file with columns, and of a JSON Lines, JSON, CSV, TSV or XML file by the end of its name.

    `usual` reads text of any other name.

    They count to `dataset`, or to one named as the file. What cannot be read goes to `refuse`, and where that does not
    raise it the next row comes.
    """
    try:
        there = path.is_file()
    except OSError as error:
        raise ConfigError(f"{setting}: {path}: {error.strerror}") from error
    if not there:
        raise ConfigError(f"{setting}: {path} is {'a folder, no file' if path.is_dir() else 'not there'}")
    try:
        content = file_content(path)
        counted = content.stem if dataset is None else dataset
        before = counted if counted == content.stem else f"{counted}-{content.stem}"
        for number, fields in _records(content, usual, refuse):
            where = f"{path}:{number}" if content.columns is None else f"{path}, row {number}"
            row = Row(where=where, name=f"{before}-{number}", dataset=counted, fields=fields)
            if (named := _named(row, refuse)) is not None:
                yield named
    except DataError as error:
        refuse(error)
    except OSError as error:
        raise ConfigError(f"{setting}: {path}: {error.strerror}") from error


def _records(content: Content, usual: Reader | None, refuse: Refuse) -> Numbered:
    """The records of a file, by what it is or by the end of its name."""
    if content.columns is not None:
        return columnar_rows(content)
    readers = {".csv": csv_rows, ".tsv": tsv_rows, ".json": _json_rows, ".jsonl": _json_lines, ".xml": _xml_rows}
    return readers.get(content.suffix, usual or _json_lines)(content, refuse)


def _named(row: Row, refuse: Refuse) -> Row | None:
    """The row with bare names of fields, None where two of them are the same then."""
    if all(name == bare_name(name) for name in row.fields):
        return row
    fields = {bare_name(name): value for name, value in row.fields.items()}
    if len(fields) < len(row.fields):
        refuse(row.error(f"two fields have the same name but for blanks or quotes, found {', '.join(row.fields)}"))
        return None
    return replace(row, fields=fields)


def _json_lines(content: Content, refuse: Refuse) -> Numbered:
    path = content.path
    for number, line in enumerate(content.text().split("\n"), start=1):
        if line.strip():
            try:
                fields = _json_object(line, path, number)
            except DataError as error:
                refuse(error)
            else:
                yield number, fields


def _json_object(line: str, path: Path, number: int) -> dict[str, object]:
    found, end = _decoded(line, _after_space(line, 0), path, number)
    end = _after_space(line, end)
    if end < len(line):
        raise DataError(f"{path}:{number}: no JSON: Extra data (column {end + 1})")
    return _fields(found, path, number)


def _decoded(text: str, position: int, path: Path, first_line: int = 1) -> tuple[object, int]:
    """The JSON value that begins here, and where it ends; `first_line` is the number of the text's first line."""
    try:
        return _JSON.raw_decode(text, position)
    except json.JSONDecodeError as error:
        where, what = first_line + error.lineno - 1, f"{error.msg} (column {error.colno})"
    except (_TooLongError, RecursionError) as error:
        what = "brackets within brackets without end" if isinstance(error, RecursionError) else str(error)
        where = first_line + text.count("\n", 0, position)
    raise DataError(f"{path}:{where}: no JSON: {what}")


class _TooLongError(Exception):
    """A number that is none."""


def _whole_number(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:
        raise _TooLongError(f"a number of {len(digits):,} digits")
    return int(digits)


_JSON = json.JSONDecoder(parse_int=_whole_number)


def _fields(found: object, path: Path, number: int) -> dict[str, object]:
    if not isinstance(found, dict):
        raise DataError(f"{path}:{number}: expected one JSON object, found {type(found).__name__}")
    if _HALF_A_CHARACTER.search(json.dumps(found, ensure_ascii=False)):
        raise DataError(f"{path}:{number}: no text: half of a character, \\ud800 to \\udfff without its other half")
    return found


def _json_rows(content: Content, refuse: Refuse) -> Numbered:
    """Objects of a JSON array, each with the line on which it begins; a file of JSON Lines may also end in .json."""
    text, path = content.text(), content.path
    opening = _after_space(text, 0)
    if not text.startswith("[", opening):
        yield from _json_lines(content, refuse)
        return
    number, counted = 1, 0
    position = _after_space(text, opening + 1)
    while not text.startswith("]", position):
        number, counted = number + text.count("\n", counted, position), position
        found, position = _decoded(text, position, path)
        try:
            fields = _fields(found, path, number)
        except DataError as error:
            refuse(error)
        else:
            yield number, fields
        separator = _SEPARATOR.match(text, position)
        if not separator:
            raise DataError(f"{path}:{number}: no JSON: expected a comma or ] after the object that begins here")
        position = separator.end()
    end = _after_space(text, position + 1)
    if end < len(text):
        raise DataError(f"{path}:{text.count(chr(10), 0, end) + 1}: no JSON: something follows the array")


def _after_space(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    assert found  # it matches no space as well
    return found.end()


def _xml_rows(content: Content, _: Refuse) -> Numbered:
    """The elements `Problem` of an XML file with their attributes and children's text, each with its first line."""
    try:
        yield from xml_records(content.text(), "Problem")
    except BadXml as error:
        raise DataError(f"{content.path}:{error.line}: {error}") from error


def csv_rows(content: Content, refuse: Refuse) -> Numbered:
    """Rows of a table with commas."""
    return table_rows(content.text(), content.path, refuse, separator=",")


def tsv_rows(content: Content, refuse: Refuse) -> Numbered:
    """Rows of a table with tabs."""
    return table_rows(content.text(), content.path, refuse, separator="\t")
