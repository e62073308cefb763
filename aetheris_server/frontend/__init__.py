"""The public gRPC services: check a request, find its namespace, pass it on. Holds no state."""
