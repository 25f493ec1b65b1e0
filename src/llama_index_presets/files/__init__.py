"""Files: locks, private modes, SQLite files, faults of the disk, encryption at rest."""
