"""Tests of training/align."""
