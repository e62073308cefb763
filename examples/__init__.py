"""Programs that show Aetheris at work; run them from the root of the repository."""
