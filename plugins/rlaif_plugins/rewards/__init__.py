"""Built-in rewards and reward models. `length` is the length penalty; algorithms handle missing EOS tokens."""
