"""The refinement stage (H2G-Net sec. 2.6): by itself, in a round of the loop, and as it is told."""
