"""The way to Redis or Valkey: where it is, one connection that is asked, one that listens.

It may die, hang or be emptied at any moment: nobody waits longer than 250 ms for it, and whoever uses it has
another way. Importing `client` costs a third of a second: only those who were given a `REDIS_URL` do.
"""
