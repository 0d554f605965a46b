"""Connections to this machine bypass a proxy that the environment names."""

from urllib.request import getproxies, proxy_bypass

import pytest

from fa_core.flower.loopback import direct


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_this_machine_is_reached_directly(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv(name, "kept.example, .also.example")
    assert not proxy_bypass("127.0.0.1:9091")
    direct()
    direct()
    assert getproxies()["no"] == "kept.example,.also.example,127.0.0.1,localhost,::1"
    for host in ("127.0.0.1:9091", "localhost", "kept.example", "x.also.example"):
        assert proxy_bypass(host)
    assert not proxy_bypass("other.example")
