"""The Aetheris worker SDK."""
