"""Files and documents in, clean chunks out."""
