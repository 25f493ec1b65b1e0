"""Answer cache: the form in which two questions are one, and the file that keeps answers."""
