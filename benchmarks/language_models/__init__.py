"""Perplexity of the language models beside the same networks in PyTorch: `python -m benchmarks.language_models`."""
