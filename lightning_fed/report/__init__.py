"""The run's HTML page and its figures, made from the run folder alone."""
