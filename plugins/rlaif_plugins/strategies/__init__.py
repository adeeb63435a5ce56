"""Built-in prompt strategies."""
