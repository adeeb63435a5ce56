"""The `rlaif` command, also as `python -m rlaif_framework`."""

try:
    from rlaif_framework.cli.interrupts import handle_interrupts
except KeyboardInterrupt:  # the handler is not there yet
    import os

    os.write(2, b"rlaif: interrupted; rerun the same command to resume\n")
    os._exit(130)


def main() -> None:
    """Run the command line."""
    handle_interrupts()
    from rlaif_framework.cli.main import main as run  # slow, and can be interrupted from here on
    from rlaif_framework.cli.streams import end_stdout

    try:
        run()
    finally:
        end_stdout()


if __name__ == "__main__":
    main()
