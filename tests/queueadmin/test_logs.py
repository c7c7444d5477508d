"""Lines that are written together."""

import io
import logging
import os
import select

import dramatiq
import pytest

from queueadmin import logs


class Pieces(io.StringIO):
    """A stream that knows what was written to it at once."""

    def __init__(self):
        super().__init__()
        self.pieces = []

    def write(self, text):
        self.pieces.append(text)
        return super().write(text)


@pytest.fixture
def logger():
    logger = logging.Logger("test", logging.INFO)
    logger.propagate = False
    return logger


def test_lines_of_a_batch_are_one_write_and_others_are_written_at_once(logger):
    stream = Pieces()
    logger.addHandler(logs.BatchHandler(stream))

    logger.info("alone")
    with logs.together():
        for number in range(20):
            logger.info("line %d", number)
        assert stream.getvalue() == "alone\n"
    logger.info("last")

    lines = ["alone", *(f"line {number}" for number in range(20)), "last"]
    assert stream.getvalue().splitlines() == lines
    assert [piece.count("\n") for piece in stream.pieces] == [1, 20, 1]


def test_what_goes_into_a_pipe_stays_whole_between_the_lines_of_other_processes(logger):
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0), open(writer, "w") as pipe:
        stream = Pieces()
        stream.fileno = pipe.fileno
        logger.addHandler(logs.BatchHandler(stream))

        with logs.together():
            for number in range(200):
                logger.info("%d %s", number, "x" * 100)

    assert stream.getvalue().count("\n") == 200
    assert all(len(piece) <= select.PIPE_BUF for piece in stream.pieces)
    assert all(piece.endswith("\n") for piece in stream.pieces)


def test_a_line_is_written_although_the_batch_failed(logger):
    stream = io.StringIO()
    logger.addHandler(logs.BatchHandler(stream))

    with pytest.raises(RuntimeError), logs.together():
        logger.info("before")
        raise RuntimeError

    assert stream.getvalue() == "before\n"


@pytest.mark.django_db(transaction=True)
def test_a_worker_logs_a_jobs_end_before_the_ledger_shows_it(broker, start_worker, caplog):
    caplog.set_level(logging.INFO, logger="queueadmin.jobs")

    @dramatiq.actor(queue_name="q", broker=broker)
    def work(): ...

    message = work.send()
    start_worker()
    message.get_result(block=True)

    ends = [record for record in caplog.records if getattr(record, "event", "") == "completed"]
    assert [record.job for record in ends] == [message.message_id]


@pytest.mark.django_db(transaction=True)
def test_a_filter_that_fails_stops_no_outcome(broker, start_worker):
    def fail(record):
        raise ValueError("a filter of the project's own")

    @dramatiq.actor(queue_name="q", broker=broker)
    def work(): ...

    jobs = logging.getLogger("queueadmin.jobs")
    jobs.addFilter(fail)
    try:
        messages = [work.send() for _ in range(3)]
        start_worker()

        assert [message.get_result(block=True) for message in messages] == [None] * 3
    finally:
        jobs.removeFilter(fail)
