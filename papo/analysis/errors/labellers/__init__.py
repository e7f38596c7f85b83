"""Who says what is wrong with a response: people, the lab's truth, rules of geometry, models as judges."""
