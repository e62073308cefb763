"""The kinds of aggregates that there are. A new one is a folder beside `runs`, and a line here."""

from aetheris_server.history.aggregates.kinds import Kinds
from aetheris_server.history.runs.kind import RUN

KINDS = Kinds((RUN,))
"""Those of this program."""
