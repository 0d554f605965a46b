"""What runs on this machine is never reached through a proxy, whatever the environment says of proxies."""

import os

_HERE = ("127.0.0.1", "localhost", "::1")


def direct() -> None:
    """Except this machine from the environment's proxies, for this process and those that it starts."""
    said = os.environ.get("no_proxy", os.environ.get("NO_PROXY", ""))
    names = [name for each in said.split(",") if (name := each.strip())]
    os.environ["no_proxy"] = ",".join(dict.fromkeys([*names, *_HERE]))
