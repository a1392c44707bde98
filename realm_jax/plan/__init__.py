"""What a run costs before it starts: memory, FLOPs, bytes, from its shapes."""
