import contextlib
import random
import re
import socket
from collections.abc import Iterator

import pytest

from config import embedded, machine


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        while True:
            # Not one that the system hands out: its neighbours, which are looked at too, may
            # belong to any connection of another test.
            port = random.randint(20_000, 30_000)
            with contextlib.suppress(OSError):
                listener.bind((machine.HOST, port))
                break
        listener.listen()
        yield port


@pytest.mark.parametrize("value", ["", "web", "-1", "0", "65536", "65530", "80.5", "٨٠"])
def test_a_port_that_is_none_is_refused(value):
    with pytest.raises(machine.MachineError, match="PORT is a number from 1 to 65510"):
        machine.read_ports(value)


def test_the_sandbox_ports_follow_from_the_sites():
    ports = machine.read_ports("8000")

    assert (ports.web, ports.sandbox, ports.smtp) == (8000, 8020, 8025)


@pytest.mark.parametrize("offset", [0, machine.SANDBOX_OFFSET, machine.SMTP_OFFSET])
def test_a_taken_port_is_named_with_the_command_that_helps(taken_port, offset):
    with pytest.raises(
        machine.MachineError, match=rf"Port {taken_port}, .* is taken .*make run PORT=\d+"
    ):
        machine.require_free(machine.Ports(taken_port - offset))


def test_the_machine_is_prepared_once_and_keeps_its_secret(tmp_path):
    environment = {"DATA_DIR": str(tmp_path / "data")}
    machine.prepare(environment)
    secret = (tmp_path / "data" / "secret_key").read_text()

    machine.prepare(environment)

    assert len(secret) >= 50
    assert (tmp_path / "data" / "secret_key").read_text() == secret


def test_only_the_user_can_read_the_secret(tmp_path):
    machine.prepare({"DATA_DIR": str(tmp_path)})

    assert (tmp_path / "secret_key").stat().st_mode & 0o777 == 0o600


def test_an_empty_secret_file_is_replaced(tmp_path):
    (tmp_path / "secret_key").write_text("\n")

    machine.prepare({"DATA_DIR": str(tmp_path)})

    assert (tmp_path / "secret_key").read_text().strip()


def test_the_programs_are_told_where_the_sandbox_is(tmp_path):
    environment = {"DATA_DIR": str(tmp_path), "PORT": "8100"}

    machine.prepare(environment)

    assert environment["SANDBOX_URL"] == "http://127.0.0.1:8120"
    assert environment["SANDBOX_SMTP_PORT"] == "8125"
    assert (environment["DEBUG"], environment["HTTPS"]) == ("0", "0")


def test_a_command_in_another_terminal_finds_the_site_of_its_data_directory(tmp_path):
    assert machine.last_port(tmp_path) == machine.DEFAULT_PORT

    machine.remember(machine.Ports(8100), tmp_path)

    assert machine.last_port(tmp_path) == 8100


@pytest.mark.parametrize("text", ["", "eighty", "70000", "8100 8101", "\xff"])
def test_a_note_of_the_port_that_is_none_is_the_default(tmp_path, text):
    (tmp_path / "port").write_text(text, encoding="latin-1")

    assert machine.last_port(tmp_path) == machine.DEFAULT_PORT


def test_values_that_are_given_stay(tmp_path):
    given = {"DATA_DIR": str(tmp_path), "LOG_LEVEL": "DEBUG", "REDIS_URL": "redis://cache/1"}
    environment = dict(given)

    machine.prepare(environment)

    assert given.items() <= environment.items()


def test_a_directory_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    directory = tmp_path / "file" / "data"

    with pytest.raises(SystemExit, match=rf"{re.escape(str(directory))} cannot be written to"):
        machine.prepare({"DATA_DIR": str(directory)})


def test_a_read_only_directory_is_named(tmp_path, monkeypatch):
    def refuse(self, data):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("pathlib.Path.write_bytes", refuse)

    with pytest.raises(SystemExit, match="cannot be written to: Read-only file system"):
        machine.prepare({"DATA_DIR": str(tmp_path)})


def test_a_missing_server_binary_is_said_before_anything_starts(tmp_path, monkeypatch):
    def nothing():
        raise embedded.ServerMissing("No Valkey or Redis server was found")

    monkeypatch.setattr(embedded, "find_executable", nothing)

    with pytest.raises(SystemExit, match="No Valkey or Redis server was found"):
        machine.prepare({"DATA_DIR": str(tmp_path)})


def test_a_missing_server_binary_does_not_matter_with_a_server_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "find_executable", lambda: 1 / 0)

    machine.prepare({"DATA_DIR": str(tmp_path), "REDIS_HOST": "cache"})


def test_windows_is_refused_with_the_way_that_works(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.platform", "win32")

    with pytest.raises(SystemExit, match=r"needs Linux or macOS\. On Windows use WSL"):
        machine.prepare({"DATA_DIR": str(tmp_path)})
