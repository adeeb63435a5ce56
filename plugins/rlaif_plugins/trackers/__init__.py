"""Built-in trackers: plugins that record a run."""
