"""Clients for the addresses of Redis and Valkey, Sentinel's among them."""

from typing import Any
from urllib.parse import unquote, urlsplit

import redis

from ..exceptions import ConfigurationError


# Any: the stubs know the client's answers only as unions of all of them.
def client_of(url: str, **options: Any) -> Any:
    """Return a client for an address.

    Args:
        url: redis://, rediss:// or unix://; or, where Sentinels know which server is the
            master, redis+sentinel://user:password@host:26379,host2:26379/service/0, the
            password being that of the servers; rediss+sentinel:// for TLS to all of them.
        **options: of `redis.Redis`.

    Raises:
        ConfigurationError: the address names no Sentinel, or not which service.
    """
    parts = urlsplit(url)
    if not parts.scheme.endswith("+sentinel"):
        return redis.Redis.from_url(url, **options)
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    service, _, number = parts.path.strip("/").partition("/")
    if not hosts or not service or not (number or "0").isdecimal():
        raise ConfigurationError(
            "REDIS_URL has no host or no service; with Sentinel it must be "
            "redis+sentinel://host:26379,host2:26379/service/0."
        )
    addresses = []
    for host in hosts.split(","):
        name, _, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
        addresses.append((name.strip("[]") or port, int(port) if name and port else 26379))
    kept = ("socket_connect_timeout", "socket_timeout", "retry")
    own: dict[str, Any] = {key: options[key] for key in kept if key in options}
    # A subscription waits as long as it likes, a Sentinel's answer not.
    own["socket_timeout"] = own.get("socket_timeout") or 2.0
    if parts.scheme == "rediss+sentinel":
        own["ssl"] = options["ssl"] = True
    if login:
        options |= {"username": unquote(user) or None, "password": unquote(password) or None}
    sentinel: Any = redis.Sentinel(addresses, sentinel_kwargs=own)  # type: ignore[no-untyped-call]
    return sentinel.master_for(service, db=int(number or 0), **options)
