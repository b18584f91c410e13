"""`python -m ovsam_cli` and the `ovsam` command."""

from ovsam_cli.cli.main import run


def main() -> None:
    """Run the command line."""
    run()


if __name__ == "__main__":
    main()
