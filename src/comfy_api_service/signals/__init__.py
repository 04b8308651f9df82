"""Wake-ups, progress and cancel notices. Signals are hints: the database is the truth, losing one costs time."""
