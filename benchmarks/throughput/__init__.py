"""Agent steps a second of whole systems, acting and learning together: ours and Stable-Baselines3's in turns."""
