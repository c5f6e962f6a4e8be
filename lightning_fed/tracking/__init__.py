"""What is recorded of a run: round records, the console, W&B."""
