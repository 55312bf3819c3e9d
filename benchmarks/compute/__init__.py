"""Training steps of whole networks beside PyTorch's best; see __main__."""
