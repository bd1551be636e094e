"""Objectives, one paper in one file."""
