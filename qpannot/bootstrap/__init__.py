"""The loop: rounds, proposals, the states of slides, and what comes next."""
