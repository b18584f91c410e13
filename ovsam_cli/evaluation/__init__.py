"""Datasets, prompts, metrics and baselines of an evaluation."""
