"""The supervisor reads what the threads of a process run."""

import threading

from queueadmin.scoreboard import Scoreboard


def test_another_mapping_of_the_file_sees_what_a_thread_runs_and_when_it_must_end(tmp_path):
    worker = Scoreboard.create(tmp_path / "board", threads=2)
    supervisor = Scoreboard.open(tmp_path / "board")
    assert supervisor.last_sign() == (0.0, "")

    worker.sign("host:1:abc")
    worker.enter("job-ü", 7)
    worker.limit(1234.5)

    (running,) = supervisor.running()
    assert (running.job, running.dispatch, running.hard_deadline) == ("job-ü", 7, 1234.5)
    assert supervisor.last_sign()[1] == "host:1:abc"
    worker.leave()
    assert supervisor.running() == []


def test_each_thread_has_its_own_place_and_one_too_many_is_left_out(tmp_path):
    board = Scoreboard.in_memory(threads=2)
    entered = threading.Barrier(4)
    leave = threading.Event()

    def run(name: str) -> None:
        board.enter(name, 1)
        entered.wait(10)
        leave.wait(10)
        board.leave()

    threads = [threading.Thread(target=run, args=(f"job{number}",)) for number in range(3)]
    for thread in threads:
        thread.start()
    entered.wait(10)

    assert len({running.job for running in board.running()}) == 2
    leave.set()
    for thread in threads:
        thread.join()
    assert board.running() == []


def test_a_job_without_a_limit_is_never_overdue():
    board = Scoreboard.in_memory(threads=1)

    board.enter("job", 1)

    assert board.running()[0].hard_deadline == float("inf")
