"""The whole stack by one command; `make run` calls it."""

import contextlib
import fcntl
import http.client
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import amqp
import redis
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from config import embedded, machine
from config.machine import HOST, Ports
from config.stack import Program, Stack, StackError, Stopped
from queueadmin.brokers.line import options_of
from queueadmin.brokers.redis_client import client_of


def manage(*arguments: str) -> tuple[str, ...]:
    """Return the command line of one of this project's commands."""
    return (sys.executable, str(settings.BASE_DIR / "manage.py"), *arguments)


def answers_http(port: int) -> bool:
    """Return whether a page server on this machine answers without an error of its own."""
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status < http.client.INTERNAL_SERVER_ERROR
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def accepts(port: int) -> bool:
    """Return whether somebody listens on a port of this machine."""
    try:
        with socket.create_connection((HOST, port), timeout=2):
            return True
    except OSError:
        return False


def answers_ping(url: str) -> bool:
    """Return whether a Valkey or Redis server answers at an address."""
    client = client_of(url, socket_timeout=2)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


def answers_amqp(url: str) -> bool:
    """Return whether a RabbitMQ server lets us in at an address."""
    try:
        with amqp.Connection(**{**options_of(url), "connect_timeout": 2}):
            return True
    except (OSError, amqp.AMQPError):
        return False


def server_program(directory: Path) -> Program:
    """Return the embedded server of a data directory."""
    address = f"unix://{embedded.socket_path(directory)}"
    return Program(
        name="valkey", command=embedded.command(directory), ready=lambda: answers_ping(address)
    )


def preparations() -> list[Program]:
    """Return what must have run before the site can start, in order."""
    return [
        Program(name="migrate", command=manage("migrate", "--no-input")),
        Program(name="collectstatic", command=manage("collectstatic", "--no-input")),
        Program(name="seed", command=manage("seed")),
    ]


def programs(ports: Ports) -> list[Program]:
    """Return the programs of the site in the order they start; they end the other way."""
    return [
        Program(
            name="sandbox",
            command=manage(
                "runsandbox", "--port", str(ports.sandbox), "--smtp-port", str(ports.smtp)
            ),
            ready=lambda: answers_http(ports.sandbox) and accepts(ports.smtp),
        ),
        Program(
            name="workers",
            command=manage("rundramatiq", "--processes", "2", "--threads", "4"),
            settle=2,
            grace=30,  # running jobs finish or return to their queue
        ),
        Program(name="scheduler", command=manage("runscheduler"), settle=2),
        Program(
            name="web",
            command=(
                *(sys.executable, "-m", "gunicorn", "config.wsgi"),
                *("--bind", f"{HOST}:{ports.web}", "--no-control-socket"),
                *("--worker-class", "gthread", "--workers", "2", "--threads", "4"),
                *("--graceful-timeout", "8", "--access-logfile", "-"),
            ),
            ready=lambda: answers_http(ports.web),
        ),
    ]


@contextlib.contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Hold a data directory for this process.

    Raises:
        CommandError: another process holds it.
    """
    with (directory / "up.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            raise CommandError(
                f"The site runs already from {directory} (process {lock.read().strip()}). Stop "
                "it there first, or choose another directory: make run DATA_DIR=/some/where"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


class Command(BaseCommand):
    help = "Start the site with its workers, scheduler, sandbox and Valkey; Ctrl-C ends all."
    # The settings are checked by the programs it starts.
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        directory = settings.DATA_DIR
        ports = Ports(settings.PORT)
        with only_one(directory):
            try:
                machine.require_free(ports)
            except machine.MachineError as error:
                raise CommandError(f"The site cannot start. {error}") from error
            machine.remember(ports, directory)
            self._run(directory, ports)

    def _run(self, directory: Path, ports: Ports) -> None:
        stack = Stack(directory / "logs", os.environ, say=self._say)
        stack.handle_signals()
        try:
            if machine.wants_embedded_server(os.environ):
                embedded.prepare(directory)
                stack.start([server_program(directory)])
            elif settings.QUEUE_PROVIDER == "rabbitmq":
                if not answers_amqp(settings.RABBITMQ_URL):
                    raise StackError(
                        "No RabbitMQ lets us in at the address in RABBITMQ_URL. Start it, correct "
                        "the address, or unset QUEUE_PROVIDER to use the server that comes with "
                        "the project."
                    )
            elif not answers_ping(settings.REDIS_URL):
                raise StackError(
                    "No Redis answers at the address in REDIS_URL or REDIS_HOST. Start it, or "
                    "unset both to use the one that comes with the project."
                )
            for preparation in preparations():
                self._say(f"{preparation.name} …")
                stack.run_once(preparation)
            self._say("starting …")
            stack.start(programs(ports))
            self._welcome(directory, ports)
            stack.watch()
        except Stopped:
            pass
        except (StackError, OSError) as error:
            raise CommandError(f"The site cannot start. {error}") from error
        finally:
            self._say("stopping …")
            stack.stop()
        self._say("stopped.")

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()

    def _welcome(self, directory: Path, ports: Ports) -> None:
        self._say(
            f"""
The site is ready.
  shop      http://{HOST}:{ports.web}/         log in as shop or corner
  admin     http://{HOST}:{ports.web}/admin/   log in as admin, anna, ben or viewer
  inbox     {settings.SANDBOX_URL}/         what the sandbox providers were sent
  more life `manage.py simulate` in this directory, with the same DATA_DIR
  password  demo-queueadmin, for all of them
  logs      {directory / "logs"}
Ctrl-C ends it; `make run` starts it again with the same data."""
        )
