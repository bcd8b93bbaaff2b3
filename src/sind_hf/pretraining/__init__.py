"""Training without opinions: photographs, distorted in many ways, scored against the originals they were made from."""
