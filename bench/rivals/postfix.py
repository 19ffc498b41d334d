"""Postfix as a queue before the relay: its own configuration and queue in a temporary folder, its own `master`.

Messages are handed in by smtp-source, prebuilt: Postfix makes none. Its header ids cannot differ, so smtp-source numbers
the recipients. What Postfix needs beside its defaults for speed on loopback is set; what makes it durable is left.
"""

import contextlib
import os
import pwd
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.rivals.install import NotInstalled
from bench.rivals.rival import LOGIN, SECRET, Promises, Relay, Rival, Running, free_port, server
from bench.rivals.work import Variant

_DAEMONS = Path("/usr/lib/postfix/sbin")
_QUEUES = (
    "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "maildrop", "private", "saved", "trace",
)  # fmt: skip
_PARAMETERS = {
    "compatibility_level": "3.6",
    "myhostname": "postfix.bench.example",
    "mydestination": "",
    "local_recipient_maps": "",
    "inet_interfaces": "loopback-only",
    "inet_protocols": "ipv4",
    "mynetworks": "127.0.0.0/8",
    "alias_maps": "",
    "smtpd_peername_lookup": "no",
    "smtpd_client_event_limit_exceptions": "127.0.0.0/8",
    "smtpd_recipient_restrictions": "permit_mynetworks, reject",
    "smtp_tls_security_level": "none",
    "disable_dns_lookups": "yes",
    "smtp_host_lookup": "native",
    "tls_random_source": "dev:/dev/urandom",
    # as fast as it gets
    "in_flow_delay": "0",
    "qmgr_message_active_limit": "50000",
    "smtp_connection_cache_on_demand": "yes",
    "smtp_connection_reuse_count_limit": "0",
    "smtp_connection_reuse_time_limit": "300s",
}
_SERVICES = """
127.0.0.1:{port} inet n - n - - smtpd -o receive_override_options=no_address_mappings
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
smtp unix - - n - - smtp
relay unix - - n - - smtp
scache unix - - n - 1 scache
tlsproxy unix - - n - 0 tlsproxy
anvil unix - - n - 1 anvil
proxymap unix - - n - - proxymap
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix(Rival):
    """smtp-source -> Postfix -> relay."""

    name = "Postfix"
    kind = "smtp"
    promises = Promises(durable=True, retries=True, log=True, idempotent=False, template=False)
    configuration = (
        "own queue, in_flow_delay=0, connection cache, as many deliveries at once as the others have connections, no"
        " address mappings; fed by smtp-source -d with prebuilt messages"
    )

    def prepare(self) -> None:
        """Raises NotInstalled where it is missing or may not run."""
        if not (_DAEMONS / "master").exists() or shutil.which("smtp-source", path="/usr/sbin:/usr/bin") is None:
            raise NotInstalled("Postfix is not installed (apt-get install postfix)")
        if os.geteuid() != 0:
            raise NotInstalled("Postfix starts only as root")

    @contextlib.contextmanager
    def run(self, variant: Variant, relay: Relay, folder: Path) -> Iterator[Running]:
        """Its `master` in the foreground. `folder` is not used: Postfix wants one that its other users can enter."""
        with tempfile.TemporaryDirectory(prefix="postroom-bench-postfix-") as name:
            place, port = Path(name), free_port()
            place.chmod(0o755)
            _lay_out(place, port, variant, relay)
            log = place / "said"  # what `master` says before it has its own log
            with server([_DAEMONS / "master", "-c", place / "etc", "-d"], port, log) as master:
                yield Running(port, [master.pid], {})


def _lay_out(place: Path, port: int, variant: Variant, relay: Relay) -> None:
    owner = pwd.getpwnam("postfix")
    queue, data, configuration = (place / name for name in ("queue", "data", "etc"))
    for path in (queue, data, configuration):
        path.mkdir()
    for name in (*_QUEUES, "public"):
        (queue / name).mkdir(mode=0o700)
        os.chown(queue / name, owner.pw_uid, owner.pw_gid)
    (queue / "pid").mkdir()
    (queue / "public").chmod(0o755)
    os.chown(data, owner.pw_uid, owner.pw_gid)
    given = {**_PARAMETERS, **_own(place, variant, relay)}
    main = configuration / "main.cf"
    main.write_text("".join(f"{name} = {value}\n" for name, value in given.items()))
    (configuration / "master.cf").write_text(_SERVICES.format(port=port))
    long_ago = time.time() - 60
    os.utime(main, (long_ago, long_ago))  # it waits until a new main.cf is 2 s old


def _own(place: Path, variant: Variant, relay: Relay) -> dict[str, str]:
    most = str(variant.connections)
    given = {
        # a connection that stays open keeps its smtpd: fewer would leave clients waiting for their first greeting
        "default_process_limit": str(max(100, variant.clients + 20)),
        "queue_directory": str(place / "queue"),
        "data_directory": str(place / "data"),
        "maillog_file": str(place / "log"),
        "maillog_file_prefixes": str(place),
        "relayhost": f"[127.0.0.1]:{relay.port}",
        "smtp_connection_cache_destinations": f"[127.0.0.1]:{relay.port}",
        "initial_destination_concurrency": most,
        "default_destination_concurrency_limit": most,
    }
    if relay.ca_file is not None:
        given |= {
            "smtp_tls_security_level": "encrypt",
            "smtp_tls_CAfile": str(relay.ca_file),
            "smtp_sasl_auth_enable": "yes",
            "smtp_sasl_password_maps": f"inline:{{ {{ [127.0.0.1]:{relay.port} = {LOGIN}:{SECRET} }} }}",
            "smtp_sasl_security_options": "noanonymous",
            "smtp_sasl_mechanism_filter": "plain",
            "smtp_tls_connection_reuse": "yes",
        }
    return given
