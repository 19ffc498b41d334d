"""What other mailers call a field: SendGrid, Mailgun, SES, Postmark, nodemailer and their kin.

A name that is only another spelling (`replyTo`, `ReplyTo`) is found by comparing letters; here stand those that are
another word, by the model in which they were written: `content` beside `subject` is a body, inside of an attachment it
is the file. Names are compared without case, hyphens, underscores, colons and dots. What is refused is refused with its
reason, the one of docs/composing.md.
"""

from collections.abc import Iterable, Mapping

from pydantic import BaseModel

from service.api.models import AlternativeIn, AttachmentIn, BatchIn, CalendarIn, SendIn, SendTestIn, TemplateUse

_BODY = "html or text"
_VARIABLES = "template.variables"
_STOPPED = "what is accepted is stopped by POST /messages/{id}/cancel"
_BATCH_OF_OURS = "metadata or tags, by which POST /messages/cancel finds the messages"
_NO_TRACKING = "opens and clicks are not tracked: nothing of a mail is rewritten to watch its reader"
_NO_POOLS = "the relay decides from which address it sends; `relay` names one"
_PROVIDERS_DKIM = "keys belong to domains, not to messages (POSTROOM_DKIM_FILE)"
_TLS = "the relay's URL demands TLS or not (POSTROOM_RELAY_URL)"
_NOT_FETCHED = "nothing is read from a path or a URL, by anybody; hand in the bytes as `content`"
_OUR_ENCODING = "the service chooses the encoding of each part"
_OUR_PART = "the service writes the fields of a part; others could contradict them"
_ACCOUNT = "each relay has its account; `relay` names one"

