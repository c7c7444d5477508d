import os
import tempfile
from pathlib import Path

import pytest
import redis

from config import embedded


@pytest.fixture
def long_directory(tmp_path) -> Path:
    directory = tmp_path / ("deep" * 30)
    directory.mkdir()
    return directory


def test_the_packaged_server_is_found():
    assert os.access(embedded.find_executable(), os.X_OK)


def test_an_installed_server_serves_where_the_package_has_none(monkeypatch, tmp_path):
    installed = tmp_path / "redis-server"
    installed.write_text("")
    installed.chmod(0o755)
    monkeypatch.setattr(embedded, "_packaged", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert embedded.find_executable() == installed


def test_without_any_server_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(embedded.ServerMissing, match=r"riscv64.*apt install redis-server"):
        embedded.find_executable()


def test_the_socket_lies_in_the_data_directory(tmp_path):
    assert embedded.socket_path(tmp_path) == tmp_path / "valkey.sock"


def test_the_socket_of_a_long_path_lies_among_temporary_files_and_stays_there(long_directory):
    path = embedded.socket_path(long_directory)

    assert len(os.fsencode(path)) <= embedded.MAX_SOCKET_PATH
    assert path.is_relative_to(tempfile.gettempdir())
    assert path == embedded.socket_path(long_directory)


def test_directories_are_closed_to_other_users(long_directory):
    embedded.prepare(long_directory)

    home = embedded.socket_path(long_directory).parent
    assert home.stat().st_mode & 0o077 == 0
    assert (long_directory / "valkey").stat().st_mode & 0o077 == 0


def test_a_socket_directory_that_somebody_else_put_there_is_refused(long_directory, tmp_path):
    home = embedded.socket_path(long_directory).parent
    home.symlink_to(tmp_path)
    try:
        with pytest.raises(PermissionError, match="belongs to somebody else"):
            embedded.prepare(long_directory)
    finally:
        home.unlink()


def test_the_running_server_refuses_work_rather_than_forgetting_it(broker_server):
    if not broker_server.startswith("unix://"):
        pytest.skip("runs on a server of its own")
    with redis.Redis.from_url(broker_server, decode_responses=True) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("port") == {"port": "0"}
