"""Every refusal Postroom can give, as one tree. Each class carries its HTTP status, its stable code and a remedy.

    PostroomError
    ├── RequestError                 the caller can mend it
    │   ├── MalformedJson 400            InvalidIdempotencyKey 400   MalformedRequest 400
    │   ├── MissingApiKey 401            InvalidApiKey 401
    │   ├── FromNotAllowed 403           InsufficientScope 403
    │   ├── NotFound 404                 MethodNotAllowed 405        RequestTimeout 408 (HeadTimeout)
    │   ├── ConcurrentIdempotentRequests 409
    │   ├── NotCancelable 409            NotRetryable 409            NotReschedulable 409
    │   ├── CheckRunning 409             TemplateManagedByFiles 409
    │   ├── ContentPurged 410            PayloadTooLarge 413         UnsupportedMediaType 415
    │   ├── MisdirectedRequest 421
    │   ├── ValidationFailed 422         (errors: one FieldProblem for each fault, all at once)
    │   │   ├── TemplateNotFound         TemplateVariablesInvalid    TemplateRenderError
    │   │   ├── InvalidAttachment        AllRecipientsSuppressed     InvalidIdempotentRequest
    │   │   └── SenderNotAccepted        RelayNotFound               NoRelayForMessage
    │   └── RateLimitExceeded 429        HeadTooLarge 431
    ├── ServiceError                 ours, or not now
    │   ├── QueueFull 503                ShuttingDown 503            StorageUnavailable 503
    │   └── InternalError 500            (ComposeViolation: composed bytes failed the gate)
    └── ConfigurationError           the service does not start; the sentence names the setting

`mail/` raises `FieldProblem` inside ValidationFailed and knows nothing of HTTP; the edge turns any of these into
`application/problem+json` (RFC 9457).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One fault in one field: where (RFC 6901 pointer in URI fragment form), a stable code, a sentence."""

    pointer: str
    code: str
    detail: str

    def under(self, prefix: str) -> "FieldProblem":
        """The same fault seen from an enclosing document, e.g. `prefix="/messages/3"`."""
        return FieldProblem("#" + prefix + self.pointer.removeprefix("#"), self.code, self.detail)


_IN_A_FRAGMENT = "!$&'()*+,;=:@/?-._~"  # RFC 3986 3.5: what a fragment may hold as it is


def pointer_step(name: str) -> str:
    """One step of a pointer: RFC 6901 section 3, then percent-encoding for the fragment form (section 6)."""
    return quote(name.replace("~", "~0").replace("/", "~1"), safe=_IN_A_FRAGMENT)


