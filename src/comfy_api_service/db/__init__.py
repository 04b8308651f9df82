"""The database: tables, migrations and named queries. Rows don't leave this package; domain values do."""
