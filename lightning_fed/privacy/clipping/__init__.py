"""Per-example clipping."""
