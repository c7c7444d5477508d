"""Every queue of the business has work of its own."""

from importlib import import_module

import dramatiq

from config.queues import QUEUES

APPS = ("orders", "notifications", "queueadmin")


def test_every_queue_has_an_actor_and_every_actor_a_queue_with_a_policy() -> None:
    for app in APPS:
        import_module(f"{app}.actors")
    broker = dramatiq.get_broker()
    actors = [broker.get_actor(name) for name in broker.get_declared_actors()]
    ours = [actor for actor in actors if actor.fn.__module__.split(".")[0] in APPS]

    assert {actor.queue_name for actor in ours} == set(QUEUES)
