"""Architectures and initialisers."""
