"""Attacks on what was released, which see what their adversary sees and nothing of how it was made."""
