"""Parts of one's own, a file each: `allow=[own_parts]` on the command line lets configurations name them."""
