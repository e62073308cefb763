"""How the hosts of a cluster know each other: a header that only they can make.

It keeps out who is no host, not who listens to the network between hosts: that must be private.
"""

import hmac
from collections.abc import Iterable

from aetheris_server.rpc.keys import ClusterSecrets, derive_key

__all__ = ["PeerCredentials"]

_HEADER = "aetheris-peer-bin"
_PURPOSE = "peer"


class PeerCredentials:
    """What this host shows to the others, and what it wants to see.

    Attributes:
        metadata: Goes along with every call to another host.
    """

    def __init__(self, secrets: ClusterSecrets) -> None:
        self._accepted = [derive_key(secret, _PURPOSE) for secret in secrets.values()]
        self.metadata = ((_HEADER, derive_key(secrets[max(secrets)], _PURPOSE)),)

    def are_in(self, metadata: Iterable[tuple[str, str | bytes]]) -> bool:
        """Whether a call that came with `metadata` is a host's of this cluster."""
        for name, value in metadata:
            if name == _HEADER and isinstance(value, bytes):
                return any(hmac.compare_digest(value, key) for key in self._accepted)
        return False
