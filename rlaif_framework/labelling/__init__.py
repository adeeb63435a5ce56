"""Label a user's pairs without training. May import `report` and the rooms below it; not `pipeline`, not `rl`."""
