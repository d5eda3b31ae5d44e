"""Trajectories and the engine that advances them."""
