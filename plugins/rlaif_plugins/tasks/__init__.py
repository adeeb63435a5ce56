"""Built-in tasks. The `annotator_prompts*.yaml` files beside them have the prompts for language-model labelers."""
