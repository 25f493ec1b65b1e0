"""Files: locks, private modes, faults of the disk, encryption at rest."""
