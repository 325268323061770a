"""The rules of money. Standard library only; never awaits, never reads a clock or the environment."""
