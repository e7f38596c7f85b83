"""What the arms of a sweep measured over their seeds, how surely they differ, and the reports of it."""
