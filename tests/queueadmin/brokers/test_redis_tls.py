"""rediss:// speaks TLS, and only with a server that somebody it trusts vouches for."""

import asyncio
import ssl
import threading
from urllib.parse import urlsplit

import dramatiq
import pytest

from queueadmin import ledger
from queueadmin.brokers import RedisBroker
from queueadmin.brokers.transport import BrokerUnavailable
from queueadmin.models import Job

pytestmark = pytest.mark.django_db(transaction=True)


class TLSEnd:
    """A port with TLS in front of the tests' Redis or Valkey."""

    def __init__(self, url, certificate):
        self._parts = urlsplit(url)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._pass, "127.0.0.1", 0, ssl=self._context)
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self.database = self._parts.path.strip("/") if self._parts.hostname else "0"
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    async def _pass(self, reader, writer):
        if self._parts.hostname:
            far = await asyncio.open_connection(self._parts.hostname, self._parts.port or 6379)
        else:
            far = await asyncio.open_unix_connection(self._parts.path)
        await asyncio.gather(_pump(reader, far[1]), _pump(far[0], writer))

    def close(self):
        async def end():
            self._server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            self._loop.stop()

        asyncio.run_coroutine_threadsafe(end(), self._loop)
        self._thread.join(10)
        self._loop.close()


async def _pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@pytest.fixture
def tls(redis_url, certificate):
    end = TLSEnd(redis_url, certificate)
    yield end
    end.close()


def broker_on(url):
    broker = RedisBroker(url=url, namespace="test")

    @dramatiq.actor(queue_name="q", broker=broker)
    def work(): ...

    return broker, work


def test_a_server_with_a_trusted_certificate_carries_jobs(tls, certificate):
    url = f"rediss://127.0.0.1:{tls.port}/{tls.database}?ssl_ca_certs={certificate}"
    broker, work = broker_on(url)
    try:
        message = work.send()

        (found,) = broker.transport.fetch("q", 9)
        assert found[0] == f"{message.message_id}:1"
    finally:
        broker.close()


def test_a_server_with_an_unknown_certificate_gets_no_message_and_the_job_waits(tls, broker):
    stranger, work = broker_on(f"rediss://127.0.0.1:{tls.port}/{tls.database}")
    try:
        work.send()

        with pytest.raises(BrokerUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            stranger.transport.push(ledger.parcels_of(Job.objects.all()))
        assert broker.transport.size("q") == 0
        assert Job.objects.get().state == "waiting"
    finally:
        stranger.close()