# model -> (names here, by what they are called elsewhere)
_HERE: Mapping[type[BaseModel], Mapping[str, str]] = {
    SendIn: {
        # SendGrid
        "categories": "tags",
        "category": "tags",
        "asm": "unsubscribe_url",
        "custom_args": "metadata",
        "unique_args": "metadata",
        "dynamic_template_data": _VARIABLES,
        "substitutions": _VARIABLES,
        "template_id": "template.name",
        "content": _BODY,
        "personalizations": "messages of POST /send/batch",
        "send_at": "scheduled_at, RFC 3339 with an offset",
        "reply_to_list": "reply_to, one or a list",
        "batch_id": _BATCH_OF_OURS,
        "sandbox_mode": "POST /send?dry_run=true",
        "mail_settings": "POST /send?dry_run=true for its sandbox_mode; there are no others",
        # Mailgun
        "o:tag": "tags",
        "o:deliverytime": "scheduled_at, RFC 3339 with an offset",
        "o:testmode": "POST /send?dry_run=true",
        "amp-html": "amp",
        "inline": "attachments with a content_id",
        "recipient-variables": f"{_VARIABLES} of each message of POST /send/batch",
        "t:variables": _VARIABLES,
        "t:version": "template.name, written name@version",
        "t:text": "the template's own text part",
        # SES
        "Source": "from",
        "FromEmailAddress": "from",
        "Destination": "to, cc and bcc",
        "Destinations": "to, cc and bcc",
        "ToAddresses": "to",
        "CcAddresses": "cc",
        "BccAddresses": "bcc",
        "ReplyToAddresses": "reply_to",
        "FeedbackForwardingEmailAddress": "envelope_from",
        "Message": "subject, html and text",
        "Body": _BODY,
        "Simple": "subject, html and text",
        "TemplateData": _VARIABLES,
        "TemplateName": "template.name",
        "DefaultTags": "tags",
        "EmailTags": "tags, an object of names and values",
        "MessageTags": "tags, an object of names and values",
        "ConfigurationSetName": "headers: SES reads X-SES-CONFIGURATION-SET over SMTP",
        "ses": "headers: SES reads X-SES-CONFIGURATION-SET over SMTP",
        "ListManagementOptions": "unsubscribe_url",
        "BulkEmailEntries": "messages of POST /send/batch",
        # Postmark
        "HtmlBody": "html",
        "TextBody": "text",
        "Tag": "tags",
        "TemplateModel": _VARIABLES,
        "TemplateAlias": "template.name",
        "MessageStream": "relay, which names the way out, or tags, which group messages",
        "InlineCss": "the inline_css of the template's template.toml; html of the request stays as it is",
        # nodemailer
        "icalEvent": "calendar",
        "attachDataUrls": "embed_data_urls",
        "watchHtml": "alternatives, with the type text/watch-html",
        "list": "unsubscribe_url, or headers for List-Id and its kin",
        "envelope": "envelope_from; the recipients are those of to, cc and bcc",
        "returnPath": "envelope_from",
        "xMailer": "headers: X-Mailer",
        "otp": "headers: OTP-Token",
        # and more
        "context": _VARIABLES,
        "variables": _VARIABLES,
        "params": _VARIABLES,
        "merge_vars": _VARIABLES,
        "global_merge_vars": _VARIABLES,
        "locale": "template.locale",
        "html_content": "html",
        "html_part": "html",
        "text_content": "text",
        "text_part": "text",
        "plain": "text",
        "from_email": 'from: "Name <a@b>" or {"email", "name"}',
        "from_name": 'from: "Name <a@b>" or {"email", "name"}',
        "recipients": "to, cc and bcc",
        "idempotency_key": "the header Idempotency-Key",
    },
    BatchIn: {
        "personalizations": "messages",
        "BulkEmailEntries": "messages",
        "defaults": "base",
        "DefaultContent": "base",
        "from": "base.from, for all messages, or from of each",
        "subject": "base.subject, for all messages, or subject of each",
        "html": "base.html, for all messages, or html of each",
        "text": "base.text, for all messages, or text of each",
        "template": "base.template, for all messages, or template of each",
    },
    AttachmentIn: {
        "type": "content_type",
        "mime_type": "content_type",
        "name": "filename",
        "data": "content, in base64",
        "base64": "content, in base64",
        "Base64Content": "content, in base64",
        "RawContent": "content, in base64",
        "cid": "content_id",
        "contentDisposition": "disposition",
        "inline": 'disposition: "inline"',
    },
    AlternativeIn: {"type": "content_type", "data": "content", "body": "content"},
    CalendarIn: {"data": "content", "body": "content", "name": "filename", "ics": "content"},
    TemplateUse: {
        "id": "name",
        "template_id": "name",
        "alias": "name",
        "slug": "name",
        "TemplateName": "name",
        "data": "variables",
        "context": "variables",
        "model": "variables",
        "params": "variables",
        "TemplateData": "variables",
        "substitutions": "variables",
        "dynamic_template_data": "variables",
        "merge_vars": "variables",
        "language": "locale",
        "lang": "locale",
        "version": "name, written name@version",
    },
    SendTestIn: {"template": "the name in the path", "data": "variables", "model": "variables"},
}

