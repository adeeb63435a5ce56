"""Components that plugins offer, and how plugins are found. May import `contracts` and below; no torch."""
