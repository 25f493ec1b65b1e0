"""Evaluation measures: answer quality on labelled questions."""
