"""Between ReasonLoop and other trainers: their rollouts as a run, and a run's experts as files for their fine-tuning."""
