"""One run on several devices: torchrun's rank 0 plays it, the other ranks sample, learn and save with it."""
