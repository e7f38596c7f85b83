"""Pages and tables about one run, one data set, or the responses of two policies."""
