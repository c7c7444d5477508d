"""The state machine as it is written down."""

from queueadmin.states import FINISHED, RUNNABLE, TIMED, TRANSITIONS, UNFINISHED, JobState


def test_every_state_says_what_may_follow_it():
    assert set(TRANSITIONS) == set(JobState)


def test_completed_and_cancelled_are_final():
    assert not TRANSITIONS[JobState.COMPLETED]
    assert not TRANSITIONS[JobState.CANCELLED]


def test_a_dead_job_only_comes_back_by_a_requeue():
    assert TRANSITIONS[JobState.DEAD] == {JobState.WAITING}


def test_every_state_is_finished_or_not():
    assert set(FINISHED) | set(UNFINISHED) == set(JobState)
    assert not set(FINISHED) & set(UNFINISHED)
    assert set(UNFINISHED) == set(TIMED) | set(RUNNABLE)


def test_an_unfinished_job_can_end_in_every_way_a_run_can():
    for state in RUNNABLE:
        assert {JobState.COMPLETED, JobState.DEAD, JobState.RETRYING} <= TRANSITIONS[state]
