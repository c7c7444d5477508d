"""The fault suite: real servers, real processes, faults at random, and a verdict.

`python -m tests.chaos --seed 7 --minutes 2` runs it; see `docs/reliability.md`.
"""
