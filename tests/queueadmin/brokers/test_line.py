"""Addresses of AMQP servers, and connections that cannot be made."""

import socket
import ssl
import threading
import time

import pytest

from queueadmin.brokers.line import Line, options_of
from queueadmin.brokers.transport import BrokerUnavailable
from queueadmin.exceptions import ConfigurationError


def test_an_address_has_everything_in_it():
    found = options_of("amqp://anna:p%40ss@mq.example.com:5673/orders%2Flive")

    assert found == {
        "host": "mq.example.com:5673",
        "userid": "anna",
        "password": "p@ss",
        "virtual_host": "orders/live",
    }


@pytest.mark.parametrize("url", ["amqp://mq.example.com", "amqp://mq.example.com/"])
def test_what_an_address_leaves_out_is_as_rabbitmq_is_installed(url):
    assert options_of(url) == {
        "host": "mq.example.com:5672",
        "userid": "guest",
        "password": "guest",
        "virtual_host": "/",
    }


def test_an_address_of_version_6_keeps_its_brackets():
    assert options_of("amqp://[::1]/x")["host"] == "[::1]:5672"


def test_tls_checks_the_server_by_its_name():
    found = options_of("amqps://mq.example.com/x?cacertfile=/etc/ca.pem&connection_timeout=1500")

    assert found["host"] == "mq.example.com:5671"
    assert found["connect_timeout"] == 1.5
    assert found["ssl"]["cert_reqs"] == ssl.CERT_REQUIRED
    assert found["ssl"]["server_hostname"] == "mq.example.com"
    assert found["ssl"]["ca_certs"] == "/etc/ca.pem"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis://localhost/0", r"begins with 'redis'.*amqp://"),
        ("", r"begins with ''"),
        ("amqp://h:99999/", "wrong port"),
        ("amqp://h/?heartbeet=3", r"unknown option heartbeet; known: cacertfile"),
        ("amqp://h/?connection_timeout=soon", "must be milliseconds"),
    ],
)
def test_a_wrong_address_is_refused_with_what_would_be_right(url, problem):
    with pytest.raises(ConfigurationError, match=problem):
        options_of(url)


def test_no_password_is_quoted():
    with pytest.raises(ConfigurationError) as raised:
        options_of("amqp://anna:secret@h:99999/")

    assert "secret" not in str(raised.value)


def test_a_server_that_is_away_is_not_asked_by_everybody():
    line = Line(options_of("amqp://127.0.0.1:1/"), timeout=0.5, prepare=lambda channel: None)
    begun = time.monotonic()

    for _ in range(50):
        with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1"), line.use():
            pytest.fail("there is nobody")

    assert time.monotonic() - begun < 5


# --- TLS --------------------------------------------------------------------------------
@pytest.fixture
def tls_server(certificate):
    """The port of a server with TLS, and what a client said to it first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    said = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            line, _ = listener.accept()
            try:
                with context.wrap_socket(line, server_side=True) as secure:
                    said.append(secure.recv(8))
            except OSError:
                line.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], said
        thread.join(10)


def test_a_server_with_a_trusted_certificate_is_spoken_to(tls_server, certificate):
    port, said = tls_server
    options = options_of(f"amqps://127.0.0.1:{port}/?cacertfile={certificate}")

    # It says good-bye to what it hears, which is enough.
    with (
        pytest.raises(BrokerUnavailable),
        Line(options, timeout=5, prepare=lambda channel: None).use(),
    ):
        pytest.fail("that was no RabbitMQ")

    assert said == [b"AMQP\x00\x00\x09\x01"]


def test_a_server_with_an_unknown_certificate_is_told_nothing(tls_server):
    port, said = tls_server

    with (
        pytest.raises(BrokerUnavailable, match="CERTIFICATE_VERIFY_FAILED"),
        Line(
            options_of(f"amqps://127.0.0.1:{port}/"), timeout=5, prepare=lambda channel: None
        ).use(),
    ):
        pytest.fail("nobody vouches for it")

    assert said == []
