"""Line ends: what the quick looks say is what the slow definitions say."""

import re

from hypothesis import example, given
from hypothesis import strategies as st

from service.mail.line_ends import has_bare_line_end, in_lines_of_76

BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")
LINES_OF_76 = re.compile(rb"(?:[^\r\n]{76}\r\n)+(?:[^\r\n]{0,75}\r\n)?")
BLOCK = 2048 * 78  # octets that are looked at together
LINES = 4500  # more than two blocks

PLACES = st.one_of(st.integers(0, LINES * 78), st.sampled_from([BLOCK + near for near in range(-3, 3)]))
FAULTS = st.sampled_from([b"\r", b"\n", b"x", b"\0", b"\r\n", b""])


@given(st.text("\r\n.ab", max_size=40).map(str.encode))
@example(b"\r\n\r\n")
@example(b"\n\r")
@example(b"\r\r\n\n")
def test_a_bare_line_end_is_found(segment: bytes) -> None:
    assert has_bare_line_end(segment) is (BARE.search(segment) is not None)


@given(st.integers(0, 76), st.lists(st.tuples(PLACES, FAULTS), max_size=3))
@example(0, [(LINES * 78 - 1, b"")])
@example(1, [(LINES * 78 + 1, b"\n"), (LINES * 78 + 2, b"\r")])
@example(5, [(LINES * 78 + 5, b"\n"), (LINES * 78 + 6, b"\r")])
def test_a_large_piece_is_told_from_one_with_a_fault_anywhere(short: int, damages: list[tuple[int, bytes]]) -> None:
    piece = (b"A" * 76 + b"\r\n") * LINES + (b"B" * short + b"\r\n" if short else b"")
    for at, fault in damages:
        piece = piece[:at] + fault + piece[at + 1 :]
    assert has_bare_line_end(piece) is (BARE.search(piece) is not None)
    assert in_lines_of_76(piece) is (LINES_OF_76.fullmatch(piece) is not None)
