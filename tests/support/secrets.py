"""The secrets of a cluster that is only in tests."""

from aetheris_server.rpc.credentials import PeerCredentials
from aetheris_server.rpc.tokens import Tokens

SECRETS = {1: bytes(range(32))}
TOKENS = Tokens(SECRETS)
CREDENTIALS = PeerCredentials(SECRETS)
