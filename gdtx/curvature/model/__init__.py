"""What is found in a user's program: its layers, and the places where they are used."""
