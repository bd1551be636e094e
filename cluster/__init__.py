"""The cluster: processes, placement, weights, metrics, the command line. The only package that imports Ray."""

import gc

# Every process of a run begins with this package. What is imported stays: to look for garbage among it after every 700
# objects, which is Python's own way, takes an eighth of a start.
gc.set_threshold(50_000, *gc.get_threshold()[1:])
