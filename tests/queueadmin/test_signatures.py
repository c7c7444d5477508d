"""What an actor's function takes is known before a job is enqueued."""

from __future__ import annotations

import functools
import uuid
from typing import TYPE_CHECKING, Any, Literal, NewType, NotRequired, Optional, TypedDict

import dramatiq
import pytest
from dramatiq import group, pipeline
from dramatiq.brokers.stub import StubBroker

from queueadmin import signatures
from queueadmin.exceptions import InvalidMessage
from queueadmin.models import Job
from queueadmin.testing import run_jobs

if TYPE_CHECKING:
    from nowhere import Unimportable

OrderId = NewType("OrderId", int)


class Line(TypedDict):
    sku: str
    quantity: NotRequired[int]


def actor_of(function, **options):
    broker = StubBroker()
    broker.actor_options |= {"validate", "sensitive", "pipe_ignore"}
    return dramatiq.actor(function, broker=broker, **options)


def problem_of(function, *args, options=None, **kwargs):
    """Return what is wrong with the arguments as (field, text), None where nothing is."""
    try:
        signatures.check(actor_of(function, **(options or {})), args, kwargs)
    except InvalidMessage as error:
        return error.field, str(error)
    return None


def test_an_error_names_the_field_what_is_expected_and_what_was_given():
    def confirm(order_id: int): ...

    assert problem_of(confirm, "12") == (
        "order_id",
        "confirm: order_id must be int, not '12' (str).",
    )
    assert problem_of(confirm) == ("order_id", "confirm needs order_id (int).")
    assert problem_of(confirm, 1, 2) == (
        "args",
        "confirm takes at most 1 argument by position, 2 were given.",
    )
    assert problem_of(confirm, 1, order_id=2) == (
        "order_id",
        "confirm: order_id is given by position and by name.",
    )
    assert problem_of(confirm, ordr_id=2) == (
        "ordr_id",
        "confirm has no argument 'ordr_id'; did you mean 'order_id'?",
    )


def takes_int(x: int): ...
def takes_float(x: float): ...
def takes_bool(x: bool): ...
def takes_optional(x: Optional[str]): ...  # noqa: UP045  # the old spelling is what is tested
def takes_union(x: int | list[str]): ...
def takes_implicit(x: int = None): ...  # noqa: RUF013  # the same
def takes_list(x: list[int]): ...
def takes_dict(x: dict[str, int | None]): ...
def takes_tuple(x: tuple[int, str]): ...
def takes_literal(x: Literal["a", 1]): ...
def takes_new(x: OrderId): ...
def takes_line(x: list[Line]): ...
def takes_uuid(x: uuid.UUID): ...
def takes_unknown(x: Unimportable): ...
def takes_any(x: Any): ...
def takes_partly_known(x: int | uuid.UUID): ...
def takes_odd(x: [1]): ...
def takes_plain(x): ...


