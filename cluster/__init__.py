"""The cluster: processes, placement, weights, metrics, the command line. The only package that imports Ray."""
