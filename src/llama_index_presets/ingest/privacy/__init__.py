"""Personal data in documents: its forms, and the watch over an ingest."""
