"""The `rlaif` command, also as `python -m rlaif_framework`."""

from rlaif_framework.cli.interrupts import handle_interrupts


def main() -> None:
    """Run the command line."""
    handle_interrupts()
    from rlaif_framework.cli.main import main as run  # slow, and can be interrupted from here on

    run()


if __name__ == "__main__":
    main()
