"""Databases that a test has to itself."""

import re
from collections.abc import Callable
from typing import LiteralString
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

_PREFIX = "aetheris_test_"

MakeDatabase = Callable[[LiteralString], str]
"""From an encoding to the DSN of a new database that has it."""


def create_database(server_dsn: str, name: str, template: str = "template1") -> str:
    """Make a database on a server, as a copy of `template`, and return its DSN.

    Nothing may be connected to the template.
    """
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
    return database_dsn(server_dsn, name)


def create_encoded_database(server_dsn: str, name: str, encoding: LiteralString) -> str:
    """Make an empty database with an encoding, and return its DSN."""
    statement = sql.SQL(
        "CREATE DATABASE {} ENCODING {} LOCALE 'C' LOCALE_PROVIDER libc TEMPLATE template0"
    ).format(sql.Identifier(name), sql.Literal(encoding))
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(statement)
    return database_dsn(server_dsn, name)


def drop_database(server_dsn: str, name: str) -> None:
    """Drop a database, and whatever is connected to it with it."""
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        )


def drop_leftovers(server_dsn: str) -> None:
    """Drop the databases of an earlier session that was killed. For a server that is ours alone."""
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        names = connection.execute(
            "SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [_PREFIX]
        ).fetchall()
    for (name,) in names:
        drop_database(server_dsn, name)


def database_name(session: str, test: str) -> str:
    """A name for the database of a test, no other's: at most 63 bytes, Postgres' limit."""
    return f"{_PREFIX}{session}_{re.sub(r'[^a-z0-9]+', '_', test.lower())}"[:63]


def database_dsn(server_dsn: str, name: str) -> str:
    """The DSN of another database on the same server."""
    return urlunsplit(urlsplit(server_dsn)._replace(path=f"/{name}"))
