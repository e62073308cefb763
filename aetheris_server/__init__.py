"""The Aetheris server: frontend, history and matching on Postgres and Redis."""
