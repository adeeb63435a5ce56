"""The `rlaif` command line. May import all other rooms."""
