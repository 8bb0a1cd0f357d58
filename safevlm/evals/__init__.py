"""Evaluations: how answers are judged, what is counted, and the table of the embedded model."""
