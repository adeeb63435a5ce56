"""The `rlaif` command: what a person types. May import every other room."""
