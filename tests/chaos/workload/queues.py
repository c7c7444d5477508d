"""The queues of the workload."""

QUEUES = ("free", "limited")
