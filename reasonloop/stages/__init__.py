"""The stages that methods are made of, done for real (`live.LiveStages`)."""
