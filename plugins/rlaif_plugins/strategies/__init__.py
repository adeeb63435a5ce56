"""Built-in prompt strategies. The texts that they ask with are in the `annotator_prompts*.yaml` files of the tasks."""
