"""What plugins offer and how they are found. May import `contracts` and the rooms below it; no torch."""
