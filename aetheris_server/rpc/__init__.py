"""How the parts talk: the gRPC server, the error table, and peers that are a local call or a stub."""
