"""What a person can do about a relay that can't be used, in plain words, English and Chinese.

The first thing that fits is said: the relay's own words, then the cause that was found, then the failure.
"""

import re
from dataclasses import dataclass

from service.mail.outcome import Failure, Phase
from service.mail.reply import Reply
from service.relay.config import RelayConfig
from service.relay.failure import Cause, SessionFailure
from service.relay.logins import BY_TOKEN
from service.relay.url import Tls

_BY_FAILURE = {
    Failure.DNS: (
        "The host name is not known here: check its spelling and this machine's DNS. 主机名无法解析，请检查拼写和 DNS。"
    ),
    Failure.REFUSED: (
        "Nothing answers at this port: check host and port, and that no firewall refuses it. "
        "端口无法连接：请检查主机、端口和防火墙。"
    ),
    Failure.TIMEOUT: (
        "No answer in time: a firewall may drop what is sent, or the relay is overloaded. "
        "连接超时：可能被防火墙拦截，或对方服务器繁忙。"
    ),
    Failure.LOST: (
        "The relay closed the connection without a word: it may refuse this machine's address, or be overloaded. "
        "对方未作答复即断开连接：可能拒绝本机 IP，或服务器繁忙。"
    ),
    Failure.PROTOCOL: "What came is not what SMTP allows: check host and port. 对方的应答不是 SMTP：请检查主机和端口。",
}
_PORT_25 = (
    "Many clouds block outgoing port 25: use smtps:// with port 465, or smtp+starttls:// with port 587. "
    "云服务器通常封锁 25 端口，请改用 465（smtps://）或 587（smtp+starttls://）。"
)
_BY_CAUSE = {
    Cause.NO_SMTP: "What answers is no SMTP server: check host and port. 对方不是 SMTP 服务器：请检查主机和端口。",
    Cause.NO_STARTTLS: (
        "The relay does not offer STARTTLS, or something on the way takes it out; nothing is sent without it. "
        "Use smtps:// with port 465. 服务器未提供 STARTTLS（或被中间设备去除），请改用 smtps:// 和 465 端口。"
    ),
    Cause.STARTTLS_REFUSED: (
        "The relay offers STARTTLS and then refuses it: try again later, or use smtps:// with port 465. "
        "服务器拒绝 STARTTLS：请稍后再试，或改用 smtps:// 和 465 端口。"
    ),
    Cause.TLS_VERSION: (
        "The relay and this service have no TLS version in common (here at least `tls_min`, at most `tls_max`). "
        "TLS 版本不一致：请检查 tls_min 和 tls_max。"
    ),
    Cause.TLS_CIPHERS: (
        'The relay and this service have no cipher in common: try `ciphers = "DEFAULT"`, and `tls_max = "1.2"`. '
        '没有共同的加密套件：可尝试 ciphers = "DEFAULT" 及 tls_max = "1.2"。'
    ),
    Cause.TLS_BROKEN_OFF: (
        "The relay broke the handshake off: check that the port fits the URL's scheme; a firewall may interfere. "
        "TLS 握手被对方中断：请确认端口与协议一致，并检查防火墙。"
    ),
    Cause.TLS_OTHER: (
        "The TLS handshake failed: check that host, port and the URL's scheme fit. "
        "TLS 握手失败：请确认主机、端口与协议一致。"
    ),
    Cause.CERTIFICATE_NAME: (
        "The certificate is for another host name: use the name that the provider documents, or somebody else answers. "
        "证书与主机名不符：请使用服务商公布的主机名，或连接被劫持。"
    ),
    Cause.CERTIFICATE_EXPIRED: (
        "The certificate has expired; if that surprises, check this machine's clock. 证书已过期；也请检查本机时钟。"
    ),
    Cause.CERTIFICATE_NOT_YET_VALID: (
        "The certificate is not yet valid: this machine's clock is probably wrong. 证书尚未生效：本机时钟可能有误。"
    ),
    Cause.CERTIFICATE_SELF_SIGNED: (
        "The certificate is signed by itself: for a relay of your own give it as `ca_file`; else somebody else answers. "
        "证书为自签名：自建服务器请用 ca_file 指定该证书，否则连接可能被劫持。"
    ),
    Cause.CERTIFICATE_ISSUER: (
        "The certificate's authority is not known here: give it as `ca_file`, or install the system's ca-certificates. "
        "证书颁发机构不受信任：请用 ca_file 指定，或安装 ca-certificates。"
    ),
    Cause.CERTIFICATE_OTHER: "The certificate is not good; see the words above. 证书无效，见上文说明。",
    Cause.NO_MECHANISM: (
        "The relay offers no login in the way that is configured: see `auth`, and that TLS is used. "
        "服务器不支持所配置的登录方式：请检查 auth 和 TLS。"
    ),
    Cause.NO_SECRET: (
        "This process was given no secret for the relay, as is right for one that only takes requests: check where mail is sent from. "
        "此进程未配置该中继的密钥（仅接收请求的进程本应如此）：请在发信进程中检查。"
    ),
    Cause.TOKEN_COMMAND: (
        "No token: run `token_command` by hand as the service's user. 未取得令牌：请以服务用户手工运行 token_command。"
    ),
    Cause.TOKEN_FILE: (
        "No token in `token_file`: check what writes it, and its permissions. 令牌文件不可用：请检查其写入程序和权限。"
    ),
    Cause.TOKEN_REFUSED: (
        "The OAuth2 server gives no token: the refresh token may be expired or revoked, or client_id, client_secret "
        "or scope are wrong. OAuth2 服务器拒绝签发令牌：refresh_token 可能已失效，或 client_id、client_secret、scope 有误。"
    ),
    Cause.TOKEN_UNREACHABLE: (
        "The OAuth2 server gives no answer: check `token_url` and the way out. "
        "无法访问 OAuth2 服务器：请检查 token_url 和网络。"
    ),
    Cause.TOKEN_ANSWER: (
        "What came in place of a token is none: it is bare text, or JSON with access_token. "
        "得到的内容不是令牌：应为纯文本或含 access_token 的 JSON。"
    ),
}
_SILENT_IN_CLEAR = (
    "Connected, and then silence: this port probably speaks TLS from the start: use smtps://. "
    "已连接但无应答：该端口可能一开始就使用 TLS，请改用 smtps://。"
)
_NO_TLS = {
    Tls.IMPLICIT: (
        "The port answers in clear, not in TLS: use smtp+starttls:// (587), or port 465. "
        "该端口是明文端口，不是 TLS：请改用 smtp+starttls://（587）或 465 端口。"
    ),
    Tls.STARTTLS: (
        "After STARTTLS something else than TLS came: something on the way may interfere. "
        "STARTTLS 之后收到的不是 TLS 数据：连接可能被中间设备干扰。"
    ),
}
_LOGIN_BY_BEARER = (
    "The access token was refused: it has expired, is for another user, or lacks the scope for SMTP "
    "(Google https://mail.google.com/, Microsoft SMTP.Send). "
    "访问令牌被拒绝：可能已过期、属于其他用户，或缺少 SMTP 权限（scope）。"
)
_LOGIN = (
    "The login was refused: most providers want an authorization code (授权码) or app password instead of the mailbox "
    "password, and the SMTP service switched on in the mailbox settings. "
    "登录被拒绝：请使用授权码而非邮箱密码，并在邮箱设置中开启 SMTP 服务。"
)


