"""Content on the wire: what the quick looks say is what the slow definitions say."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.relay.content import BLOCK, has_dotted_line, wire_blocks

LINES = st.lists(st.sampled_from([b"", b".", b"..", b"a", b".a", b"a.b", b"x" * 70 + b"."]), max_size=12)
OCTETS = st.text("\r\n.ab", max_size=40).map(str.encode)


@given(st.lists(LINES, min_size=1, max_size=4), st.booleans())
def test_every_line_that_begins_with_a_full_stop_gets_one_more_wherever_the_pieces_end(
    pieces: list[list[bytes]], ended: bool
) -> None:
    segments = [b"".join(line + b"\r\n" for line in lines) for lines in pieces]
    if not ended:
        segments.append(b".last")
    content = b"".join(segments)
    expected = re.sub(rb"(?m)^\.", b"..", content) + (b".\r\n" if ended else b"\r\n.\r\n")
    assert b"".join(wire_blocks(segments)) == expected


@given(OCTETS, st.integers(0, 130))
def test_a_dotted_line_is_found_behind_any_number_of_full_stops(segment: bytes, stops: int) -> None:
    content = b"." * stops + segment
    assert has_dotted_line(content) is (b"\n." in content)


@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7])
def test_no_block_is_larger_than_a_block_and_the_dot_and_the_last_holds_the_whole_dot(size: int) -> None:
    *blocks, last = wire_blocks([b"a\r\n", b"x" * size, b"\r\n"])
    assert all(len(block) <= BLOCK for block in blocks)
    assert len(last) <= BLOCK + len(b"\r\n.\r\n")
    assert last.endswith(b"\r\n.\r\n")
    assert b"".join([*blocks, last]) == b"a\r\n" + b"x" * size + b"\r\n.\r\n"
