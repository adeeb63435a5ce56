"""Numbers computed from records alone. May import `assembly` and the rooms below it; no torch."""
