"""template.toml is read in time that grows with its length, whatever it is."""

import time
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.mail.fault import TemplateFault
from service.mail.toml_source import read_toml

MANY = 20_000
LONG_KEY = ".".join("a" * MANY)


@pytest.mark.parametrize(
    "text",
    [
        f"{LONG_KEY} = 1",
        f"[{LONG_KEY}]",
        f"[[{LONG_KEY}]]",
        f"x = {{ {LONG_KEY} = 1 }}",
        f"x = [{{ {LONG_KEY} = 1 }}]",
        " . ".join(['"a"'] * MANY) + " = 1",
        ".".join(["'a'"] * MANY) + " = 1",
        f'x = """\\\n a\\""""\n{LONG_KEY} = 1',
        f"x = '''\\'''\n{LONG_KEY} = 1",
        f"x = '#'\n{LONG_KEY} = 1",
        f"x = 1 # ''' \"\n{LONG_KEY} = 1",
        "x = " + "[" * 3000 + "]" * 3000,
        "x = " + "{ a = " * 3000 + "1" + "}" * 3000,
        "x = " + "1" * 5000,
        "x = 1" + "_1" * 5000,
        "x = 1979-05-27T07:32:00." + "9" * 5000,
    ],
)
def test_what_the_reader_would_choke_on_is_refused_before_it_is_read(text: str) -> None:
    began = time.process_time()
    with pytest.raises(TemplateFault, match=r"nested too deeply|more than 400 characters"):
        read_toml(text, "t/template.toml")
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    "text",
    [
        "k = 1\n" * 1,
        "".join(f"k{n} = 1\n" for n in range(20_000)),
        f"[{'.'.join('a' * 30)}]\n" + "".join(f"k{n} = 1\n" for n in range(20_000)),
        "[[a]]\nb.c = 1\n" * 15_000,
        "x = [" + "1.5, " * 40_000 + "]",
        "x = '" + "a.b." * 50_000 + "'",
        'x = """' + "a.b.\n" * 40_000 + '"""',
        "# " + "a.b." * 50_000 + "\nx = 1",
    ],
)
def test_what_is_only_large_is_read(text: str) -> None:
    began = time.process_time()
    assert read_toml(text, "t/template.toml")
    assert time.process_time() - began < 3


@pytest.mark.parametrize("piece", ['"', '"""a', "'", "'''", "\\", "[", "{", "#", "a.", '"\\'])
def test_what_is_not_closed_is_refused_in_little_time(piece: str) -> None:
    began = time.process_time()
    with pytest.raises(TemplateFault):
        read_toml("x = " + piece * (200_000 // len(piece)), "t/template.toml")
    assert time.process_time() - began < 2


def test_a_fault_names_its_line() -> None:
    with pytest.raises(TemplateFault, match=r"^f:5: is nested too deeply"):
        read_toml(f"a = 1\nb = '''\n\n''' # x\n{LONG_KEY} = 1", "f")


def test_a_byte_order_mark_and_lines_of_windows_are_no_fault() -> None:
    assert read_toml("\ufeffa = 1\r\nb = '''x\r\ny'''\r\n[c]\r\n", "f") == {"a": 1, "b": "x\ny", "c": {}}


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab.\"'#=[]{}\n\\ 1,", max_size=60))
def test_what_is_not_pathological_is_read_as_the_standard_library_reads_it(text: str) -> None:
    try:
        expected = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        with pytest.raises(TemplateFault):
            read_toml(text, "f")
    else:
        assert read_toml(text, "f") == expected
