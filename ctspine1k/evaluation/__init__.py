"""How well predicted vertebrae agree with the reference."""
