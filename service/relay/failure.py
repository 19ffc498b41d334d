"""Why no session came to be: the phase, the relay's reply or the failure, and the cause that can be named.

It tells and judges nothing: mail/outcome decides what follows, hints says what a person can do.
"""

from enum import StrEnum

from service.mail.outcome import Failure, Phase
from service.mail.reply import Reply


class Cause(StrEnum):
    """What a failure is about, where phase and failure alone do not tell."""

    SILENT = "silent"  # connected, and no greeting came
    NO_SMTP = "no-smtp"  # what came is no SMTP reply
    NO_STARTTLS = "no-starttls"
    STARTTLS_REFUSED = "starttls-refused"
    NO_TLS = "no-tls"  # TLS was begun, and the answer is no TLS
    TLS_VERSION = "tls-version"
    TLS_CIPHERS = "tls-ciphers"
    TLS_BROKEN_OFF = "tls-broken-off"
    TLS_OTHER = "tls-other"
    CERTIFICATE_NAME = "certificate-name"
    CERTIFICATE_EXPIRED = "certificate-expired"
    CERTIFICATE_NOT_YET_VALID = "certificate-not-yet-valid"
    CERTIFICATE_SELF_SIGNED = "certificate-self-signed"
    CERTIFICATE_ISSUER = "certificate-issuer"
    CERTIFICATE_OTHER = "certificate-other"
    NO_MECHANISM = "no-mechanism"
    NO_SECRET = "no-secret"  # noqa: S105 - this process was given none
    TOKEN_COMMAND = "token-command"  # noqa: S105 - the name of a cause
    TOKEN_FILE = "token-file"  # noqa: S105
    TOKEN_REFUSED = "token-refused"  # noqa: S105 - by the OAuth2 server
    TOKEN_UNREACHABLE = "token-unreachable"  # noqa: S105
    TOKEN_ANSWER = "token-answer"  # noqa: S105 - something came, and it is no token


class SessionFailure(Exception):
    """No session: the phase it failed in, with the relay's reply or the failure.

    `detail` is what happened, in words and without secrets; `mechanism` is set when a login was tried.
    """

    def __init__(
        self,
        phase: Phase,
        *,
        reply: Reply | None = None,
        failure: Failure | None = None,
        detail: str = "",
        cause: Cause | None = None,
        mechanism: str = "",
    ) -> None:
        self.phase, self.reply, self.failure, self.detail = phase, reply, failure, detail
        self.cause, self.mechanism = cause, mechanism
        super().__init__(f"{phase}: {reply or failure}: {detail}")
