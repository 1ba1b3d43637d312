"""Line searches: links that ask for the function, and say how far along the update to go."""
