"""Label a user's pairs without training; may import `report` and the packages below it, but not `pipeline` or `rl`."""
