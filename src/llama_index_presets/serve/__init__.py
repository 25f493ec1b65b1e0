"""Server: an engine for other programs and people. See `app.create_app`."""