@dataclass(frozen=True, slots=True)
class _Said:
    """What replies of a phase, which match in enhanced code and text, mean."""

    phase: Phase
    pattern: re.Pattern[str]
    hint: str


def _said(phase: Phase, pattern: str, hint: str) -> _Said:
    return _Said(phase, re.compile(pattern, re.I), hint)


_BY_REPLY = (
    _said(
        Phase.AUTH,
        r"account is abnormal, service is not open",
        "QQ does not say which it is: a wrong or withdrawn authorization code, the SMTP service switched off, or too many "
        "logins. QQ 未说明具体原因：授权码错误或已失效、SMTP 服务未开启，或登录过于频繁。",
    ),
    _said(
        Phase.AUTH,
        r"too many|too much|frequency limited|limit exceed|^4\S+ 4\.7\.0",
        "Too many logins: wait, at best half an hour, without trying. 登录过于频繁：请等待（最好半小时）后再试。",
    ),
    _said(
        Phase.AUTH,
        r"application-specific password|app password|5\.7\.9\b",
        "Google wants an app password (16 letters, with 2-step verification switched on) or OAuth2. "
        "Google 要求使用应用专用密码（需开启两步验证）或 OAuth2。",
    ),
    _said(
        Phase.AUTH,
        r"basic authentication is (disabled|not supported)|5\.7\.30\b",
        "The provider takes OAuth2 only: give token_command, token_file or [relays.NAME.oauth2]. "
        "服务商只接受 OAuth2 登录：请配置 token_command、token_file 或 oauth2。",
    ),
    _said(
        Phase.AUTH,
        r"SmtpClientAuthentication is disabled|5\.7\.139\b",
        "Microsoft: SMTP AUTH is switched off for the mailbox or the tenant, or a policy forbids it: an administrator "
        "switches `Authenticated SMTP` on. Microsoft：该邮箱或租户未开启 SMTP AUTH，请管理员开启。",
    ),
    _said(
        Phase.AUTH,
        r"no permission|service is not open|not enabled|not open|未开启|没有权限",
        "The SMTP service is switched off for this account: switch it on in the mailbox settings, and use the "
        "authorization code that is shown then. 该账号未开启 SMTP 服务：请在邮箱设置中开启，并使用生成的授权码。",
    ),
    _said(
        Phase.MAIL,
        r"must equal|must be same|not owned|not allowed to send as|sender address rejected|5\.7\.60|SendAsDenied",
        "The relay takes mail only from the login's own address: set `from`, or `sender_must_equal_login = true`. "
        "发件人必须与登录账号一致：请设置 from 或 sender_must_equal_login。",
    ),
    _said(
        Phase.MAIL,
        r"not verified|verified sender|not a Sender Signature",
        "The provider has not verified this sender: verify the address or its domain there. "
        "发件人地址或域名尚未在服务商处验证。",
    ),
    _said(
        Phase.MAIL,
        r"no permission|suspended|disabled|MI:SPB|WM:BLU",
        "The account may not send: look into its settings at the provider. 该账号被禁止发信：请到服务商处查看。",
    ),
)
ACCOUNT_RESTS = (
    "Providers lock accounts for refused logins, so the account rests: mend the secret, or wait. `?force=true` "
    "(`--force`) tries one login all the same. "
    "多次登录失败可能导致账号被锁定，因此暂停登录：请更正授权码或等待；force 可强制尝试一次。"
)
LOGIN_ELSEWHERE = (
    "One connection logs in at a time while the secret is not proven: try again in a minute. "
    "密钥未经验证时一次只允许一个连接登录：请稍后再试。"
)
NO_SENDER = (
    "Give an address that the account may send from: `--from` of the command, `?from=` of the request. "
    "请指定该账号可用的发件地址：命令行用 --from，接口用 ?from=。"
)
_SENDER = (
    "The login is good, and the relay does not take mail from this sender: see its words. "
    "登录成功，但服务器不接受该发件人，见其答复。"
)
_BEFORE_LOGIN = (
    "The relay serves nobody now, or not this machine's address: see its words. "
    "服务器暂不服务，或拒绝本机 IP，见其答复。"
)


