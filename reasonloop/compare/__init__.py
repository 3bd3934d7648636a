"""`reasonloop compare`: finished runs as arms side by side, paired by seed and by problem, at equal rollouts."""
