"""Tables and figures of stored runs; knows no training."""
