"""`python -m rlaif_framework` is the `rlaif` command."""

from rlaif_framework.cli.main import main

if __name__ == "__main__":
    main()
