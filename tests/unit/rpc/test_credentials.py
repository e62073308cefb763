import pytest

from aetheris_server.rpc.credentials import PeerCredentials
from tests.support.secrets import CREDENTIALS, SECRETS


def test_host_of_the_cluster_is_known_whatever_else_its_call_carries() -> None:
    metadata = [("user-agent", "x"), *CREDENTIALS.metadata, ("x-bin", b"\0")]
    assert CREDENTIALS.are_in(metadata)


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        [("aetheris-peer-bin", b"")],
        [("aetheris-peer-bin", b"x" * 32)],
        [("aetheris-peer-bin", "x" * 32)],
        [("other-bin", CREDENTIALS.metadata[0][1])],
        PeerCredentials({1: bytes(32)}).metadata,
    ],
)
def test_anybody_else_is_not(metadata: list[tuple[str, str | bytes]]) -> None:
    assert not CREDENTIALS.are_in(metadata)


def test_hosts_on_both_sides_of_a_new_secret_know_each_other() -> None:
    rotated = PeerCredentials({**SECRETS, 2: bytes(32)})
    assert rotated.are_in(CREDENTIALS.metadata)
    assert rotated.metadata != CREDENTIALS.metadata
