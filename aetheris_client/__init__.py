"""The Aetheris client SDK."""
