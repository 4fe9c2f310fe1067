"""Records of an XML file that somebody else wrote.

Enters: text and the name of the element that is a record. Leaves: for each its line and its fields, which are its
attributes and the text of its children.

The parser is the standard library's expat without any of what makes XML dangerous: a document type declaration is
refused where it begins, and without one there are neither entities of its own that could expand without end nor
addresses of others that could be fetched. Published data needs none of that, so no package is needed either
(defusedxml 0.7.1 guards a tree that is built whole, which is not needed here).
"""

from collections.abc import Iterator
from xml.parsers import expat

DEEPEST = 64
"""Elements within elements; more is no data set."""


class BadXml(ValueError):  # noqa: N818  (it becomes a DataError with the file's name)
    """The text is no XML, or none that is taken; `line` says where."""

    def __init__(self, what: str, line: int) -> None:
        super().__init__(what)
        self.line = line


def xml_records(text: str, record: str) -> Iterator[tuple[int, dict[str, object]]]:
    """The elements named `record`, in order; raises `BadXml`."""
    found = _Records(record)
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = lambda *_: _refuse("expected no document type declaration", parser)
    parser.StartElementHandler = lambda name, attributes: found.start(name, attributes, parser)
    parser.EndElementHandler = found.end
    parser.CharacterDataHandler = found.text
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise BadXml(f"no XML: {expat.ErrorString(error.code)} (column {error.offset + 1})", error.lineno) from error
    yield from found.records


def _refuse(what: str, parser: expat.XMLParserType) -> None:
    raise BadXml(f"no XML that is read here: {what}", parser.CurrentLineNumber)


class _Records:
    """What has been read so far."""

    def __init__(self, record: str) -> None:
        self.records: list[tuple[int, dict[str, object]]] = []
        self._record = record
        self._open: list[str] = []
        self._inside: int | None = None
        self._text: list[str] = []

    def start(self, name: str, attributes: dict[str, str], parser: expat.XMLParserType) -> None:
        self._open.append(name)
        if len(self._open) > DEEPEST:
            _refuse(f"expected at most {DEEPEST} elements within each other", parser)
        if self._inside is None and name == self._record:
            self._inside = len(self._open)
            self.records.append((parser.CurrentLineNumber, dict(attributes)))
        elif self._inside is not None and len(self._open) == self._inside + 1:
            self._text = []

    def end(self, name: str) -> None:
        depth = len(self._open)
        self._open.pop()
        if depth == self._inside:
            self._inside = None
        elif self._inside is not None and depth == self._inside + 1:
            self.records[-1][1][name] = " ".join("".join(self._text).split())

    def text(self, piece: str) -> None:
        self._text.append(piece)
