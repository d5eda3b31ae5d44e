"""Is training robust to a move of its start as long as the move that pruning makes?"""
