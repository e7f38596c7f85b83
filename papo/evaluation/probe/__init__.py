"""Given responses, word by word: how much each depends on the picture, and where the policy looks."""
