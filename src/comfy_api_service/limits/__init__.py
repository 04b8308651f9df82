"""Token buckets: how often somebody may do something. Quotas that must never be exceeded are the database's."""
