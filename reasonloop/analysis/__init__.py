"""What a run's rollouts and evaluations say: overfitting, forgetting, diversity, behaviours, stability, scaling."""
