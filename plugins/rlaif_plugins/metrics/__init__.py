"""Built-in metrics of responses, which need no model."""
