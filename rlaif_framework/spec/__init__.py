"""The settings of a run: pydantic models, files and JSON Schema. May import `plugins` and below; no torch."""
