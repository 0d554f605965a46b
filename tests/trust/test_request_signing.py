"""What a signed request binds, and that nothing else is taken for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fa_core.trust.enrolment import Authority
from fa_core.trust.request_signing import Credentials, Request, authorization, digest_of

AUDIENCE, TARGET = "gateway.example:8443", "/v1/letters?wait=20"
AUTHORITY = Authority.generate()
DEVICE = AUTHORITY.enrol("a fleet")
ASKED = Request("GET", TARGET, digest_of(b"body"))
HEADER = authorization(DEVICE, AUDIENCE, ASKED, 17)


def test_a_device_that_was_admitted_holds() -> None:
    said = Credentials.read(HEADER)
    assert (said.device, said.timestamp, said.digest) == (DEVICE.device, 17, digest_of(b"body"))
    assert said.hold(AUTHORITY.public_key, AUDIENCE, "GET", TARGET)


@pytest.mark.parametrize(
    "audience, method, target",
    [
        ("other.example:8443", "GET", TARGET),
        (AUDIENCE, "PUT", TARGET),
        (AUDIENCE, "GET", "/v1/letters?wait=21"),
        (AUDIENCE + "G", "ET", TARGET),  # lengths keep the fields apart
    ],
)
def test_a_request_is_for_one_gateway_one_method_and_one_target(
    audience: str, method: str, target: str
) -> None:
    assert not Credentials.read(HEADER).hold(AUTHORITY.public_key, audience, method, target)


@pytest.mark.parametrize("field", range(1, 6))
def test_every_field_counts(field: int) -> None:
    parts = HEADER.split(" ")
    parts[field] = "18" if field == 3 else ("00" if parts[field][:2] != "00" else "01") + parts[field][2:]
    assert not Credentials.read(" ".join(parts)).hold(AUTHORITY.public_key, AUDIENCE, "GET", TARGET)


def test_another_authority_admits_nobody_here() -> None:
    other = Authority.generate().enrol("a fleet")
    header = authorization(other, AUDIENCE, ASKED, 17)
    assert not Credentials.read(header).hold(AUTHORITY.public_key, AUDIENCE, "GET", TARGET)


def test_a_certificate_of_another_device_is_none() -> None:
    parts = HEADER.split(" ")
    parts[2] = AUTHORITY.enrol("a fleet").certificate.hex()
    assert not Credentials.read(" ".join(parts)).hold(AUTHORITY.public_key, AUDIENCE, "GET", TARGET)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer secret",
        HEADER.replace("Unheard", "unheard"),
        HEADER[:-2],
        HEADER + " more",
        HEADER.replace(" 17 ", " -17 "),
        HEADER.replace(" 17 ", " 1_7 "),
        HEADER.replace(" 17 ", f" {10**18} "),
        HEADER.replace(" 17 ", " ١٧ "),
    ],
)
def test_anything_else_is_no_credentials(header: str) -> None:
    with pytest.raises(ValueError):
        Credentials.read(header)


@given(st.text(max_size=300))
def test_no_header_breaks_the_reader(text: str) -> None:
    with pytest.raises(ValueError):
        Credentials.read(text)
