"""Connections to this machine bypass the environment's proxies."""

import os

_HERE = ("127.0.0.1", "localhost", "::1")


def direct() -> None:
    """Exempt this machine from the environment's proxies, for this process and those that it starts."""
    said = os.environ.get("no_proxy", os.environ.get("NO_PROXY", ""))
    names = [name for each in said.split(",") if (name := each.strip())]
    os.environ["no_proxy"] = ",".join(dict.fromkeys([*names, *_HERE]))
