import hmac

from hypothesis import given
from hypothesis import strategies as st

from aetheris_server.rpc.keys import Mac, derive_key


@given(st.binary(max_size=64), st.binary(max_size=300))
def test_code_is_the_hmac_of_the_standard_library(key: bytes, data: bytes) -> None:
    mac = Mac(key)
    assert mac.of(data) == hmac.digest(key, data, "sha256")[:16]


def test_keys_for_two_purposes_differ() -> None:
    assert derive_key(bytes(32), "a") != derive_key(bytes(32), "b")
