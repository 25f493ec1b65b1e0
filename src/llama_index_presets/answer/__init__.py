"""Answer stage: hits in, a cited answer out."""