@pytest.mark.parametrize(
    ("function", "good", "bad"),
    [
        (takes_int, [0, -1, 10**30], ["1", 1.0, True, None, [1], {}]),
        (takes_float, [1, 1.5], ["1", False, None]),
        (takes_bool, [True, False], [0, "true", None]),
        (takes_optional, ["", None], [0, []]),
        (takes_union, [1, [], ["a"]], ["a", [1], None]),
        (takes_implicit, [1, None], ["1"]),
        (takes_list, [[], [1, 2], (1, 2)], [[1, "2"], "12", {1: 2}]),
        (takes_dict, [{}, {"a": 1, "b": None}, {7: 1}], [{"a": "1"}, [], None]),
        (takes_tuple, [(1, "a"), [1, "a"]], [(1,), (1, 2), ("a", 1)]),
        (takes_literal, ["a", 1], ["b", True, 1.0, [], None]),
        (takes_new, [1], ["1"]),
        (takes_line, [[{"sku": "x"}, {"sku": "y", "quantity": 2}]], [[{}], [{"sku": 1}], "x"]),
        (takes_uuid, ["anything", 1, None], []),
        (takes_unknown, ["anything", 1], []),
        (takes_any, ["anything", None], []),
        (takes_partly_known, [1, "anything"], []),
        (takes_odd, [1, "anything"], []),
        (takes_plain, [1, None, object()], []),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_values_are_judged_by_the_annotation(function, good, bad):
    assert [value for value in good if problem_of(function, value)] == []
    assert [value for value in bad if not problem_of(function, value)] == []


def test_trouble_inside_a_container_is_located():
    assert problem_of(takes_line, [{"sku": "x"}, {"sku": "y", "quantity": "2"}]) == (
        "x[1].quantity",
        "takes_line: x[1].quantity must be int, not '2' (str).",
    )


def test_star_arguments_are_checked_one_by_one():
    def add(first: int, *numbers: int, note: str = "", **extra: bool): ...

    assert problem_of(add, 1, 2, 3, note="x", loud=True) is None
    assert problem_of(add, 1, 2, "3")[0] == "numbers"
    assert problem_of(add, 1, loud="yes")[0] == "loud"
    assert problem_of(add)[0] == "first"


def test_what_stands_before_a_slash_is_given_by_position_only():
    def add(first: int, /, second: int = 0): ...

    assert problem_of(add, 1, second=2) is None
    assert problem_of(add, first=1)[0] == "first"


def test_a_decorated_actor_is_judged_by_what_the_decorator_takes():
    def with_session(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function("session", *args, **kwargs)

        return wrapper

    @with_session
    def work(session: str, order_id: int): ...

    assert problem_of(work, 1) is None


def test_an_async_actor_is_judged_by_its_own_signature():
    async def work(order_id: int): ...

    assert problem_of(work, 1) is None
    assert problem_of(work, "1")[0] == "order_id"


def test_an_actor_may_refuse_to_be_checked():
    assert problem_of(takes_int, "1", 2, options={"validate": False}) is None


def takes_password(password: int): ...


@pytest.mark.parametrize(
    ("function", "options", "value"),
    [
        (takes_int, {"sensitive": ["x"]}, "hunter2"),
        (takes_password, {}, "hunter2"),
        (takes_int, {}, {"password": "hunter2"}),
        (takes_dict, {}, {"password": "hunter2"}),
    ],
)
def test_an_error_never_quotes_what_may_be_secret(function, options, value):
    field, text = problem_of(function, value, options=options)

    assert field
    assert "hunter2" not in text


def test_a_signature_is_described_for_forms():
    def work(order_id: int, note: str | None = None, *, loud=False, **rest: str): ...

    described = [
        (field.name, field.expected, field.is_required, field.default, field.variadic)
        for field in signatures.describe(actor_of(work))
    ]

    assert described == [
        ("order_id", "int", True, None, ""),
        ("note", "str | None", False, None, ""),
        ("loud", "", False, False, ""),
        ("rest", "str", False, None, "map"),
    ]


# --- Through the broker -----------------------------------------------------------------
@pytest.fixture
def ship(broker):
    @dramatiq.actor(queue_name="q", broker=broker)
    def ship(order_id: int, weight: float = 1.0):
        return f"parcel {order_id}"

    return ship


@pytest.fixture
def label(broker):
    @dramatiq.actor(queue_name="q", broker=broker)
    def label(prefix: str, parcel: str): ...

    return label


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "enqueue",
    [
        lambda ship: ship.send("12"),
        lambda ship: ship.send_with_options(args=("12",), delay=1000),
        lambda ship: ship.broker.enqueue(ship.message("12")),
        lambda ship: group([ship.message(1), ship.message("12")]).run(),
    ],
    ids=["send", "send_with_options", "enqueue", "group"],
)
def test_wrong_arguments_are_refused_by_every_way_to_enqueue(ship, enqueue):
    with pytest.raises(InvalidMessage) as caught:
        enqueue(ship)

    assert caught.value.field == "order_id"
    assert not Job.objects.filter(message__contains=b'"12"').exists()


@pytest.mark.django_db(transaction=True)
def test_of_many_jobs_with_a_wrong_argument_none_is_added_and_it_is_named(broker, ship):
    with pytest.raises(InvalidMessage, match="Message 1: ship: order_id must be int") as caught:
        broker.enqueue_many([ship.message(1), ship.message("2")])

    assert caught.value.field == "order_id"
    assert not Job.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_job_for_an_actor_of_another_process_is_not_checked(broker, ship):
    broker.enqueue(ship.message("x").copy(actor_name="elsewhere"))

    assert Job.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_pipeline_leaves_room_for_the_result_and_is_checked_to_its_end(ship, label):
    pipeline([ship.message(1), label.message("to")]).run()
    assert run_jobs() == 2

    with pytest.raises(InvalidMessage, match="Later in the pipeline: label: prefix") as caught:
        pipeline([ship.message(1), label.message(7)]).run()
    assert caught.value.field == "prefix"
    with pytest.raises(InvalidMessage, match="at most 2 arguments by position, 3"):
        pipeline([ship.message(1), label.message("to", "anna")]).run()
    ignoring = label.message_with_options(args=("to", "anna"), pipe_ignore=True)
    pipeline([ship.message(1), ignoring]).run()
    with pytest.raises(InvalidMessage, match="label needs parcel"):
        pipeline(
            [ship.message(1), label.message_with_options(args=("to",), pipe_ignore=True)]
        ).run()
    assert Job.objects.exclude(state="completed").count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_result_of_the_wrong_type_fails_the_next_job_instead_of_vanishing(broker):
    @dramatiq.actor(queue_name="q", broker=broker)
    def count() -> int:
        return 7

    @dramatiq.actor(queue_name="q", broker=broker, max_retries=0)
    def shout(text: str):
        return text.upper()

    pipeline([count.message(), shout.message()]).run()
    run_jobs()

    failed = Job.objects.get(actor="shout")
    assert (failed.state, failed.error_class) == ("dead", "AttributeError")
