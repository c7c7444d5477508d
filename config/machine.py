"""What `make run` needs of this machine: a place to write, free ports, a secret, a server.

Settings load before Django knows its commands, so `manage.py up` calls `prepare` first;
nothing here imports Django.
"""

import os
import secrets
import socket
import sys
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

from config import embedded

BASE_DIR = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
#: The sandbox providers stand this far above the site's own port.
SANDBOX_OFFSET, SMTP_OFFSET = 20, 25
MAX_PORT = 65_535 - SMTP_OFFSET
DEFAULT_PORT = 8000


class MachineError(Exception):
    """This machine cannot run the stack as asked; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the stack listens."""

    web: int

    @property
    def sandbox(self) -> int:
        """Port of the sandbox providers and their inbox page."""
        return self.web + SANDBOX_OFFSET

    @property
    def smtp(self) -> int:
        """Port of the sandbox's mail server."""
        return self.web + SMTP_OFFSET


def read_ports(value: str) -> Ports:
    """Return the ports that follow from PORT.

    Raises:
        MachineError: it is no number that leaves room for all of them.
    """
    if not value.isascii() or not value.isdigit() or not 1 <= int(value) <= MAX_PORT:
        raise MachineError(f"PORT is a number from 1 to {MAX_PORT}, not {value!r}.")
    return Ports(int(value))


def remember(ports: Ports, directory: Path) -> None:
    """Note where the site of a data directory listens, for commands in other terminals."""
    (directory / "port").write_text(f"{ports.web}\n")


def last_port(directory: Path) -> int:
    """Return where the site of a data directory listened last; the default where it never did."""
    try:
        return read_ports((directory / "port").read_text().strip()).web
    except (OSError, UnicodeDecodeError, MachineError):
        return DEFAULT_PORT


def require_free(ports: Ports) -> None:
    """Raise MachineError when somebody listens on one of the ports already."""
    for use, port in (
        ("the site", ports.web),
        ("the sandbox", ports.sandbox),
        ("the sandbox's mail", ports.smtp),
    ):
        with socket.socket() as probe:
            # As the servers do: a port that was closed a moment ago is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                problem = (
                    f"needs rights you do not have ({error.strerror})"
                    if isinstance(error, PermissionError)
                    else "is taken by another program"
                )
                other = ports.web + 100 if ports.web + 100 <= MAX_PORT else 8100
                raise MachineError(
                    f"Port {port}, for {use}, {problem}. "
                    f"Choose another one: make run PORT={max(other, 8100)}"
                ) from error


def make_data_directory(directory: Path) -> None:
    """Make the data directory and what must be in it before settings load.

    Raises:
        MachineError: it cannot be written to.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        (directory / "logs").mkdir(exist_ok=True)
        probe = directory / f".write-test-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
        _make_secret(directory / "secret_key")
    except OSError as error:
        raise MachineError(
            f"{directory} cannot be written to: {error.strerror}. The site keeps its database, "
            "logs and keys there; choose another directory: make run DATA_DIR=/some/where"
        ) from error


def _make_secret(path: Path) -> None:
    if path.exists() and path.read_text().strip():
        return
    # Written aside and moved, so that no crash leaves half a key.
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(50))
    draft.replace(path)


def wants_embedded_server(environment: MutableMapping[str, str]) -> bool:
    """Return whether a Redis server is needed and nobody named one to use."""
    if environment.get("QUEUE_PROVIDER") == "rabbitmq":
        return False
    return not (environment.get("REDIS_URL") or environment.get("REDIS_HOST"))


def prepare(environment: MutableMapping[str, str] = os.environ) -> None:
    """Make the machine ready for `manage.py up` and complete the environment.

    Values that are set already stay, above all DATABASE_URL and REDIS_URL.

    Raises:
        SystemExit: with a sentence that says what is wrong and what to do.
    """
    try:
        _prepare(environment)
    except (MachineError, embedded.ServerMissing) as error:
        raise SystemExit(f"The site cannot start. {error}") from error


def _prepare(environment: MutableMapping[str, str]) -> None:
    if sys.platform == "win32":
        raise MachineError(
            "`make run` needs Linux or macOS. On Windows use WSL, or start the programs by "
            "themselves as docs/installation.md describes."
        )
    ports = read_ports(environment.get("PORT") or str(DEFAULT_PORT))
    directory = Path(environment.get("DATA_DIR") or BASE_DIR / "var").absolute()
    make_data_directory(directory)
    environment["DATA_DIR"] = str(directory)
    environment["PORT"] = str(ports.web)
    if wants_embedded_server(environment):
        embedded.find_executable()
    for name, value in {
        "DEBUG": "0",
        "HTTPS": "0",
        "LOG_LEVEL": "INFO",
        "SANDBOX_URL": f"http://{HOST}:{ports.sandbox}",
        "SANDBOX_SMTP_PORT": str(ports.smtp),
    }.items():
        environment.setdefault(name, value)
