"""Built-in labelers. Those that query a language model (`llm`, `rate`) get their prompts from the task."""
