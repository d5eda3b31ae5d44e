"""How the points of a sweep are given to processes: workers on this machine, or jobs of a cluster."""
