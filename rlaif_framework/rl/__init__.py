"""The core that reinforcement-learning algorithms share; each algorithm adds its advantages and its loss."""
