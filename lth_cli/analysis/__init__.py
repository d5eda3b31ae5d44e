"""Questions asked of finished states."""
