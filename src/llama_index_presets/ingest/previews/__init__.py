"""Preview of what ingestion will read, as data and as a page."""
