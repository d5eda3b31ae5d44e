"""Questions asked of finished runs: studies make trajectories, ask for states and call the room `analysis`."""
