"""The `rlaif` command line; may import all other packages."""
