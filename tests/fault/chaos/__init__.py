"""Chaos: two servers and three workers under mixed load, while everything fails; then an audit.

    workflows, worker    what runs, and the process that runs it
    load                 clients that start, signal, query, cancel and terminate, and keep a book
    cluster              the stores, servers, workers and proxies that faults are done to
    faults               what is done to them, by name
    audit                what is wrong afterwards, held against the log and the book
    runner               the order of it all

A seed fixes the load's choices and the faults'; what meets what is up to the machine, so that a
seed which has found something may have to be repeated.
"""

import os

# Read by gRPC when it is imported. Its handlers for forks break some of the children that run under
# another account, as Postgres does where this process is root.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
