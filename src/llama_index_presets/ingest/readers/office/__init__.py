"""Office files: Word, OpenDocument, slides and sheets."""
