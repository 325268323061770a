"""The HTTP leg to MiniToolAI: a narrow protocol, and what serves it today."""
