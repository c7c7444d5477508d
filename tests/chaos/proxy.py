"""A TCP proxy whose faults are those of networks: cut, slow, silent, replies lost."""

import asyncio
import contextlib
import threading
from enum import StrEnum


class Mode(StrEnum):
    OPEN = "open"
    #: Open connections are closed, new ones are closed at once.
    CUT = "cut"
    #: Every piece is late.
    SLOW = "slow"
    #: Connections stay open and nothing passes.
    SILENT = "silent"
    #: The next reply is lost: the request arrives, then the connection is closed.
    LOSE_REPLIES = "lose replies"


class Proxy:
    """Listens on a port of the loopback interface and passes on to another one."""

    def __init__(self, port: int, target: int) -> None:
        self.port, self.target = port, target
        self.mode = Mode.OPEN
        #: Bytes passed to and from the server: a proxy that passes nothing proves nothing.
        self.passed = [0, 0]
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()
        if not self._is_up.wait(10):
            raise RuntimeError(f"the proxy on port {self.port} did not start")

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def become(self, mode: Mode) -> None:
        self.mode = mode
        if mode is Mode.CUT:
            self._loop.call_soon_threadsafe(self._close_all)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._close_all)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._connected, "127.0.0.1", self.port)
        )
        self._is_up.set()
        try:
            self._loop.run_forever()
        finally:
            server.close()

    def _close_all(self) -> None:
        for writer in list(self._writers):
            writer.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode is Mode.CUT:
            writer.close()
            return
        try:
            their_reader, their_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        pair = {writer, their_writer}
        self._writers |= pair
        try:
            await asyncio.gather(
                self._pump(reader, their_writer, 0, pair),
                self._pump(their_reader, writer, 1, pair),
            )
        finally:
            self._writers -= pair
            for each in pair:
                each.close()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        direction: int,
        pair: set[asyncio.StreamWriter],
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self.mode is Mode.SLOW:
                    await asyncio.sleep(0.05)
                while self.mode is Mode.SILENT:
                    await asyncio.sleep(0.05)
                if direction == 1 and self.mode is Mode.LOSE_REPLIES:
                    break
                writer.write(data)
                await writer.drain()
                self.passed[direction] += len(data)
        for each in pair:
            each.close()
