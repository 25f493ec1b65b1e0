"""Text of any language: its language, its sentences, its UTF-8, its tokens."""
