"""The work of each stage of a run."""
