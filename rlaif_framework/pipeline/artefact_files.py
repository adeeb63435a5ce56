"""Names of the files of rows in artefacts, for readers that do not import the stages and their libraries."""

PREFERENCES = "preferences.jsonl"
"""The labels of comparisons, or a judge's verdicts."""

RESPONSES = "responses.jsonl"
"""A policy's responses to the test prompts."""
