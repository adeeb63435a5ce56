"""Build components, check them in advance, and identify them. May import `models` and the rooms below it."""
