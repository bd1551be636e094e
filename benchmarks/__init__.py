"""One script for each figure that we quote; README.md says how to run them."""
