"""The selection matrix, and what turns a row of it into an engine."""
