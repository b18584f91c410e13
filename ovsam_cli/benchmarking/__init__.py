"""Speed, each figure beside the proof that both sides compute the same."""
