"""The schema of a config, the step grammar, and the way from Hydra to both."""
