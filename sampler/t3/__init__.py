"""The shared MLX inference core: the T3 of Chatterbox at any width, depth and vocabulary."""
