"""The learner: one batch type, one loss, one update. It does not know which method feeds it."""
