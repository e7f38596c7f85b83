"""What the machine does to a process: signals, launchers, deadlines, memory that ends."""
