"""Keys that are made of the cluster's secrets: one for each purpose, so that none can stand in for
another.
"""

import hmac
from collections.abc import Mapping
from hashlib import sha256

__all__ = ["MAC_BYTES", "ClusterSecrets", "Mac", "derive_key"]

ClusterSecrets = Mapping[int, bytes]
"""The secrets of a cluster by key id, 1 to 255; the one with the greatest id is in use, the others
are still honoured.
"""

_BLOCK_BYTES = 64
MAC_BYTES = 16


def derive_key(secret: bytes, purpose: str) -> bytes:
    """A key for one purpose only."""
    return hmac.digest(secret, purpose.encode(), "sha256")


class Mac:
    """HMAC-SHA256 under one key, cut to 16 bytes; to be compared by `hmac.compare_digest`.

    Takes less than half the time of the library's own, because the key is hashed once.

    Source:
        RFC 2104.
    """

    def __init__(self, key: bytes) -> None:
        assert len(key) <= _BLOCK_BYTES
        padded = key.ljust(_BLOCK_BYTES, b"\0")
        self._inner = sha256(bytes(byte ^ 0x36 for byte in padded))
        self._outer = sha256(bytes(byte ^ 0x5C for byte in padded))

    def of(self, data: bytes) -> bytes:
        """The code that only the holder of the key can make."""
        inner = self._inner.copy()
        inner.update(data)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()[:MAC_BYTES]
