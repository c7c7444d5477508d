"""The inbox as a page: plain HTML, everything that came from outside is escaped."""

from html import escape
from urllib.parse import urlencode

from .faults import EMAIL_FAULTS, PHONE_FAULTS
from .mailbox import Message

CHANNELS = {"": "All", "whatsapp": "WhatsApp", "email": "E-mail", "sms": "SMS"}
#: The page shows so many; /inbox.json has all.
SHOWN = 200


def render(messages: list[Message], channel: str, orders: list[tuple[str, str, str]]) -> str:
    """Return the page.

    Args:
        messages: newest last.
        channel: show only this one; "" for all.
        orders: faults in force as (channel, recipient, fault).
    """
    chosen = [message for message in messages if channel in ("", message.channel)]
    items = "".join(_item(message) for message in reversed(chosen[-SHOWN:]))
    body = f"<ol>{items}</ol>" if items else "<p>No message yet. Place an order in the shop.</p>"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Inbox · sandbox providers</title>
<link rel="stylesheet" href="/inbox.css">
<link rel="icon" href="data:,">
</head>
<body>
<header><h1>Inbox</h1><p>What the sandbox providers took for delivery. Nothing leaves this
machine.</p></header>
<nav aria-label="Channel">{_filters(messages, channel)}</nav>
<main>{body}</main>
<footer>{_orders(orders)}{_patterns()}</footer>
</body>
</html>
"""


def _filters(messages: list[Message], channel: str) -> str:
    links = []
    for value, label in CHANNELS.items():
        count = sum(value in ("", message.channel) for message in messages)
        address = "/?" + urlencode({"channel": value}) if value else "/"
        current = ' aria-current="page"' if value == channel else ""
        links.append(f'<a href="{address}"{current}>{label} <span>{count}</span></a>')
    return "".join(links)


def _item(message: Message) -> str:
    label = CHANNELS.get(message.channel, message.channel)
    subject = f"<h2>{escape(message.subject)}</h2>" if message.subject else ""
    return f"""<li class="{escape(message.channel)}"><p class="facts">
<strong>{escape(label)}</strong> to <b>{escape(message.recipient)}</b> by {escape(message.provider)}
<time datetime="{escape(message.at)}">{escape(message.at[:19].replace("T", " "))} UTC</time></p>
{subject}<pre>{escape(message.text)}</pre><p class="id">{escape(message.id)}</p></li>"""


def _orders(orders: list[tuple[str, str, str]]) -> str:
    if not orders:
        return ""
    items = "".join(
        f"<li>{escape(channel or 'all channels')}, {escape(recipient or 'everybody')}: "
        f"<b>{escape(fault)}</b></li>"
        for channel, recipient, fault in orders
    )
    return f"<h2>Faults in force</h2><ul>{items}</ul>"


def _patterns() -> str:
    phones = "".join(
        f"<li>number ending in <code>{ending}</code>: {fault.value}</li>"
        for ending, fault in PHONE_FAULTS.items()
    )
    emails = "".join(
        f"<li>address <code>{local}@…</code>: {fault.value}</li>"
        for local, fault in EMAIL_FAULTS.items()
    )
    example = escape('{"channel": "whatsapp", "recipient": null, "fault": "outage"}')
    return f"""<h2>Recipients in trouble</h2>
<p>Some addresses always fail in their own way, so that failures can be seen on purpose.</p>
<ul>{phones}{emails}</ul>
<p>Any other fault by <code>POST /faults</code> with <code>{example}</code>; the fault
<code>null</code> lifts it. Faults: bad_recipient, throttled, pair_throttled, outage, slow, lost_answer. Write to the business by <code>POST /write</code> with
<code>{escape('{"from": "+447700900123", "text": "balance"}')}</code>.</p>"""
