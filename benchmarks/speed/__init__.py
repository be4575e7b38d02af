"""Parts of `training_speed.py`: models, peers, clock and table. Knows no recipe and no run of a user."""
