"""`python -m aetheris_server`: the same as `aetheris-server`."""

from aetheris_server.cli import main

main()
