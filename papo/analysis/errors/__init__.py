"""What kind of wrong: which responses are labelled, how often each error is made, what became of it."""
