"""Steps of workers and servers on hosts joined by links of 1 Gbit/s: `python -m benchmarks.network --help`."""
