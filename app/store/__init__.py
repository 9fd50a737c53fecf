"""What is written: the only room that speaks SQL."""
