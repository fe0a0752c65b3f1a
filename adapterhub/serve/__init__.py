"""What every engine shares: reading a request's `model`, deciding what may be served, errors."""
