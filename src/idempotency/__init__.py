"""A write that a client may repeat: the first answer is kept, and given again."""
