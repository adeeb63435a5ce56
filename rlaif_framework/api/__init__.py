"""What a Python program or a notebook calls; may import all packages but `cli`, which shares it."""
