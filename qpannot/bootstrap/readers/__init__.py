"""Who reads slides: second readers, several annotators of one slide, and what it costs them."""
