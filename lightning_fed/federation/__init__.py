"""Hospitals, the driver and what lies between them; the only room that knows Ray."""
