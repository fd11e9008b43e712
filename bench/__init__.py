"""Benchmarks: measured side by side in one run, as medians and ratios. `python -m bench --help`."""
