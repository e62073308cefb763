"""The programs of docs/guide, one for each page: a worker and a client in one process."""
