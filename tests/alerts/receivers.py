"""Receivers that know nothing of the sender: Python's HTTP server, and what of SMTP (RFC 5321) takes mail."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Posted:
    """The requests that arrived, as (path, headers, body), and the status that is answered."""

    url: str = ""
    status: int = 204
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)


@contextmanager
def http_receiver(port: int = 0) -> Iterator[Posted]:
    """Yield what a server on this machine is posted."""
    found = Posted()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.requests.append((self.path, dict(self.headers), body))
            self.send_response(found.status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_address[1]}/hooks/unheard"
        with _running(server):
            yield found


@dataclass
class Mailed:
    """The mail that arrived: its sender, recipients and message; and a recipient that is refused."""

    port: int = 0
    refuse: str = ""
    mail: list[tuple[str, list[str], EmailMessage]] = field(default_factory=list)


@contextmanager
def smtp_receiver(port: int = 0) -> Iterator[Mailed]:
    """Yield what a mail server on this machine takes."""
    found = Mailed()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            sender, recipients = "", list[str]()
            self.say("220 receiver")
            while line := self.rfile.readline():
                command = line.decode("ascii").strip()
                verb, _, rest = command.partition(":")
                match verb.upper().split(" ")[0]:
                    case "EHLO" | "HELO" | "RSET" | "NOOP":
                        self.say("250 receiver")
                    case "MAIL":
                        sender, recipients = rest.split(">")[0].strip(" <"), []
                        self.say("250 ok")
                    case "RCPT":
                        name = rest.split(">")[0].strip(" <")
                        if name == found.refuse:
                            self.say("550 no such mailbox")
                            continue
                        recipients.append(name)
                        self.say("250 ok")
                    case "DATA":
                        self.say("354 go on")
                        lines = list[bytes]()
                        while (data := self.rfile.readline()) != b".\r\n":
                            lines.append(data[1:] if data.startswith(b"..") else data)
                        text = message_from_bytes(b"".join(lines), policy=policy.default)
                        assert isinstance(text, EmailMessage)
                        found.mail.append((sender, recipients, text))
                        self.say("250 taken")
                    case "QUIT":
                        self.say("221 bye")
                        return
                    case _:
                        self.say("502 not here")

        def say(self, line: str) -> None:
            self.wfile.write(line.encode("ascii") + b"\r\n")

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True

    with Server(("127.0.0.1", port), Handler) as server:
        found.port = server.server_address[1]
        with _running(server):
            yield found


@contextmanager
def _running(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
