"""Which header fields a caller may not set, each by its name, and how much of one there may be."""

import pytest

from service.mail.headers import check_custom_headers

REFUSED = [
    "From", "To", "Cc", "Bcc", "Reply-To", "Sender", "Subject", "In-Reply-To", "References", "List-Unsubscribe",
    "List-Unsubscribe-Post", "Date", "Message-ID", "Received", "Return-Path", "Authentication-Results", "Delivered-To",
    "Auto-Submitted", "DKIM-Signature", "DomainKey-Signature", "Apparently-To", "Errors-To", "Disposition-Notification-To",
    "Return-Receipt-To", "X-Confirm-Reading-To", "Envelope-To", "X-Original-To", "X-Envelope-From", "Received-SPF",
    "BIMI-Selector", "BIMI-Location", "MIME-Version", "Content-Type", "Content-Transfer-Encoding", "ARC-Seal", "Resent-To",
    "X-Postroom-Id", "Downgraded-From", "X-SMTPAPI", "X-MSYS-API", "X-MC-BccAddress",
]  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("case", [str, str.lower, str.upper])
def test_a_field_that_is_not_the_callers_is_refused_in_any_case(name: str, case: type[str]) -> None:
    (problem,) = check_custom_headers([(case(name), "x@y.example")])
    assert problem.code == "header_not_allowed"
    assert problem.pointer == f"#/headers/{case(name)}"


@pytest.mark.parametrize("name", ["X-Campaign", "Feedback-ID", "List-Id", "X-SES-CONFIGURATION-SET", "X-Mailer"])
def test_what_is_the_callers_passes(name: str) -> None:
    assert check_custom_headers([(name, "x")]) == []


def test_a_value_has_16384_octets_at_most() -> None:
    assert check_custom_headers([("X-A", "é " * 5461)]) == []
    assert [each.code for each in check_custom_headers([("X-A", "é " * 5462)])] == ["header_too_long"]


def test_a_field_given_in_two_cases_is_one_field() -> None:
    assert [each.code for each in check_custom_headers([("X-A", "1"), ("x-a", "2")])] == ["header_repeated"]
    assert check_custom_headers([("X-A", "1"), ("X-A", "2")]) == []
