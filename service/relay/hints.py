"""What to do about a relay that can't be used, in plain words, English and Chinese."""

from service.mail.outcome import Failure, Phase
from service.mail.reply import Reply

_BY_FAILURE = {
    Failure.DNS: (
        "The host name is not known here: check its spelling and this machine's DNS. 主机名无法解析，请检查拼写和 DNS。"
    ),
    Failure.REFUSED: (
        "Nothing answers at this port: check host and port; many clouds block port 25, use 465. "
        "端口无法连接：请检查主机和端口；云服务器通常封锁 25 端口，请改用 465。"
    ),
    Failure.TIMEOUT: (
        "No answer in time: a firewall may drop the connection; many clouds block port 25, use 465. "
        "连接超时：可能被防火墙拦截；云服务器通常封锁 25 端口，请改用 465。"
    ),
    Failure.TLS: (
        "TLS failed: the certificate must be valid for this host name, or the port and the URL's scheme don't fit. "
        "TLS 失败：证书须与主机名相符，并确认端口与协议（smtps 或 smtp+starttls）一致。"
    ),
    Failure.CAPABILITY: "The relay offers no login in the way that is configured. 服务器不支持所配置的登录方式。",
}
_AUTH = (
    "The login was refused: most providers want an authorization code (授权码) or app password instead of the mailbox "
    "password, and the SMTP service switched on in the mailbox settings. "
    "登录被拒绝：请使用授权码而非邮箱密码，并在邮箱设置中开启 SMTP 服务。"
)


def hint_for(phase: Phase, failure: Failure | None, reply: Reply | None, note: str = "") -> str:
    """A sentence or two, with the provider's own note at its end."""
    hint = ""
    if reply is not None and phase is Phase.AUTH and reply.permanent:
        hint = _AUTH
    elif failure is not None:
        hint = _BY_FAILURE.get(failure, "")
    return f"{hint} {note}".strip()
