import socket

import pytest

from aetheris_server.cluster.address import advertised_address
from aetheris_server.config import InternalSettings


async def test_advertised_address_is_what_the_settings_name_or_where_the_host_listens() -> None:
    named = InternalSettings(host="0.0.0.0", advertised_address="b.example:9")
    assert await advertised_address(named, "0.0.0.0:7234") == "b.example:9"
    assert await advertised_address(InternalSettings(), "127.0.0.1:7234") == "127.0.0.1:7234"


@pytest.mark.parametrize(
    "name,expected",
    [
        ("10.1.2.3", "10.1.2.3:7234"),
        ("fd00::7", "[fd00::7]:7234"),
        ("localhost", "localhost:7234"),
        ("no-such-name.invalid", "no-such-name.invalid:7234"),
    ],
)
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_advertised_address_of_a_host_that_listens_everywhere_is_what_its_name_stands_for(
    monkeypatch: pytest.MonkeyPatch, host: str, name: str, expected: str
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    assert await advertised_address(InternalSettings(host=host), "[::]:7234") == expected
