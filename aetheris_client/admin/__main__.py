"""`aetheris-admin`, also as `python -m aetheris_client.admin`."""

import sys


def main() -> None:
    """Run the command; where the `admin` extra is missing, say so in a line."""
    try:
        from aetheris_client.admin.cli import main as run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("aetheris"):
            raise
        print(
            f"aetheris-admin needs {error.name}, which is not installed;"
            " install it with: pip install 'aetheris-workflow[admin]'",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        # The imports take a moment in which nobody else takes Ctrl-C.
        raise SystemExit(130) from None
    run()


if __name__ == "__main__":
    main()
