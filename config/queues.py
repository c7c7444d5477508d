"""The fifteen queues of the ordering business, that of alerts, and how each behaves."""

from queueadmin.policies import Policy, Weight, exponential, fixed, per_minute, per_second

QUEUES: dict[str, Policy] = {
    "order-processing": Policy(
        concurrency=5,
        time_limit=120,
        attempts=3,
        backoff=exponential(5),
        rate=per_minute(100),
        weight=Weight.HIGH,
    ),
    "order-routing": Policy(
        concurrency=3, time_limit=60, attempts=3, backoff=exponential(5), weight=Weight.HIGH
    ),
    "vendor-fallback": Policy(
        concurrency=2,
        time_limit=60,
        attempts=3,
        backoff=exponential(3),
        rate=per_minute(20),
        weight=Weight.HIGH,
    ),
    "order-expiry": Policy(
        concurrency=3, time_limit=60, attempts=2, backoff=fixed(5), rate=per_minute(50)
    ),
    "whatsapp-messages": Policy(
        concurrency=10,
        time_limit=30,
        attempts=5,
        backoff=exponential(5),
        rate=per_second(50),
        weight=Weight.MEDIUM_HIGH,
    ),
    "email-notifications": Policy(
        concurrency=5, time_limit=30, attempts=3, backoff=exponential(2), rate=per_second(10)
    ),
    "sms-notifications": Policy(
        concurrency=5, time_limit=30, attempts=3, backoff=exponential(2), rate=per_second(10)
    ),
    "payment-reminders": Policy(concurrency=5, time_limit=30, attempts=3, backoff=exponential(5)),
    "booking-reminders": Policy(concurrency=5, time_limit=30, attempts=3, backoff=exponential(5)),
    "credit-score-calculation": Policy(
        concurrency=3,
        time_limit=90,
        attempts=3,
        backoff=exponential(5),
        weight=Weight.MEDIUM_HIGH,
    ),
    "credit-reconciliation": Policy(
        concurrency=2, time_limit=120, attempts=3, backoff=exponential(5), rate=per_minute(30)
    ),
    "image-processing": Policy(concurrency=2, time_limit=300, attempts=3, backoff=exponential(5)),
    "report-generation": Policy(
        concurrency=1, time_limit=600, attempts=3, backoff=exponential(5), weight=Weight.LOW
    ),
    "daily-reports": Policy(
        concurrency=1,
        time_limit=600,
        attempts=2,
        backoff=fixed(10),
        rate=per_minute(10),
        weight=Weight.LOW,
    ),
    "data-cleanup": Policy(
        concurrency=1, time_limit=600, attempts=3, backoff=exponential(5), weight=Weight.LOW
    ),
    # Messages about the others.
    "alerts": Policy(concurrency=5, time_limit=60, attempts=10, weight=Weight.HIGH),
}
