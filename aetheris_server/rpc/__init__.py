"""How the parts talk: the gRPC server, the error table, and peers: a local call or a stub."""