class PostroomError(Exception):
    """Root of the tree. `status` is the HTTP status, `code` never changes, `title` is the same for every occurrence."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal error"
    remedy: ClassVar[str] = "Try again; if it persists, report the request_id."

    def __init__(
        self,
        detail: str | None = None,
        *,
        errors: Sequence[FieldProblem] = (),
        retry_after: float | None = None,
    ) -> None:
        self.detail = detail or self.remedy
        self.errors = tuple(errors)
        self.retry_after = retry_after  # seconds
        super().__init__(self.detail)


class RequestError(PostroomError):
    """The request cannot be served as it stands; the caller can mend it."""

    status = 400
    code = "malformed_json"
    title = "Bad request"
    remedy = "Mend the request."


class MalformedJson(RequestError):
    title = "Malformed JSON"
    remedy = "Send one JSON object (RFC 8259) in UTF-8: no NaN, duplicate names, lone surrogates or excessive depth."


class MalformedRequest(RequestError):
    code = "malformed_request"
    title = "Malformed request"
    remedy = "Send HTTP/1.1 (RFC 9112); what came is none, or TLS on a port without it."


class InvalidIdempotencyKey(RequestError):
    code = "invalid_idempotency_key"
    title = "Invalid Idempotency-Key"
    remedy = "Use 1 to 256 printable ASCII characters, bare or in double quotes."


class MissingApiKey(RequestError):
    status = 401
    code = "missing_api_key"
    title = "Missing API key"
    remedy = "Send `Authorization: Bearer pr_...`."


class InvalidApiKey(RequestError):
    status = 401
    code = "invalid_api_key"
    title = "Invalid API key"
    remedy = "The key is unknown, expired or revoked; ask an operator for a new one (`postroom keys create`)."


class FromNotAllowed(RequestError):
    status = 403
    code = "from_not_allowed"
    title = "From address not allowed"
    remedy = "Send from one of the addresses or domains this API key allows."


class InsufficientScope(RequestError):
    status = 403
    code = "insufficient_scope"
    title = "Insufficient scope"
    remedy = "Use a key that has the scope this operation needs."


class NotFound(RequestError):
    status = 404
    code = "not_found"
    title = "Not found"
    remedy = "Check the path and the id; ids of other accounts are not shown."


class MethodNotAllowed(RequestError):
    status = 405
    code = "method_not_allowed"
    title = "Method not allowed"
    remedy = "Use a method that the Allow header names."


class RequestTimeout(RequestError):
    status = 408
    code = "request_timeout"
    title = "Request timeout"
    remedy = "Send the whole body in time."


class HeadTimeout(RequestTimeout):
    remedy = "Send the whole head in time."


class ConcurrentIdempotentRequests(RequestError):
    status = 409
    code = "concurrent_idempotent_requests"
    title = "Concurrent request with the same Idempotency-Key"
    remedy = "A twin of this request is in flight; repeat after Retry-After."


class NotCancelable(RequestError):
    status = 409
    code = "not_cancelable"
    title = "Not cancelable"
    remedy = "Only recipients that wait (queued, deferred, scheduled) can be canceled."


class NotRetryable(RequestError):
    status = 409
    code = "not_retryable"
    title = "Not retryable"
    remedy = "Only bounced, failed, expired, unknown or canceled recipients can be retried."


class NotReschedulable(RequestError):
    status = 409
    code = "not_reschedulable"
    title = "Not reschedulable"
    remedy = "Only a message that is still scheduled can be moved."


class CheckRunning(RequestError):
    status = 409
    code = "check_running"
    title = "Check running"
    remedy = "Repeat when the check of this relay's account that is running now is done."


class TemplateManagedByFiles(RequestError):
    status = 409
    code = "template_managed_by_files"
    title = "Template managed by files"
    remedy = "Change the template in POSTROOM_TEMPLATES_DIR and reload, or publish under another name."


class ContentPurged(RequestError):
    status = 410
    code = "content_purged"
    title = "Content purged"
    remedy = "The bytes were erased or purged by retention; the delivery log remains."


class PayloadTooLarge(RequestError):
    status = 413
    code = "payload_too_large"
    title = "Payload too large"
    remedy = "Send less, or raise the limit the detail names."


class UnsupportedMediaType(RequestError):
    status = 415
    code = "unsupported_media_type"
    title = "Unsupported media type"
    remedy = "Send `Content-Type: application/json` in UTF-8 without Content-Encoding."


class MisdirectedRequest(RequestError):
    status = 421
    code = "misdirected_request"
    title = "Misdirected request"
    remedy = "Ask under one of the names that POSTROOM_ALLOWED_HOSTS allows."


class ValidationFailed(RequestError):
    status = 422
    code = "validation_error"
    title = "Validation failed"
    remedy = "Mend the fields named in `errors`."


class TemplateNotFound(ValidationFailed):
    code = "template_not_found"
    title = "Template not found"
    remedy = "GET /templates lists the templates there are."


class TemplateVariablesInvalid(ValidationFailed):
    code = "template_variables_invalid"
    title = "Template variables invalid"
    remedy = "GET /templates/{name} shows the JSON Schema of the variables."


class TemplateRenderError(ValidationFailed):
    code = "template_render_error"
    title = "Template could not be rendered"
    remedy = "Check the variables against the template; `postroom template check` finds faults of the template."


class TemplateRefused(ValidationFailed):
    code = "template_refused"
    title = "Template refused"
    remedy = "Mend the file and line that `errors` name; `postroom template check` finds the same faults."


class InvalidAttachment(ValidationFailed):
    code = "invalid_attachment"
    title = "Invalid attachment"
    remedy = "Give a filename and standard base64 content within the size limit."


class AllRecipientsSuppressed(ValidationFailed):
    code = "all_recipients_suppressed"
    title = "All recipients suppressed"
    remedy = "GET /suppressions/{email} says why; DELETE it if the address is good again."


class InvalidIdempotentRequest(ValidationFailed):
    code = "invalid_idempotent_request"
    title = "Idempotency-Key used with another request"
    remedy = "Use a new key for a new request."


class SenderNotAccepted(ValidationFailed):
    code = "sender_not_accepted"
    title = "Sender not accepted by the relay"
    remedy = "Send from the address the detail names, or set `rewrite_from = true` for the relay."


class RelayNotFound(ValidationFailed):
    code = "relay_not_found"
    title = "Relay not found"
    remedy = "GET /relays lists the relays there are."


class NoRelayForMessage(ValidationFailed):
    code = "no_relay_for_message"
    title = "No relay can carry this message"
    remedy = "Change what `errors` name for one of the relays, or configure a relay that takes it."


class RateLimitExceeded(RequestError):
    status = 429
    code = "rate_limit_exceeded"
    title = "Rate limit exceeded"
    remedy = "Repeat after Retry-After."


class HeadTooLarge(RequestError):
    status = 431
    code = "head_too_large"
    title = "Request header fields too large"
    remedy = "Send fewer or shorter header fields."


class ServiceError(PostroomError):
    """Not the caller's fault: ours, or not now."""


class QueueFull(ServiceError):
    status = 503
    code = "queue_full"
    title = "Queue full"
    remedy = "Repeat after Retry-After."


class ShuttingDown(ServiceError):
    status = 503
    code = "shutting_down"
    title = "Shutting down"
    remedy = "Repeat after Retry-After; another replica will answer."


class StorageUnavailable(ServiceError):
    status = 503
    code = "storage_unavailable"
    title = "Storage unavailable"
    remedy = "Nothing was accepted. Repeat after Retry-After."


class InternalError(ServiceError):
    """Ours. The answer shows no trace; the log line with the request_id does."""


class ComposeViolation(InternalError):
    """Composed bytes are not what was intended (the gate in `mail/gate.py`). Never stored, always an alert."""


class ConfigurationError(PostroomError):
    """A setting is wrong; the start stops with this sentence."""

    code = "configuration_error"
    title = "Configuration error"
    remedy = "Mend the setting the sentence names."
