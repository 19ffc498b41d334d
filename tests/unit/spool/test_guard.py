"""Who may send as whom, and who gets mail on a staging system: addresses and domains, in any script."""

import pytest

from service.spool.guard import may_carry


@pytest.mark.parametrize(
    ("allowed", "email", "may"),
    [
        ("sales@x.example", "sales@x.example", True),
        ("Sales@X.Example", "sales@x.example", True),
        ("x.example", "anybody@x.example", True),
        ("@x.example", "anybody@x.example", True),
        ("x.example", "a@news.x.example", False),
        ("x.example", "a@notx.example", False),
        ("münchen.example", "a@xn--mnchen-3ya.example", True),
        ("a@münchen.example", "a@xn--mnchen-3ya.example", True),
        ("sales@x.example", "ſales@x.example", False),
        ("strasse@x.example", "straße@x.example", False),
        ("no domain at all", "a@x.example", False),
        ("", "a@x.example", False),
    ],
)
def test_an_entry_is_an_address_or_a_domain(allowed: str, email: str, may: bool) -> None:
    assert may_carry([allowed], email) is may
