"""Full fine-tuning: the base itself is trained, and the result is a new base."""
