"""Built-in rewards and reward models."""