# model -> (reason, by the name that is refused)
_REFUSED: Mapping[type[BaseModel], Mapping[str, str]] = {
    SendIn: {
        "messageId": "two messages with one Message-ID are one to many readers; ours is in the 202, "
        "and Idempotency-Key guards against repeats",
        "date": "a false date is a mark of spam; `scheduled_at` sends later and dates accordingly",
        "raw": "a message that nobody composed can hold any header field and any second message",
        "RawMessage": "a message that nobody composed can hold any header field and any second message",
        "encoding": "the smallest encoding that fits is chosen for each part",
        "textEncoding": "encoded words are base64, which every reader reads",
        "newline": "the lines of a mail end with CRLF (RFC 5322)",
        "normalizeHeaderKey": "names of `headers` keep the case in which they are given",
        "baseBoundary": "boundaries are made so that no body can hold them",
        "boundaryPrefix": "boundaries are made so that no body can hold them",
        "disableFileAccess": "there is no access to disable: nothing is read from a path",
        "disableUrlAccess": "there is no access to disable: nothing is read from a URL",
        "maxRecipients": "it is a setting, POSTROOM_MAX_RECIPIENTS",
        "dkim": _PROVIDERS_DKIM,
        "o:dkim": _PROVIDERS_DKIM,
        "auth": _ACCOUNT,
        "requireTLSExtensionEnabled": _TLS,
        "o:require-tls": _TLS,
        "o:skip-verification": _TLS,
        "signal": _STOPPED,
        "sections": "a template holds the text; `template.variables` fills it",
        "tracking_settings": _NO_TRACKING,
        "track_opens": _NO_TRACKING,
        "track_clicks": _NO_TRACKING,
        "track_links": _NO_TRACKING,
        "o:tracking": _NO_TRACKING,
        "o:tracking-opens": _NO_TRACKING,
        "o:tracking-clicks": _NO_TRACKING,
        "ip_pool_name": _NO_POOLS,
        "ip_pool": _NO_POOLS,
        "o:sending-ip": _NO_POOLS,
        "o:sending-ip-pool": _NO_POOLS,
        "o:time-zone-localize": "`scheduled_at` is one moment; send one message for each time zone",
        "o:deliverytime-optimize-period": "`scheduled_at` is the moment that you choose",
        "SourceArn": _ACCOUNT,
        "FromEmailAddressIdentityArn": _ACCOUNT,
        "ReturnPathArn": _ACCOUNT,
        "TemplateArn": "a template is named by `template.name`",
    },
    AttachmentIn: {
        "path": _NOT_FETCHED,
        "href": _NOT_FETCHED,
        "url": _NOT_FETCHED,
        "httpHeaders": _NOT_FETCHED,
        "tls": _NOT_FETCHED,
        "encoding": "`content` is base64, `text` is text",
        "contentTransferEncoding": "files are base64, which nothing on the way changes",
        "headers": _OUR_PART,
        "raw": "bytes that nobody checked would be a message inside the message",
    },
    AlternativeIn: {
        "path": _NOT_FETCHED,
        "href": _NOT_FETCHED,
        "httpHeaders": _NOT_FETCHED,
        "tls": _NOT_FETCHED,
        "raw": "nothing is written unread",
        "encoding": _OUR_ENCODING,
        "contentTransferEncoding": _OUR_ENCODING,
        "filename": "an alternative is no file",
        "headers": _OUR_PART,
    },
    CalendarIn: {
        "path": _NOT_FETCHED,
        "href": _NOT_FETCHED,
        "httpHeaders": _NOT_FETCHED,
        "tls": _NOT_FETCHED,
        "raw": "nothing is written unread",
        "encoding": _OUR_ENCODING,
        "contentType": "it is text/calendar with the method",
        "contentTransferEncoding": _OUR_ENCODING,
        "headers": _OUR_PART,
    },
}

_APART = str.maketrans("", "", "-_:. ")


def plain(name: str) -> str:
    """A name without case and punctuation: `reply_to`, `replyTo` and `Reply-To` are one."""
    return name.translate(_APART).lower()


def _by_plain_name(table: Mapping[type[BaseModel], Mapping[str, str]]) -> dict[type[BaseModel], dict[str, str]]:
    return {model: {plain(name): words for name, words in names.items()} for model, names in table.items()}


_HERE_BY_NAME, _REFUSED_BY_NAME = _by_plain_name(_HERE), _by_plain_name(_REFUSED)
_PREFIXES = {  # Mailgun's, of which the caller makes up the rest
    "h:": "headers",
    "v:": "metadata, or template.variables for what a template shows",
    "my:": "metadata",
}


def told_elsewhere(name: str, model: type[BaseModel], known: Iterable[str]) -> str | None:
    """What is said of an unknown field whose name is known from another mailer; None: it is from nowhere."""
    bare = plain(name)
    same = next((each for each in known if plain(each) == bare), None)
    if same is not None:
        return f"is not known; did you mean {same}?"
    for kind in model.__mro__:
        if (reason := _REFUSED_BY_NAME.get(kind, {}).get(bare)) is not None:
            return f"is refused: {reason}"
        if (here := _HERE_BY_NAME.get(kind, {}).get(bare)) is not None:
            return f"is not known; here it is {here}"
    if issubclass(model, SendIn):
        here = next((here for prefix, here in _PREFIXES.items() if name.lower().startswith(prefix)), None)
        return f"is not known; here it is {here}" if here else None
    return None