def hint_for(failure: SessionFailure, config: RelayConfig) -> str:
    """A sentence or two in each language, with the provider's own note at the end of what is about a login."""
    if failure.reply is not None:
        return _of_reply(failure, failure.reply, config)
    if failure.phase is Phase.CONNECT and config.port == 25 and failure.failure is not Failure.DNS:
        return _PORT_25
    cause = failure.cause
    if cause is Cause.SILENT and config.tls is not Tls.IMPLICIT:
        return _SILENT_IN_CLEAR
    if cause is Cause.NO_TLS:
        return _NO_TLS[config.tls]
    if cause is not None and cause is not Cause.SILENT:
        return _BY_CAUSE[cause]
    return "" if failure.failure is None else _BY_FAILURE.get(failure.failure, "")


def _of_reply(failure: SessionFailure, reply: Reply, config: RelayConfig) -> str:
    words = f"{reply.code} {reply.enhanced} {reply.text}"
    said = next((each for each in _BY_REPLY if each.phase is failure.phase and each.pattern.search(words)), None)
    if said is not None:
        return said.hint
    if failure.phase is Phase.MAIL:
        return _SENDER
    if failure.phase is Phase.AUTH:
        if not reply.permanent:
            return "The login could not be checked now: try again later. 暂时无法验证登录：请稍后再试。"
        return _LOGIN_BY_BEARER if failure.mechanism in BY_TOKEN else f"{_LOGIN} {config.preset.note}".strip()
    return _BEFORE_LOGIN if failure.cause is None else _BY_CAUSE.get(failure.cause, _BEFORE_LOGIN)
