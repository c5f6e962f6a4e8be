"""Images: MedMNIST files, procedural blood cells, a user's own, their split, and a hospital's DataModule."""
