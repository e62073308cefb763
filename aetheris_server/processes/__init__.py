"""Several hosts on one machine, each in a process of its own, behind one public port.

    supervisor ── starts, watches, starts again ──► process 1 … N: a host each
        │                                              │
     HTTP: metrics and health of all              the public port, shared; an internal port each

The supervisor serves nothing but HTTP and knows no gRPC. It runs the program that it is itself
again, with a channel in the environment (`channel`), by which that knows that it is one of
several (`aetheris_server.supervised`).
"""
