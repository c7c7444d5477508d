import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.stack import Program, Stack, StackError, Stopped
from tests.config.processes import wait_until, with_environment

STAND_IN = Path(__file__).with_name("stand_in.py")
SLEEP = "import time; time.sleep(600)"
#: A program whose child and itself do not care for SIGTERM.
STUBBORN_FAMILY = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"])
time.sleep(600)
"""


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


@pytest.fixture
def mark() -> str:
    """A value that only the processes of this test have in their environment."""
    return uuid.uuid4().hex


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def stack(tmp_path, mark, said) -> Iterator[Stack]:
    stack = Stack(tmp_path, {**os.environ, "STAND_IN": mark}, say=said.append)
    yield stack
    stack.stop()
    wait_until(lambda: with_environment("STAND_IN", mark) == [])


@pytest.fixture
def supervisor(tmp_path, mark):
    """Start a process that supervises one program."""
    started = []

    def start(code: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(STAND_IN), str(tmp_path), mark, code]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_program_that_ends_before_it_is_ready_is_named_with_its_last_lines(stack):
    program = Program(
        name="web", command=python("import sys; print('no such table'); sys.exit(3)"), settle=30
    )

    with pytest.raises(StackError, match=r"web ended with exit code 3.\n.*\n  no such table"):
        stack.start([program])


def test_a_program_that_cannot_be_started_is_named_with_the_reason(stack):
    program = Program(name="web", command=("/no/such/program",), settle=30)

    with pytest.raises(StackError, match="/no/such/program cannot be started: No such file"):
        stack.start([program])


def test_a_program_that_never_answers_is_given_up(stack):
    program = Program(name="web", command=python(SLEEP), ready=lambda: False)

    with pytest.raises(StackError, match="web did not answer within 1 s"):
        stack.start([program], timeout=1)


def test_the_lines_of_an_earlier_start_are_not_shown_as_the_last_ones(stack, tmp_path):
    (tmp_path / "web.log").write_text("--- started yesterday\nold trouble\n")
    program = Program(name="web", command=python("raise SystemExit('new trouble')"), settle=30)

    with pytest.raises(StackError) as caught:
        stack.start([program])

    assert "new trouble" in str(caught.value)
    assert "old trouble" not in str(caught.value)


def test_a_large_log_is_put_aside_at_the_next_start(stack, tmp_path, monkeypatch):
    monkeypatch.setattr("config.stack.MAX_LOG_BYTES", 10)
    (tmp_path / "web.log").write_text("long ago, in many words")

    stack.run_once(Program(name="web", command=python("print('now')")))

    assert (tmp_path / "web.log.1").read_text() == "long ago, in many words"
    assert "now" in (tmp_path / "web.log").read_text()


def test_a_preparation_that_fails_ends_the_start(stack):
    with pytest.raises(StackError, match="migrate ended with exit code 1"):
        stack.run_once(Program(name="migrate", command=python("raise SystemExit(1)")))


def test_a_request_to_stop_ends_a_preparation_that_is_running(stack, mark):
    stack.request_stop()

    with pytest.raises(Stopped):
        stack.run_once(Program(name="migrate", command=python(SLEEP)))

    assert with_environment("STAND_IN", mark) == []


def test_a_crashed_program_is_started_again(stack, said, tmp_path):
    runs = tmp_path / "runs"
    code = f"open({str(runs)!r}, 'a').write('x'); raise SystemExit(4)"
    stack.start([Program(name="web", command=python(code))])

    def look_for_second_run(line):
        said.append(line)
        if runs.read_text() == "xx":
            stack.request_stop()

    stack._say = look_for_second_run
    stack.watch()

    assert said[0].startswith("web ended with exit code 4.")
    assert said[0].endswith("It is started again in 1 s.")
    assert said[1].endswith("It is started again in 2 s.")


def test_programs_end_in_the_reverse_order_of_their_start(stack, tmp_path):
    order = tmp_path / "order"

    def program(name):
        code = (
            "import signal, sys, time\n"
            f"def end(*_): open({str(order)!r}, 'a').write({name!r}); sys.exit()\n"
            "signal.signal(signal.SIGTERM, end)\n"
            f"open({str(tmp_path / name)!r}, 'w')\n"
            "time.sleep(600)"
        )
        return Program(name=name, command=python(code), ready=(tmp_path / name).exists)

    stack.start([program("a"), program("b"), program("c")])

    stack.stop()

    assert order.read_text() == "cba"


def test_a_program_that_ignores_sigterm_is_killed_with_its_children(stack, mark):
    program = Program(name="web", command=python(STUBBORN_FAMILY), grace=0.5)
    stack.start([program])
    wait_until(lambda: len(with_environment("STAND_IN", mark)) == 3)  # with the guard

    stack.stop()

    # What is killed with its family ends when the system comes to it.
    wait_until(lambda: with_environment("STAND_IN", mark) == [])


def test_children_that_a_program_leaves_behind_are_killed(stack, mark):
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}])"

    stack.run_once(Program(name="seed", command=python(code)))

    wait_until(lambda: with_environment("STAND_IN", mark) == [])


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_supervisor_and_program(supervisor, mark, signum):
    process = supervisor(SLEEP)

    process.send_signal(signum)

    assert process.wait(timeout=20) == 0
    wait_until(lambda: with_environment("STAND_IN", mark) == [])


def test_no_process_is_left_when_the_supervisor_is_killed(supervisor, mark):
    process = supervisor(STUBBORN_FAMILY)
    wait_until(lambda: len(with_environment("STAND_IN", mark)) == 3)

    process.kill()

    wait_until(lambda: with_environment("STAND_IN", mark) == [], seconds=10)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that way")
def test_a_program_ends_when_its_guard_is_killed(supervisor, mark):
    supervisor(SLEEP)
    wait_until(lambda: len(with_environment("STAND_IN", mark)) == 2)
    guard = next(
        found for found in with_environment("STAND_IN", mark) if "guard.py" in str(found.cmdline())
    )
    [program] = guard.children()

    guard.kill()

    wait_until(lambda: not program.is_running())
