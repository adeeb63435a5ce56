"""The settings of a run: model, loading, JSON Schema. May import `plugins` and the rooms below it; no torch."""
