"""Every method of PEFT that trains one adapter on a causal language model."""
