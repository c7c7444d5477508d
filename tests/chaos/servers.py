"""Servers of the suite's own, on the loopback interface, to be killed at will."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import amqp
import psycopg
import redis

from config import embedded


def free_port() -> int:
    """Return a port nobody uses, out of those that no outgoing connection is given."""
    # Not of the run's seed, which is for faults only.
    choose = random.SystemRandom().randint
    while True:
        port = choose(10_000, 30_000)
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port


def _wait_until_answers(ask, problem: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            ask()
            return
        except Exception as error:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{problem}: {error}") from error
            time.sleep(0.05)


class Redis:
    """Valkey or Redis with an append-only file, as `make run` has it."""

    name = "Redis"
    #: What follows a queue's name in the key of the list that workers take from.
    list_suffix = ".1"

    def __init__(self, folder: Path, executable: Path | None = None) -> None:
        self.folder = folder / "redis"
        self.folder.mkdir()
        self.port = free_port()
        self.executable = executable or embedded.find_executable()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def client(self) -> "redis.Redis":
        """A client that goes past the proxy."""
        return redis.Redis(port=self.port, socket_timeout=5, socket_connect_timeout=2)

    def environment(self, port: int) -> dict[str, str]:
        """Return the variables that lead the site here through a port."""
        return {"QUEUE_PROVIDER": "redis", "REDIS_URL": f"redis://127.0.0.1:{port}/0"}

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                str(self.executable),
                *("--port", str(self.port), "--bind", "127.0.0.1"),
                *("--dir", str(self.folder), "--appendonly", "yes", "--save", ""),
                *("--maxmemory-policy", "noeviction"),
            ],
            stdout=subprocess.DEVNULL,
        )
        _wait_until_answers(lambda: self.client.ping(), "Redis does not start")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)

    def flush(self) -> None:
        """Forget everything."""
        self.client.flushall()

    def refuse_writes(self, *, refuse: bool) -> None:
        """Be full, or not any more."""
        self.client.config_set("maxmemory", int(refuse))

    def drop_clients(self) -> None:
        """Close every client connection at the server."""
        self.client.client_kill_filter(_type="normal", skipme=True)
        self.client.client_kill_filter(_type="pubsub", skipme=True)

    def put(self, queue: str, name: str, data: bytes) -> None:
        """Add a message as a stranger would."""
        self.client.hset(f"chaos:{queue}.msgs", name, data)
        self.client.rpush(f"chaos:{queue}{self.list_suffix}", name)


class RabbitMQ:
    """A node of our own; it shares nothing with others but Erlang's name server."""

    name = "RabbitMQ"
    _queues = ("chaos.free", "chaos.limited")

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "rabbitmq"
        self.folder.mkdir()
        self.port = free_port()
        self._bin = self._binaries()
        config = self.folder / "conf"
        config.write_text(f"listeners.tcp.1 = 127.0.0.1:{self.port}\n")
        self._node = f"chaos{self.port}@localhost"
        self._environment = {
            **os.environ,
            # Where the secret is that nodes and their tools share.
            "HOME": str(self.folder),
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "logs"),
            "RABBITMQ_CONFIG_FILE": str(config),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def _binaries(self) -> Path:
        # The wrappers on the PATH of some systems run as a user of their own only.
        for folder in (Path("/usr/lib/rabbitmq/bin"), Path(shutil.which("rabbitmq-server") or ".")):
            found = folder if folder.is_dir() else folder.parent
            if (found / "rabbitmq-server").exists():
                return found
        raise RuntimeError("No RabbitMQ server is installed here (no rabbitmq-server).")

    def environment(self, port: int) -> dict[str, str]:
        """Return the variables that lead the site here through a port."""
        url = f"amqp://guest:guest@127.0.0.1:{port}/"
        return {"QUEUE_PROVIDER": "rabbitmq", "RABBITMQ_URL": url}

    def connect(self) -> "amqp.Connection":
        """Return a connection that goes past the proxy."""
        connection = amqp.Connection(f"127.0.0.1:{self.port}", connect_timeout=5)
        connection.connect()
        return connection

    def start(self) -> None:
        with (self.folder / "out").open("ab") as out:
            self._process = subprocess.Popen(
                [str(self._bin / "rabbitmq-server")],
                env=self._environment,
                cwd=self.folder,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _wait_until_answers(lambda: self.connect().close(), "RabbitMQ does not start", 60.0)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self._process is not None:
            # The node is a child of its start script.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            self._process.wait(60)

    def _ctl(self, *arguments: str) -> None:
        command = [str(self._bin / "rabbitmqctl"), "-n", self._node, *arguments]
        subprocess.run(
            command, env=self._environment, check=True, stdout=subprocess.DEVNULL, timeout=60
        )

    def flush(self) -> None:
        """Forget every message."""
        with self.connect() as connection:
            for queue in self._queues:
                connection.channel().queue_purge(queue)

    def refuse_writes(self, *, refuse: bool) -> None:
        """Block publishers by a memory alarm, or not any more."""
        self._ctl("set_vm_memory_high_watermark", "0.0000001" if refuse else "0.4")

    def drop_clients(self) -> None:
        """Close every client connection at the server."""
        self._ctl("close_all_connections", "chaos")

    def put(self, queue: str, name: str, data: bytes) -> None:
        """Add a message as a stranger would."""
        with self.connect() as connection:
            message = amqp.Message(data, application_headers={"queueadmin-id": name})
            connection.channel().basic_publish(message, "", f"chaos.{queue}")


#: By the name of the queue provider.
BROKERS: dict[str, type[Redis] | type[RabbitMQ]] = {"redis": Redis, "rabbitmq": RabbitMQ}
#: What a server or its client may raise while it is being hurt.
BROKER_ERRORS = (redis.RedisError, amqp.AMQPError, OSError, subprocess.SubprocessError)


class PostgreSQL:
    """A cluster of our own, run by another user where we are root, as it demands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "postgresql"
        self.port = free_port()
        self._as = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        self._bin = self._binaries()
        self.folder.mkdir()
        if self._as:
            folder.chmod(0o755)
            shutil.chown(self.folder, "postgres")
        self._run("initdb", "-D", str(self.folder), "-U", "postgres", "-A", "trust", "-N")
        options = (self.folder / "postgresql.conf").read_text()
        options += "\nmax_connections = 200\nlog_min_messages = fatal\n"
        (self.folder / "postgresql.conf").write_text(options)

    def _binaries(self) -> Path:
        if found := shutil.which("initdb"):
            return Path(found).parent
        versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not versions:
            raise RuntimeError("No PostgreSQL server is installed here (no initdb).")
        return versions[-1].parent

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as, str(self._bin / program), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", timeout=60)

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -h 127.0.0.1 -k {self.folder}"
        log = str(self.folder / "log")
        self._run("pg_ctl", "-D", str(self.folder), "-o", options, "-l", log, "-w", "start")
        _wait_until_answers(lambda: psycopg.connect(self.url).close(), "PostgreSQL does not start")

    def kill(self) -> None:
        """End it as a crash does: nothing is flushed, no transaction is finished."""
        self._run("pg_ctl", "-D", str(self.folder), "-m", "immediate", "-w", "stop")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.folder), "-m", "fast", "-w", "stop")


class Program:
    """One of our own processes, with its output in a file."""

    def __init__(
        self, name: str, command: Sequence[str], environment: dict[str, str], folder: Path
    ) -> None:
        self.name, self.command, self.environment = name, command, environment
        self.log = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdout=log, stderr=subprocess.STDOUT
            )

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: int) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    def end(self, seconds: float = 40.0) -> None:
        """Let it stop; kill it when it does not."""
        if self.process is None:
            return
        self.signal(signal.SIGTERM)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
