"""Postgres and Redis without installing either: for development, demos and tests.

A data folder has one owner at a time. When the owner exits, both servers stop and Postgres keeps
its data. When it is killed, both go on, and the next owner of the folder takes them over at once.

`errors` can be imported without the `embedded` extra, the rest cannot.
"""
