"""The work of each stage of a run, imported when the stage runs."""
