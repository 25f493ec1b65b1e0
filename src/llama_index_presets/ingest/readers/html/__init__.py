"""HTML: one walk that other formats end in, what a page hides, marks of lists, texts of images."""
