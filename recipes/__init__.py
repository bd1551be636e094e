"""Recipes: functions that return an `Experiment`. Keyword arguments are flags, docstrings are help."""
