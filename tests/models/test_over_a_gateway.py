"""A device fetches a model through a gateway, and what it may not have there is not there."""

from pathlib import Path

import pytest

from clients.device.remote import Unreachable
from clients.models import head
from clients.models.believe import Model
from clients.models.kept import Models
from clients.models.sources import Gateway
from fa_core.publication import directory
from fa_core.trust.enrolment import Authority
from tests.gateway.running_gateway import gateway
from tests.models.samples import NOW, Device, Publisher, random_head

AUTHORITY = Authority.generate()


def test_a_model_comes_through_a_gateway(tmp_path: Path) -> None:
    with gateway(tmp_path / "gateway", AUTHORITY) as here:
        publisher = Publisher(here.home.published)
        digest = publisher.publish(head.encode(random_head()))
        device = Device.make(tmp_path, publisher)
        line, stranger = (here.line(each.enrol("a fleet")) for each in (AUTHORITY, Authority.generate()))
        pins = publisher.pins()
        refused = Models(tmp_path / "models", device.store, pins, device.able, Gateway(stranger))
        with pytest.raises(Unreachable):
            refused.obtain(digest, NOW)
        source = Gateway(line)
        found = Models(tmp_path / "models", device.store, pins, device.able, source).obtain(digest, NOW)
        assert isinstance(found, Model)
        assert source.read(directory.artefact_name("00" * 32), 10) is None
        assert source.read("../gateway.toml", 10_000) is None
        name = f"rollouts/{digest}.json"
        for data in (b"first", b"first", b"second"):
            directory.write(here.home.published, name, data)
            assert source.read(name, 100) == data
        for each in (line, stranger):
            each.close()
