"""Vector stores that keep the same promises."""
