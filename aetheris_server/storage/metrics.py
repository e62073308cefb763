"""What storage counts."""

from aetheris_server.telemetry import counter

STATEMENTS = counter("sql_statements", "Statements sent to Postgres by reads and commits.")
