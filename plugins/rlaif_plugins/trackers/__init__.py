"""Built-in trackers: plugins that record runs."""
