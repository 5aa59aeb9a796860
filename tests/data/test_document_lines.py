import json

from hypothesis import given, settings
from hypothesis import strategies as st

from picochat.data.document_lines import document_line


@settings(max_examples=100, deadline=None)
@given(
    text=st.text(st.characters(exclude_categories=["Cs"])),
    id=st.text(st.characters(exclude_categories=["Cs"])),
)
def test_line_is_what_the_json_library_writes(text: str, id: str) -> None:
    expected = (
        json.dumps({"id": id, "text": text}, ensure_ascii=False, separators=(",", ":")).encode()
        + b"\n"
    )
    assert document_line(id, text) == expected
