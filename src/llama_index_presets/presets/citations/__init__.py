"""Citations of past answers: kept beside the index, shown as a page."""
