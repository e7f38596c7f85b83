"""What is kept and what comes from elsewhere: files, run folders and their readers, pictures, the hub."""
