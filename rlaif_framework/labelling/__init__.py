"""Label a user's own pairs: no policy, no training."""
