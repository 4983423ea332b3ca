"""A database backend of Django's on the simulated store: transactions, savepoints, and nothing else."""
