"""Where the files of results and uploads live: one Protocol, one module an implementation."""
