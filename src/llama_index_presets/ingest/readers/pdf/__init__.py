"""PDF: characters with their places (pypdfium2) to text in reading order, tables, headings and line rectangles."""
