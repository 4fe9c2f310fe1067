"""Records of XML files, and what is refused."""

import pytest

from data.rows.xml_records import DEEPEST, BadXml, xml_records

BOMB = """<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>
<Set><Problem><Body>&b;</Body></Problem></Set>"""
FETCH = '<!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/hostname">]><s><Problem><Body>&x;</Body></Problem></s>'
OUTSIDE = '<!DOCTYPE s SYSTEM "http://127.0.0.1:9/s.dtd"><s/>'


def test_attributes_and_children_are_the_fields_and_lines_are_counted() -> None:
    text = """<?xml version="1.0" encoding="UTF-8" ?>
<Set>
 <Other ID="0"><Body>no</Body></Other>
 <Problem ID="1" Grade="2">
  <Body>Two &lt; three,  and
   four.</Body>
  <Empty/>
 </Problem>
 <Deep><Problem ID="2"><Body>A <i>b</i> c</Body></Problem></Deep>
</Set>"""
    assert list(xml_records(text, "Problem")) == [
        (4, {"ID": "1", "Grade": "2", "Body": "Two < three, and four.", "Empty": ""}),
        (9, {"ID": "2", "Body": "A b c"}),
    ]


@pytest.mark.parametrize(("text", "line"), [(BOMB, 2), (FETCH, 1), (OUTSIDE, 1)])
def test_a_document_type_is_refused_before_anything_of_it_is_used(text: str, line: int) -> None:
    with pytest.raises(BadXml, match="no document type declaration") as raised:
        list(xml_records(text, "Problem"))
    assert raised.value.line == line


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "no element found"),
        ("<Set>\n<Problem>", 2, "no element found"),
        ("<Set>\n<Problem></Set>", 2, "mismatched tag"),
        ("<Set>\n\n<Body>&unknown;</Body></Set>", 3, "undefined entity"),
        ("<a>" * (DEEPEST + 1), 1, f"at most {DEEPEST} elements"),
    ],
)
def test_broken_xml_is_named_by_line(text: str, line: int, message: str) -> None:
    with pytest.raises(BadXml, match=message) as raised:
        list(xml_records(text, "Problem"))
    assert raised.value.line == line
